// Package httpcache caches what no repository format knows, by the rules of
// HTTP alone (RFC 9111, as a shared cache; RFC 5861 for stale answers).
//
// Only the plain is kept: complete 200 answers to requests that are like
// anybody else's. Everything else is passed on. The package must not know of
// repositories, trees or generations; what it keeps can be lost at any time.
package httpcache

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/fetch"
)

const (
	negativeFor = 10 * time.Second // how long a 404 or 410 is answered again
	negativeMax = 1024             // and how many of them are remembered
	entriesMax  = 4096             // entries that are kept in memory
	smallBody   = 4 << 10          // a body up to this size is read and given to all who wait
	fillLimit   = 6 * time.Hour    // how long a fill may take, whoever waits for it
)

// Cache answers URLs from the store where HTTP allows it, and from upstream
// otherwise. It is safe for concurrent use.
type Cache struct {
	store *cas.Store
	src   fetch.Source
	now   func() time.Time
	log   *slog.Logger

	entries  *lru.Cache[string, *entry]
	negative *lru.Cache[string, *reply]

	mu      sync.Mutex
	flights map[string]*flight // by URL
}

// New returns a Cache that keeps content in store and asks src. log may be nil.
func New(store *cas.Store, src fetch.Source, now func() time.Time, log *slog.Logger) *Cache {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// The only error of lru.New is a size that is not positive.
	entries, _ := lru.New[string, *entry](entriesMax)
	negative, _ := lru.New[string, *reply](negativeMax)
	return &Cache{
		store: store, src: src, now: now, log: log,
		entries: entries, negative: negative, flights: map[string]*flight{},
	}
}

// Answer is what a client is to get. Either File or Body is set; the caller
// closes the Answer.
type Answer struct {
	Status int
	Header http.Header         // end-to-end fields; with File: Age is set, Content-Length is not
	File   *chantal.File       // content that is stored or arriving; Status is 200
	Body   io.ReadCloser       // an answer that is passed on as it is
	Cache  chantal.CacheStatus // Miss for what is passed on
}

// Close closes File or Body.
func (a *Answer) Close() error {
	if a.File != nil {
		return a.File.Close()
	}
	return a.Body.Close()
}

// Open answers a GET of url (absolute, as it goes upstream) with the client's
// end-to-end fields in header. It serves HEAD and ranges too: the caller sends
// what it needs of File. Redirects are answers.
//
// A request with fields that are not everybody's (Authorization, Cookie,
// anything unknown) or no-store is passed on as it is, conditions and ranges
// included. Errors are those of fetch.Source and of the disk; what was kept
// stands in for an upstream that cannot be asked, marked Stale.
func (c *Cache) Open(ctx context.Context, url string, header http.Header) (*Answer, error) {
	url, _, _ = strings.Cut(url, "#")
	header = fetch.EndToEnd(header)
	asked := parseControl(header)
	if !plain(header, asked) {
		return c.pass(ctx, url, header)
	}
	if r, ok := c.negative.Get(url); ok && !asked.has("no-cache") && c.now().Sub(r.received) < negativeFor {
		return r.answer(chantal.Hit), nil
	}
	e := c.lookup(url)
	if e != nil && e.usable(asked, c.now()) {
		a, err := c.stored(e, chantal.Hit)
		if err == nil {
			return a, nil
		}
		c.log.Warn("opening what was kept of a URL", "url", url, "err", err)
		e = nil
	}
	if asked.has("only-if-cached") {
		return onlyIfCached(), nil
	}
	f := c.join(ctx, url, header, asked, e)
	select {
	case <-f.settled:
	case <-ctx.Done():
		f.leave()
		return nil, ctx.Err()
	}
	return c.outcome(ctx, f, url, header, asked)
}

// outcome makes a waiter's answer of a settled flight.
func (c *Cache) outcome(ctx context.Context, f *flight, url string, header http.Header, asked directives) (*Answer, error) {
	if resp := f.claim(); resp != nil {
		return passed(resp), nil
	}
	switch {
	case f.arriving != nil:
		return c.follow(ctx, f)
	case f.small != nil:
		return f.small.answer(chantal.Miss), nil
	case f.kept != nil && f.status == chantal.Stale && asked.has("no-cache") && !errors.Is(f.err, chantal.ErrOffline):
		// The client insists on upstream's word (RFC 9111, 5.2.1.4).
		return nil, f.err
	case f.kept != nil:
		return c.stored(f.kept, f.status)
	case f.err != nil:
		return nil, f.err
	}
	// The answer was for one only, and another waiter has it.
	return c.pass(ctx, url, header)
}

// stored answers from the store.
func (c *Cache) stored(e *entry, status chantal.CacheStatus) (*Answer, error) {
	content, blob, err := c.store.Open(e.Digest)
	if err != nil {
		return nil, err
	}
	a := c.fileAnswer(e, status)
	a.File.Content, a.File.Digest, a.File.Size = content, blob.Digest, blob.Size
	if a.File.Modified.IsZero() {
		a.File.Modified = blob.Modified
	}
	return a, nil
}

// follow answers with a file that is arriving. It waits until a part of it can
// be read, so that an upstream that breaks off early is an error, not a cut.
func (c *Cache) follow(ctx context.Context, f *flight) (*Answer, error) {
	if err := f.arriving.Ready(ctx); err != nil {
		if f.instead != nil && ctx.Err() == nil {
			return c.stored(f.instead, chantal.Stale)
		}
		return nil, err
	}
	content, err := f.arriving.Follow(ctx)
	if err != nil {
		return nil, err
	}
	a := c.fileAnswer(f.kept, chantal.Miss)
	a.File.Content, a.File.Size, a.File.Digest = content, f.arriving.Size(), f.arriving.Blob().Digest
	return a, nil
}

func (c *Cache) fileAnswer(e *entry, status chantal.CacheStatus) *Answer {
	h := e.Header.Clone()
	delete(h, "Content-Length")
	h.Set("Age", strconv.FormatInt(int64(e.age(c.now())/time.Second), 10))
	return &Answer{
		Status: http.StatusOK, Header: h, Cache: status,
		File: &chantal.File{Path: e.URL, Modified: e.Modified, Type: h.Get("Content-Type"), Cache: status},
	}
}

// pass asks upstream on the client's behalf alone.
func (c *Cache) pass(ctx context.Context, url string, header http.Header) (*Answer, error) {
	resp, err := c.src.Fetch(ctx, &fetch.Request{URL: url, Header: header, NoFollow: true})
	if err != nil {
		return nil, err
	}
	return passed(resp), nil
}

func passed(resp *fetch.Response) *Answer {
	return &Answer{Status: resp.Status, Header: fetch.EndToEnd(resp.Header), Body: resp.Body, Cache: chantal.Miss}
}

func onlyIfCached() *Answer {
	const text = "The client asked for a stored answer only (only-if-cached), and there is none that is fresh.\n"
	return &Answer{
		Status: http.StatusGatewayTimeout,
		Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Content-Length": {strconv.Itoa(len(text))}},
		Body:   io.NopCloser(strings.NewReader(text)),
		Cache:  chantal.Miss,
	}
}

// reply is a small answer that is given to several.
type reply struct {
	status   int
	header   http.Header
	body     string
	received time.Time
}

func (r *reply) answer(status chantal.CacheStatus) *Answer {
	return &Answer{Status: r.status, Header: r.header.Clone(), Body: io.NopCloser(strings.NewReader(r.body)), Cache: status}
}
