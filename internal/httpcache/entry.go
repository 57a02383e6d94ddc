package httpcache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"time"

	"chantal"
	"chantal/internal/fetch"
)

// entryForm is the version of the kept form of an entry.
const entryForm = 1

// entry is what is kept of an answer beside its content, as a derived file: to
// lose it costs one request. Entries are not changed once made.
type entry struct {
	Form      int            `json:"form"`
	URL       string         `json:"url"`
	Header    http.Header    `json:"header"` // end-to-end, as upstream sent it
	Digest    chantal.Digest `json:"digest"` // of the content; "" where the URL has none any more
	Size      int64          `json:"size"`
	Modified  time.Time      `json:"modified,omitzero"` // upstream's Last-Modified
	Requested time.Time      `json:"requested"`
	Received  time.Time      `json:"received"`
}

// newEntry makes the entry of an answer whose content is not known yet.
func newEntry(url string, resp *fetch.Response, requested, received time.Time) *entry {
	h := fetch.EndToEnd(resp.Header)
	if h.Get("Date") == "" {
		h.Set("Date", received.UTC().Format(http.TimeFormat))
	}
	return &entry{
		Form: entryForm, URL: url, Header: h, Modified: resp.Modified, Size: resp.Size,
		Requested: requested, Received: received,
	}
}

// confirmed returns e as a 304 updates it (RFC 9111, 3.2), or nil if the 304
// is about another state of the file (4.3.4).
func (e *entry) confirmed(resp *fetch.Response, requested, received time.Time) *entry {
	if etag := e.Header.Get("ETag"); resp.ETag != "" && etag != "" && resp.ETag != etag {
		return nil
	}
	out := *e
	out.Header = e.Header.Clone()
	delete(out.Header, "Age") // was that of the older answer
	for name, values := range newEntry(e.URL, resp, requested, received).Header {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Range", "Content-Type":
		default:
			out.Header[name] = slices.Clone(values)
		}
	}
	out.Requested, out.Received = requested, received
	if !resp.Modified.IsZero() {
		out.Modified = resp.Modified
	}
	return &out
}

func entryKey(url string) string {
	sum := sha256.Sum256([]byte(url))
	return "http-" + hex.EncodeToString(sum[:])
}

// lookup returns the entry of url, or nil where there is none whose content is
// stored.
func (c *Cache) lookup(url string) *entry {
	e, ok := c.entries.Get(url)
	if !ok {
		var err error
		if e, err = c.load(url); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				c.log.Warn("reading what is kept of an HTTP answer", "url", url, "err", err)
			}
			return nil
		}
		c.entries.Add(url, e)
	}
	if e.Digest == "" {
		return nil
	}
	if _, err := c.store.Find("", e.Digest); err != nil {
		c.entries.Remove(url)
		return nil
	}
	return e
}

func (c *Cache) load(url string) (*entry, error) {
	f, err := c.store.Derived(entryKey(url))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	e := new(entry)
	if err := json.NewDecoder(io.LimitReader(f, 4<<20)).Decode(e); err != nil {
		return nil, err
	}
	if e.Form != entryForm || e.URL != url {
		return nil, fs.ErrNotExist
	}
	return e, nil
}

// save keeps e. Failing costs later requests only, so it is no error.
func (c *Cache) save(e *entry) {
	c.entries.Add(e.URL, e)
	err := c.store.PutDerived(entryKey(e.URL), func(w io.Writer) error { return json.NewEncoder(w).Encode(e) })
	if err != nil {
		c.log.Warn("keeping an HTTP answer", "url", e.URL, "err", err)
	}
}

// forget makes sure that what was kept of url is not used again.
func (c *Cache) forget(url string) { c.save(&entry{Form: entryForm, URL: url}) }
