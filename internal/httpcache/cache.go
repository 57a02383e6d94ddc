// Package httpcache caches what no repository format knows, by the rules of
// HTTP alone (RFC 9111, as a shared cache; RFC 5861 for stale answers).
//
// Only the plain is kept: complete 200 answers to requests that are like
// anybody else's, and for a short while small answers that say there is no
// such file. Everything else is passed on. The package must not know of
// repositories, trees or generations; what it keeps can be lost at any time.
package httpcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
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
	repliesMax   = 1024             // small answers that are remembered
	resourcesMax = 4096             // URLs whose entries are kept in memory
	smallBody    = 4 << 10          // a body up to this size is read and given to all who wait
	fillLimit    = 6 * time.Hour    // how long a fill may take, whoever waits for it
	patience     = 10 * time.Second // how long one who could have a stale answer waits for upstream's
	retry        = 5 * time.Second  // how long upstream is not asked again where a stale answer stands in
)

// Cache answers URLs from the store where HTTP allows it, and from upstream
// otherwise. It is safe for concurrent use.
type Cache struct {
	store *cas.Store
	src   fetch.Source
	now   func() time.Time
	log   *slog.Logger

	resources *lru.Cache[string, *resource] // by place
	replies   *lru.Cache[string, *reply]    // by key
	failures  *lru.Cache[string, time.Time] // by key: when upstream could not be asked and something stood in

	ctx    context.Context // of the flights, which outlive their clients
	cancel context.CancelFunc
	work   sync.WaitGroup

	writing sync.Mutex // held while a resource is changed
	mu      sync.Mutex
	flights map[string]*flight // by key
}

// New returns a Cache that keeps content in store and asks src. log may be nil.
// Close it before the store.
func New(store *cas.Store, src fetch.Source, now func() time.Time, log *slog.Logger) *Cache {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{store: store, src: src, now: now, log: log, flights: map[string]*flight{}}
	// The only error of lru.New is a size that is not positive.
	c.resources, _ = lru.New[string, *resource](resourcesMax)
	c.replies, _ = lru.New[string, *reply](repliesMax)
	c.failures, _ = lru.New[string, time.Time](repliesMax)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends all fetching, and waits for that until ctx ends. What was being
// fetched is dropped; the Cache is not to be used any more.
func (c *Cache) Close(ctx context.Context) error {
	c.cancel()
	done := make(chan struct{})
	go func() { c.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for downloads to end: %w", ctx.Err())
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
	Bypass bool                // passed on without a look at what is kept
}

// Close closes File or Body.
func (a *Answer) Close() error {
	if a.File != nil {
		return a.File.Close()
	}
	return a.Body.Close()
}

// Open answers a GET or HEAD. It serves ranges and conditions by File too: the
// caller sends what it needs of that. Redirects are answers.
//
// A request with fields that are not everybody's (Authorization, Cookie,
// anything unknown) or no-store is passed on as it is, conditions and ranges
// included. Errors are those of fetch.Source and of the disk; what was kept
// stands in for an upstream that cannot be asked, marked Stale.
func (c *Cache) Open(ctx context.Context, r Request) (*Answer, error) {
	q := newQuery(r)
	if !q.plain() {
		return c.pass(ctx, &q)
	}
	if r, ok := c.replies.Get(q.key()); ok && !q.control.has("no-cache") && c.now().Before(r.until) {
		return r.answer(chantal.Hit, c.now()), nil
	}
	e, exact := c.lookup(&q)
	if e != nil && exact && e.usable(q.control, c.now()) {
		a, err := c.stored(&q, e, chantal.Hit)
		if err == nil {
			return a, nil
		}
		c.log.Warn("opening what was kept of a URL", "url", q.URL, "error", err)
		e = nil
	}
	if q.control.has("only-if-cached") {
		return onlyIfCached(), nil
	}
	stand := e
	if e != nil && (q.control.has("no-cache") || !e.usableStale(q.control, c.now())) {
		stand = nil
	}
	if at, failed := c.failures.Get(q.key()); stand != nil && failed && c.now().Sub(at) < retry {
		return c.stored(&q, stand, chantal.Stale)
	}
	if q.Method == http.MethodHead && !c.flies(nil, q.key()) {
		return c.head(ctx, &q, e)
	}
	return c.await(ctx, &q, e, stand)
}

// await asks upstream, with all others who want to know the same. stand, if not
// nil, is what the client gets when that takes long.
func (c *Cache) await(ctx context.Context, q *query, e, stand *entry) (*Answer, error) {
	f := c.join(q, e)
	var enough <-chan time.Time
	if stand != nil {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-f.settled:
		return c.outcome(ctx, f, q)
	case <-enough:
		f.leave()
		return c.stored(q, stand, chantal.Stale)
	case <-ctx.Done():
		f.leave()
		return nil, ctx.Err()
	}
}

// outcome makes a waiter's answer of a settled flight.
func (c *Cache) outcome(ctx context.Context, f *flight, q *query) (*Answer, error) {
	if resp := f.claim(); resp != nil {
		if !q.readable(resp.Header) {
			resp.Body.Close()
			return nil, unreadable(q, resp.Header)
		}
		return passed(resp), nil
	}
	switch {
	case f.kept != nil && !q.readable(f.kept.Header):
		return nil, unreadable(q, f.kept.Header)
	case f.arriving != nil:
		return c.follow(ctx, f, q)
	case f.small != nil:
		return f.small.answer(chantal.Miss, c.now()), nil
	case f.kept != nil && f.status == chantal.Stale && q.control.has("no-cache") && !errors.Is(f.err, chantal.ErrOffline):
		// The client insists on upstream's word (RFC 9111, 5.2.1.4).
		return nil, f.err
	case f.kept != nil:
		return c.stored(q, f.kept, f.status)
	case f.err != nil:
		return nil, f.err
	}
	// The answer was for one only, and another waiter has it.
	return c.pass(ctx, q)
}

func unreadable(q *query, h http.Header) error {
	return fetch.Unusable(q.URL, errors.New("it answered with Content-Encoding "+h.Get("Content-Encoding")+" though asked for the file as it is"))
}

// stored answers from the store.
func (c *Cache) stored(q *query, e *entry, status chantal.CacheStatus) (*Answer, error) {
	content, blob, err := c.store.Open(e.Digest)
	if err != nil {
		return nil, err
	}
	a := c.fileAnswer(q, e, status)
	a.File.Content, a.File.Digest, a.File.Size = content, blob.Digest, blob.Size
	return a, nil
}

// follow answers with a file that is arriving. It waits until a part of it can
// be read, so that an upstream that breaks off early is an error, not a cut.
func (c *Cache) follow(ctx context.Context, f *flight, q *query) (*Answer, error) {
	if err := f.arriving.Ready(ctx); err != nil {
		if f.instead != nil && ctx.Err() == nil {
			return c.stored(q, f.instead, chantal.Stale)
		}
		return nil, err
	}
	content, err := f.arriving.Follow(ctx)
	if errors.Is(err, chantal.ErrNotKept) {
		return c.pass(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	a := c.fileAnswer(q, f.kept, chantal.Miss)
	a.File.Content, a.File.Size, a.File.Digest = content, f.arriving.Size(), f.arriving.Blob().Digest
	return a, nil
}

func (c *Cache) fileAnswer(q *query, e *entry, status chantal.CacheStatus) *Answer {
	h := e.Header.Clone()
	delete(h, "Content-Length")
	h.Set("Age", seconds(e.age(c.now())))
	return &Answer{
		Status: http.StatusOK, Header: h, Cache: status,
		File: &chantal.File{Path: q.URL, Modified: e.Modified, Type: h.Get("Content-Type"), Cache: status},
	}
}

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// head asks upstream for the header alone. What it says of another state than
// the one kept ends that (RFC 9111, 4.3.5); of the same, it is news of it.
func (c *Cache) head(ctx context.Context, q *query, e *entry) (*Answer, error) {
	req := q.question(nil)
	req.Method = http.MethodHead
	for name, values := range q.Header {
		if strings.HasPrefix(name, "If-") {
			req.Header[name] = values
		}
	}
	requested := c.now()
	resp, err := c.src.Fetch(ctx, req)
	received := c.now()
	if e != nil && e.usableStale(q.control, received) && ctx.Err() == nil {
		insists := q.control.has("no-cache") && !errors.Is(err, chantal.ErrOffline)
		if (err != nil || unavailable(resp.Status)) && !insists {
			if err == nil {
				resp.Body.Close()
			}
			return c.stored(q, e, chantal.Stale)
		}
	}
	if err != nil {
		return nil, err
	}
	switch {
	case e == nil || unavailable(resp.Status):
	case resp.Status == http.StatusOK:
		same := resp.ETag == e.Header.Get("ETag") && resp.Modified.Equal(e.Modified) && (resp.Size < 0 || resp.Size == e.Size)
		if newer := e.confirmed(q, resp, requested, received); same && newer != nil && shareable(resp.Header) {
			c.keep(q, nil, newer, nil)
		} else {
			c.forget(q)
		}
	case resp.Status == http.StatusNotFound || resp.Status == http.StatusGone:
		c.forget(q)
	}
	return passed(resp), nil
}

// pass asks upstream on the client's behalf alone.
func (c *Cache) pass(ctx context.Context, q *query) (*Answer, error) {
	resp, err := c.src.Fetch(ctx, &fetch.Request{
		Repo: q.Repo, Method: q.Method, URL: q.URL, Header: q.Header, NoFollow: true, Encoded: true,
	})
	if err != nil {
		return nil, err
	}
	a := passed(resp)
	a.Bypass = true
	return a, nil
}

func passed(resp *fetch.Response) *Answer {
	return &Answer{Status: resp.Status, Header: fetch.EndToEnd(resp.Header), Body: resp.Body, Cache: chantal.Miss}
}

// Invalidate takes note that a request with an unsafe method has been answered
// without an error (RFC 9111, 4.4): what is kept of its URL, and of those on
// the same host that the answer's header names, is not used again.
func (c *Cache) Invalidate(repo, target string, header http.Header) {
	base, err := url.Parse(target)
	if err != nil {
		return
	}
	urls := []string{target}
	for _, name := range []string{"Location", "Content-Location"} {
		if to, err := base.Parse(header.Get(name)); err == nil && header.Get(name) != "" && to.Scheme == base.Scheme && to.Host == base.Host {
			urls = append(urls, to.String())
		}
	}
	for _, u := range urls {
		q := newQuery(Request{Repo: repo, URL: u})
		c.drop(q.place())
		c.forget(&q)
	}
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

const (
	replyFor = 10 * time.Second // how long an answer without a file is given again where it does not say
	replyMax = time.Minute      // and at most
)

// reply is a small answer that is given to several.
type reply struct {
	status              int
	header              http.Header
	body                string
	requested, received time.Time
	until               time.Time // until when it answers without asking again
}

// remembered is for how long the answer may be given again.
func (r *reply) remembered() time.Duration {
	d, told := toldLifetime(r.header, r.received)
	switch {
	case unavailable(r.status) || !shareable(r.header) || parseControl(r.header).has("no-cache"):
		return 0
	case told:
		return min(max(0, d-ageOf(r.header, r.requested, r.received, r.received)), replyMax)
	case r.status == http.StatusNotFound || r.status == http.StatusGone:
		return replyFor
	}
	return 0
}

func (r *reply) answer(status chantal.CacheStatus, now time.Time) *Answer {
	h := r.header.Clone()
	if status == chantal.Hit {
		h.Set("Age", seconds(ageOf(r.header, r.requested, r.received, now)))
	}
	return &Answer{Status: r.status, Header: h, Body: io.NopCloser(strings.NewReader(r.body)), Cache: status}
}

// name is the last part of the path that a query's URL has.
func (q *query) name() string {
	p, _, _ := strings.Cut(q.URL, "?")
	return path.Base(p)
}
