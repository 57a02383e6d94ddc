package fetch

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"golang.org/x/time/rate"

	"chantal"
)

// Limit lets at most parallel requests, and perHost to one host and port, go on
// at a time; 0 is no limit. A request holds its place until the body of its
// answer is closed. Waiting ends with the context.
func Limit(parallel, perHost int) func(Source) Source {
	return func(next Source) Source {
		l := &limiter{next: next, perHost: perHost, hosts: map[string]*places{}}
		if parallel > 0 {
			l.all = make(chan struct{}, parallel)
		}
		return l
	}
}

type limiter struct {
	next    Source
	all     chan struct{} // nil for no limit
	perHost int

	mu    sync.Mutex
	hosts map[string]*places
}

// places are those of one host; the entry goes when nobody uses it.
type places struct {
	taken chan struct{}
	users int // those that hold a place or wait for one
}

// Fetch waits for a place at the host and then for one of all: in the other
// order, requests that wait for a slow host would keep others from theirs.
func (l *limiter) Fetch(ctx context.Context, r *Request) (*Response, error) {
	leaveHost, err := l.enterHost(ctx, r.URL)
	if err != nil {
		return nil, err
	}
	if err := enter(ctx, l.all); err != nil {
		leaveHost()
		return nil, err
	}
	leave := sync.OnceFunc(func() {
		if l.all != nil {
			<-l.all
		}
		leaveHost()
	})
	resp, err := l.next.Fetch(ctx, r)
	if err != nil || resp.Body == http.NoBody {
		leave()
		return resp, err
	}
	inner := resp.Body
	resp.Body = &wrapBody{Reader: inner, close: func() error {
		defer leave()
		return inner.Close()
	}}
	return resp, nil
}

func (l *limiter) enterHost(ctx context.Context, rawURL string) (leave func(), err error) {
	u, err := url.Parse(rawURL)
	if l.perHost <= 0 || err != nil {
		// What is not a URL is refused further on.
		return func() {}, nil
	}
	host := HostPort(u)
	l.mu.Lock()
	p := l.hosts[host]
	if p == nil {
		p = &places{taken: make(chan struct{}, l.perHost)}
		l.hosts[host] = p
	}
	p.users++
	l.mu.Unlock()
	forget := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if p.users--; p.users == 0 {
			delete(l.hosts, host)
		}
	}
	if err := enter(ctx, p.taken); err != nil {
		forget()
		return nil, err
	}
	return func() { <-p.taken; forget() }, nil
}

func enter(ctx context.Context, places chan struct{}) error {
	if places == nil {
		return nil
	}
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for other requests to upstream: %w", ctx.Err())
	}
}

// Bandwidth slows reading of all bodies together to bytesPerSecond; 0 is no
// limit.
func Bandwidth(bytesPerSecond int64) func(Source) Source {
	return func(next Source) Source {
		if bytesPerSecond <= 0 {
			return next
		}
		// A burst of a tenth of a second keeps reads long without letting the
		// rate be seen to jump.
		burst := int(max(bytesPerSecond/10, 1))
		limit := rate.NewLimiter(rate.Limit(bytesPerSecond), burst)
		return SourceFunc(func(ctx context.Context, r *Request) (*Response, error) {
			resp, err := next.Fetch(ctx, r)
			if err != nil || resp.Body == http.NoBody {
				return resp, err
			}
			inner := resp.Body
			closed, cancel := context.WithCancel(ctx)
			resp.Body = &wrapBody{
				Reader: &slowReader{from: inner, limit: limit, burst: burst, caller: ctx, closed: closed},
				close:  func() error { cancel(); return inner.Close() },
			}
			return resp, nil
		})
	}
}

// slowReader pays for bytes after it has read them.
type slowReader struct {
	from           io.Reader
	limit          *rate.Limiter
	burst          int
	caller, closed context.Context // the request's, and the same until the body is closed
}

func (s *slowReader) Read(p []byte) (int, error) {
	n, err := s.from.Read(p[:min(len(p), s.burst)])
	if n == 0 {
		return n, err
	}
	// WaitN fails at once for a deadline that the wait would pass; that is
	// the context's end all the same.
	if werr := s.limit.WaitN(s.closed, n); werr != nil && err == nil {
		switch {
		case s.caller.Err() != nil:
			err = s.caller.Err()
		case s.closed.Err() != nil:
			err = http.ErrBodyReadAfterClose
		default:
			err = context.DeadlineExceeded
		}
	}
	return n, err
}

// Offline answers every request with an error whose cause is
// chantal.ErrOffline, and asks nobody.
func Offline() func(Source) Source {
	return func(Source) Source {
		return SourceFunc(func(_ context.Context, r *Request) (*Response, error) {
			u, err := parseURL(r.URL)
			if err != nil {
				return nil, err
			}
			return nil, &chantal.UpstreamError{URL: bare(u), Err: chantal.ErrOffline}
		})
	}
}
