package httpcache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
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

// join returns the flight for url, and starts it where there is none. The
// caller has to claim or leave it.
func (c *Cache) join(ctx context.Context, url string, header http.Header, asked directives, old *entry) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[url]; f != nil {
		f.mu.Lock()
		f.waiters++
		f.mu.Unlock()
		return f
	}
	f := &flight{settled: make(chan struct{}), waiters: 1}
	c.flights[url] = f
	req := &fetch.Request{URL: url, Header: http.Header{}, NoFollow: true, NoCache: asked.has("no-cache")}
	for _, name := range keepFields {
		if v := header[name]; v != nil {
			req.Header[name] = v
		}
	}
	if old != nil {
		req.ETag, req.Modified = old.Header.Get("ETag"), old.Modified
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fillLimit)
	go c.fly(ctx, cancel, f, req, old)
	return f
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
func (c *Cache) land(f *flight, url string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[url] == f {
		delete(c.flights, url)
	}
}

// fly asks upstream, settles f, and stores what is to be stored.
func (c *Cache) fly(ctx context.Context, cancel context.CancelFunc, f *flight, req *fetch.Request, old *entry) {
	requested := c.now()
	resp, err := c.src.Fetch(ctx, req)
	if err == nil && resp.Status == http.StatusNotModified && old != nil {
		e := old.confirmed(resp, requested, c.now())
		resp.Body.Close()
		if e != nil {
			c.save(e)
			f.kept, f.status = e, chantal.Revalidated
			c.settle(f, req.URL, cancel)
			return
		}
		// It is about another state than the one kept: ask for that.
		req.ETag, req.Modified = "", time.Time{}
		requested = c.now()
		resp, err = c.src.Fetch(ctx, req)
	}
	received := c.now()
	switch {
	case err != nil:
		f.err = err
	case unavailable(resp.Status) && old != nil && old.usableStale(received):
		f.err = &chantal.UpstreamError{URL: req.URL, Status: resp.Status}
		resp.Body.Close()
	case resp.Status == http.StatusNotModified:
		f.err = &chantal.UpstreamError{URL: req.URL, Status: resp.Status, Err: errors.New("it says that nothing changed though it was not asked that")}
		resp.Body.Close()
	case storable(resp, received):
		if old != nil && old.usableStale(received) {
			f.instead = old
		}
		c.fill(f, resp, newEntry(req.URL, resp, requested, received), cancel)
		return
	default:
		c.decline(f, req.URL, resp, received, old, cancel)
		return
	}
	if old != nil && old.usableStale(received) {
		f.kept, f.status = old, chantal.Stale
		c.log.Warn("answering with what was kept", "url", req.URL, "err", f.err)
	}
	c.settle(f, req.URL, cancel)
}

// settle ends a flight that leaves nothing to be done.
func (c *Cache) settle(f *flight, url string, cancel context.CancelFunc) {
	c.land(f, url)
	close(f.settled)
	cancel()
}

// unavailable reports whether a status says no more than that upstream cannot
// answer now.
func unavailable(status int) bool {
	return status >= 500 && status != http.StatusNotImplemented || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// fill stores the content of resp while those who wait follow it.
func (c *Cache) fill(f *flight, resp *fetch.Response, e *entry, cancel context.CancelFunc) {
	defer cancel()
	defer resp.Body.Close()
	g, err := c.store.Create(cas.Want{Path: e.URL, Size: resp.Size, Modified: e.Modified})
	if err != nil {
		f.err = err
		c.settle(f, e.URL, cancel)
		return
	}
	f.arriving, f.kept, f.status = g, e, chantal.Miss
	close(f.settled)
	defer c.land(f, e.URL)
	if _, err := io.CopyBuffer(struct{ io.Writer }{g}, resp.Body, make([]byte, 256<<10)); err != nil {
		c.land(f, e.URL) // who comes from now on may have more luck
		g.Abort(err)
		c.log.Warn("fetching broke off", "url", e.URL, "err", err)
		return
	}
	blob, err := g.Commit()
	if err != nil {
		c.log.Warn("storing failed", "url", e.URL, "err", err)
		return
	}
	kept := *e
	kept.Digest, kept.Size = blob.Digest, blob.Size
	c.save(&kept)
	c.negative.Remove(e.URL)
}

// decline passes on what is not stored: small answers to all who wait, if they
// are not somebody's own, others to one of them.
func (c *Cache) decline(f *flight, url string, resp *fetch.Response, received time.Time, old *entry, cancel context.CancelFunc) {
	if old != nil && !unavailable(resp.Status) {
		c.forget(url)
	}
	if resp.Status != http.StatusOK && resp.Size <= smallBody && shareable(resp.Header) {
		head, err := io.ReadAll(io.LimitReader(resp.Body, smallBody+1))
		if err != nil {
			resp.Body.Close()
			f.err = err
			c.settle(f, url, cancel)
			return
		}
		if len(head) <= smallBody {
			resp.Body.Close()
			f.small = &reply{status: resp.Status, header: fetch.EndToEnd(resp.Header), body: string(head), received: received}
			if resp.Status == http.StatusNotFound || resp.Status == http.StatusGone {
				c.negative.Add(url, f.small)
			}
			c.settle(f, url, cancel)
			return
		}
		resp.Body = &ended{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body, func() {}}
	}
	resp.Body = &ended{resp.Body, resp.Body, cancel}
	f.mu.Lock()
	f.single = resp
	f.closeUnwanted()
	f.mu.Unlock()
	c.land(f, url)
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
