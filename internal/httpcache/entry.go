package httpcache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"chantal"
	"chantal/internal/fetch"
)

const (
	resourceForm = 2 // the version of the kept form of a resource
	variantsMax  = 16
)

// resource is what is kept of one URL, as a derived file: to lose it costs one
// request. Resources and entries are not changed once made.
type resource struct {
	Form     int      `json:"form"`
	Repo     string   `json:"repo,omitempty"`
	URL      string   `json:"url"`
	Variants []*entry `json:"variants"` // the newest first; one for each set of choosing fields
}

// entry is what is kept of an answer beside its content.
type entry struct {
	Sent      map[string]string `json:"sent,omitempty"` // the choosing fields of the request
	Header    http.Header       `json:"header"`         // end-to-end, as upstream sent it
	Digest    chantal.Digest    `json:"digest"`         // of the content
	Size      int64             `json:"size"`
	Modified  time.Time         `json:"modified,omitzero"` // upstream's Last-Modified
	Requested time.Time         `json:"requested"`
	Received  time.Time         `json:"received"`
}

// newEntry makes the entry of an answer whose content is not known yet.
func newEntry(q *query, resp *fetch.Response, requested, received time.Time) *entry {
	h := fetch.EndToEnd(resp.Header)
	if h.Get("Date") == "" {
		h.Set("Date", received.UTC().Format(http.TimeFormat))
	}
	return &entry{Sent: q.sent, Header: h, Modified: resp.Modified, Size: resp.Size, Requested: requested, Received: received}
}

// confirmed returns e as a 304 updates it (RFC 9111, 3.2), or nil if the 304
// is about another state of the file (4.3.4).
func (e *entry) confirmed(q *query, resp *fetch.Response, requested, received time.Time) *entry {
	if etag := e.Header.Get("ETag"); resp.ETag != "" && etag != "" && opaqueTag(resp.ETag) != opaqueTag(etag) {
		return nil
	}
	out := *e
	out.Header = e.Header.Clone()
	delete(out.Header, "Age") // was that of the older answer
	for name, values := range newEntry(q, resp, requested, received).Header {
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

// opaqueTag is what entity tags are compared by where weak ones count, too.
func opaqueTag(etag string) string { return strings.TrimPrefix(etag, "W/") }

// exact reports whether e answers the very request that q would send.
func (e *entry) exact(q *query) bool { return maps.Equal(e.Sent, q.sent) }

// alike reports whether upstream says that q's fields make no difference to e
// (RFC 9111, 4.1).
func (e *entry) alike(q *query) bool {
	for name := range choosing {
		if e.Sent[name] != q.sent[name] && varies(e.Header, name) {
			return false
		}
	}
	return true
}

func (q *query) readable(h http.Header) bool {
	path, _, _ := strings.Cut(q.URL, "?")
	coding := fetch.Coding(h, path)
	return coding == "" || q.reads(coding)
}

// lookup returns what is kept for q and stored, or nil: what upstream answered
// to the same fields, else what may be the same. Of the latter upstream has to
// say so: fresh tells which it is.
func (c *Cache) lookup(q *query) (e *entry, exact bool) {
	r := c.resource(q)
	if r == nil {
		return nil, false
	}
	for _, v := range r.Variants {
		if !q.readable(v.Header) || !v.exact(q) && (e != nil || !v.alike(q)) {
			continue
		}
		if _, err := c.store.Find("", v.Digest); err != nil {
			continue
		}
		if e = v; v.exact(q) {
			return v, true
		}
	}
	return e, false
}

// resource returns what is kept of the query's URL, or nil.
func (c *Cache) resource(q *query) *resource {
	if r, ok := c.resources.Get(q.place()); ok {
		return r
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.resourceLocked(q)
}

// resourceLocked is resource for those who hold c.writing.
func (c *Cache) resourceLocked(q *query) *resource {
	place := q.place()
	if r, ok := c.resources.Get(place); ok {
		return r
	}
	r, err := c.load(q)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.log.Warn("reading what is kept of an HTTP answer", "url", q.URL, "error", err)
		}
		return nil
	}
	c.resources.Add(place, r)
	return r
}

// derivedPrefix begins the keys of what is kept.
const derivedPrefix = "http-"

func derivedKey(place string) string {
	sum := sha256.Sum256([]byte(place))
	return derivedPrefix + hex.EncodeToString(sum[:])
}

func (c *Cache) load(q *query) (*resource, error) {
	f, err := c.store.Derived(derivedKey(q.place()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := new(resource)
	if err := json.NewDecoder(io.LimitReader(f, 16<<20)).Decode(r); err != nil {
		return nil, err
	}
	if r.Form != resourceForm || r.Repo != q.Repo || r.URL != q.URL {
		return nil, fs.ErrNotExist
	}
	return r, nil
}

// keep makes e what answers q from now on, unless f, if not nil, was dropped
// meanwhile. same, if not nil, updates the other variants: those for which it
// returns nil stay as they are.
func (c *Cache) keep(q *query, f *flight, e *entry, same func(*entry) *entry) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if f != nil && !c.flies(f, q.key()) {
		return
	}
	kept := *e
	kept.Sent = q.sent
	next := &resource{Form: resourceForm, Repo: q.Repo, URL: q.URL, Variants: []*entry{&kept}}
	if r := c.resourceLocked(q); r != nil {
		for _, v := range r.Variants {
			if v.exact(q) || len(next.Variants) == variantsMax {
				continue
			}
			if same != nil {
				if newer := same(v); newer != nil {
					v = newer
				}
			}
			next.Variants = append(next.Variants, v)
		}
	}
	c.save(next)
}

// save keeps r. Failing costs later requests only, so it is no error.
func (c *Cache) save(r *resource) {
	place := r.Repo + "\x00" + r.URL
	c.resources.Add(place, r)
	err := c.store.PutDerived(derivedKey(place), func(w io.Writer) error { return json.NewEncoder(w).Encode(r) })
	if err != nil {
		c.log.Warn("keeping an HTTP answer", "url", r.URL, "error", err)
	}
}

// forget makes sure that what was kept of the query's URL is not used again.
func (c *Cache) forget(q *query) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if r := c.resourceLocked(q); r != nil && len(r.Variants) > 0 {
		c.save(&resource{Form: resourceForm, Repo: q.Repo, URL: q.URL})
	}
}
