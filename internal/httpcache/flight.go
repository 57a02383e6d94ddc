package httpcache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/fetch"
)

// flight is one question to upstream about one URL, on behalf of all who want
// to know. It goes on when they have left.
type flight struct {
	settled chan struct{} // closed when the fields below are final

	kept     *entry              // what to answer, unless small or err tell; with arriving: its header
	status   chantal.CacheStatus // of kept
	arriving *cas.Growing        // content that is being stored
	instead  *entry              // with arriving: what to answer if that fails; may be nil
	small    *reply              // an answer that is not kept, but for all
	err      error               // why there is none; with Stale: why it is

	mu      sync.Mutex
	waiters int
	single  *fetch.Response // an answer for one waiter only, until it is claimed
}

// join returns the flight that asks what q asks, and starts it where there is
// none. The caller has to claim or leave it.
func (c *Cache) join(q *query, old *entry) *flight {
	key := q.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[key]; f != nil {
		f.mu.Lock()
		f.waiters++
		f.mu.Unlock()
		return f
	}
	f := &flight{settled: make(chan struct{}), waiters: 1}
	c.flights[key] = f
	ctx, cancel := context.WithTimeout(c.ctx, fillLimit)
	c.work.Go(func() { c.fly(ctx, cancel, f, q, old) })
	return f
}

// flies reports whether f, or any flight if f is nil, is under way for key.
func (c *Cache) flies(f *flight, key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	have := c.flights[key]
	return have != nil && (f == nil || have == f)
}

// claim ends the waiting for a settled flight, and returns the answer that is
// for one only if nobody else has it.
func (f *flight) claim() *fetch.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters--
	resp := f.single
	f.single = nil
	return resp
}

// leave ends the waiting for any flight.
func (f *flight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters--
	f.closeUnwanted()
}

// closeUnwanted closes an answer that nobody waits for. f.mu is held.
func (f *flight) closeUnwanted() {
	if f.waiters == 0 && f.single != nil {
		f.single.Body.Close()
		f.single = nil
	}
}

// land removes f from the flights, so that the next request starts another.
func (c *Cache) land(f *flight, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[key] == f {
		delete(c.flights, key)
	}
}

// remember keeps the small answer that f has, unless f was dropped meanwhile.
func (c *Cache) remember(f *flight, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := f.small.remembered(); d > 0 && c.flights[key] == f {
		f.small.until = f.small.received.Add(d)
		c.replies.Add(key, f.small)
	}
}

// drop forgets the small answers of a place, and makes flights that are under
// way there end without anything being kept.
func (c *Cache) drop(place string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	there := func(key string) bool { return strings.HasPrefix(key, place+"\x00") }
	maps.DeleteFunc(c.flights, func(key string, _ *flight) bool { return there(key) })
	for _, key := range c.replies.Keys() {
		if there(key) {
			c.replies.Remove(key)
		}
	}
}

// fly asks upstream, settles f, and stores what is to be stored.
func (c *Cache) fly(ctx context.Context, cancel context.CancelFunc, f *flight, q *query, old *entry) {
	req := q.question(old)
	requested := c.now()
	req.Fallback = old != nil && old.usableStale(q.control, requested)
	resp, err := c.src.Fetch(ctx, req)
	if err == nil && resp.Status == http.StatusNotModified && old != nil {
		received := c.now()
		resp.Body.Close()
		if e := old.confirmed(q, resp, requested, received); e != nil {
			f.kept, f.status = e, chantal.Revalidated
			c.failures.Remove(q.key())
			c.keep(q, f, e, func(v *entry) *entry { return v.sharing(q, resp, requested, received) })
			c.settle(f, q, cancel)
			return
		}
		// It is about another state than the one kept: ask for that.
		req.ETag, req.Modified = "", time.Time{}
		requested = c.now()
		resp, err = c.src.Fetch(ctx, req)
	}
	received := c.now()
	portal := err == nil && resp.Portal(q.name())
	stale := old != nil && old.usableStale(q.control, received)
	switch {
	case err != nil:
		f.err = err
	case stale && portal:
		f.err = fetch.Unusable(req.URL, errors.New("it answered with a web page in place of the file"))
		resp.Body.Close()
	case stale && unavailable(resp.Status):
		f.err = &chantal.UpstreamError{URL: req.URL, Status: resp.Status}
		resp.Body.Close()
	case resp.Status == http.StatusNotModified:
		f.err = &chantal.UpstreamError{URL: req.URL, Status: resp.Status, Err: errors.New("it says that nothing changed though it was not asked that")}
		resp.Body.Close()
	case storable(resp, received) && !portal:
		if stale {
			f.instead = old
		}
		c.fill(f, q, resp, newEntry(q, resp, requested, received), cancel)
		return
	default:
		if !portal && !unavailable(resp.Status) {
			c.forget(q)
		}
		c.decline(f, q, resp, requested, received, cancel)
		return
	}
	if stale {
		f.kept, f.status = old, chantal.Stale
		c.failures.Add(q.key(), received)
		c.log.Warn("answering with what was kept", "url", req.URL, "error", f.err)
	}
	c.settle(f, q, cancel)
}

// sharing returns e as the 304 to another request updates it that names the
// same state by a strong validator (RFC 9111, 4.3.4); nil if it does not.
func (e *entry) sharing(q *query, resp *fetch.Response, requested, received time.Time) *entry {
	if resp.ETag == "" || strings.HasPrefix(resp.ETag, "W/") || resp.ETag != e.Header.Get("ETag") {
		return nil
	}
	newer := e.confirmed(q, resp, requested, received)
	newer.Sent = e.Sent
	return newer
}

// settle ends a flight that leaves nothing to be done.
func (c *Cache) settle(f *flight, q *query, cancel context.CancelFunc) {
	c.land(f, q.key())
	close(f.settled)
	cancel()
}

// unavailable reports whether a status says no more than that upstream cannot
// answer now.
func unavailable(status int) bool {
	return status >= 500 && status != http.StatusNotImplemented || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// fill stores the content of resp while those who wait follow it.
func (c *Cache) fill(f *flight, q *query, resp *fetch.Response, e *entry, cancel context.CancelFunc) {
	defer cancel()
	defer resp.Body.Close()
	defer c.store.Hold()() // until the entry names it
	g, err := c.store.Create(cas.Want{Path: q.URL, Size: resp.Size, Modified: e.Modified})
	if err != nil {
		f.err = err
		c.settle(f, q, cancel)
		return
	}
	f.arriving, f.kept, f.status = g, e, chantal.Miss
	close(f.settled)
	if _, err := io.CopyBuffer(struct{ io.Writer }{g}, resp.Body, make([]byte, 256<<10)); err != nil {
		c.land(f, q.key()) // who comes from now on may have more luck
		if f.instead != nil {
			c.failures.Add(q.key(), c.now())
		}
		g.Abort(err)
		c.log.Warn("fetching broke off", "url", q.URL, "error", err)
		return
	}
	blob, err := g.Commit()
	if err != nil {
		c.land(f, q.key())
		c.log.Warn("storing failed", "url", q.URL, "error", err)
		return
	}
	kept := *e
	kept.Digest, kept.Size = blob.Digest, blob.Size
	c.keep(q, f, &kept, nil)
	c.replies.Remove(q.key())
	c.failures.Remove(q.key())
	c.land(f, q.key()) // who comes before finds the flight, who comes after the file
}

// decline passes on what is not stored: small answers to all who wait, if they
// are not somebody's own, others to one of them.
func (c *Cache) decline(f *flight, q *query, resp *fetch.Response, requested, received time.Time, cancel context.CancelFunc) {
	if resp.Status != http.StatusOK && resp.Size <= smallBody && shareable(resp.Header) {
		head, err := io.ReadAll(io.LimitReader(resp.Body, smallBody+1))
		if err != nil {
			resp.Body.Close()
			f.err = err
			c.settle(f, q, cancel)
			return
		}
		if len(head) <= smallBody {
			resp.Body.Close()
			f.small = &reply{status: resp.Status, header: fetch.EndToEnd(resp.Header), body: string(head), requested: requested, received: received}
			c.remember(f, q.key())
			c.settle(f, q, cancel)
			return
		}
		resp.Body = &ended{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body, func() {}}
	}
	resp.Body = &ended{resp.Body, resp.Body, cancel}
	f.mu.Lock()
	f.single = resp
	f.closeUnwanted()
	f.mu.Unlock()
	c.land(f, q.key())
	close(f.settled)
}

// ended is a body whose Close also ends the request.
type ended struct {
	io.Reader
	body io.Closer
	end  func()
}

func (b *ended) Close() error {
	defer b.end()
	return b.body.Close()
}
