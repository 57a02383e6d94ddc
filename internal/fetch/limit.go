package fetch

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"chantal"
)

// Limit lets at most parallel requests, and perHost to one host and port, go on
// at a time; 0 is no limit. A request holds its place until the body of its
// answer is closed. Waiting ends with the context.
//
// Requests that nobody waits for (Request.Behind) go after all others, and of
// each limit above one they leave a place free, so that the others find one at
// once however long the downloads under way take.
func Limit(parallel, perHost int) func(Source) Source {
	return func(next Source) Source {
		return &limiter{next: next, parallel: parallel, perHost: perHost, busy: map[string]int{}}
	}
}

type limiter struct {
	next              Source
	parallel, perHost int

	mu     sync.Mutex
	all    int            // places taken
	busy   map[string]int // of them at each host
	first  []*waiter      // those that somebody waits for, the longest waiting first
	behind []*waiter      // the others
}

// waiter is a request that waits for a place.
type waiter struct {
	host    string
	entered chan struct{} // closed when it has one
}

// Fetch waits for a place.
func (l *limiter) Fetch(ctx context.Context, r *Request) (*Response, error) {
	host := ""
	// What is not a URL is refused further on.
	if u, err := url.Parse(r.URL); err == nil {
		host = HostPort(u)
	}
	if err := l.enter(ctx, host, r.Behind); err != nil {
		return nil, fmt.Errorf("waiting for other requests to upstream: %w", err)
	}
	leave := sync.OnceFunc(func() { l.leave(host) })
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

func (l *limiter) enter(ctx context.Context, host string, behind <-chan struct{}) error {
	w := &waiter{host: host, entered: make(chan struct{})}
	l.mu.Lock()
	if behind == nil {
		l.first = append(l.first, w)
	} else {
		l.behind = append(l.behind, w)
	}
	l.admit()
	l.mu.Unlock()
	for {
		select {
		case <-w.entered:
			return nil
		case <-behind:
			behind = nil
			l.mu.Lock()
			if l.drop(w) {
				l.first = append(l.first, w)
				l.admit()
			}
			l.mu.Unlock()
		case <-ctx.Done():
			l.mu.Lock()
			waited := l.drop(w)
			l.mu.Unlock()
			if !waited {
				l.leave(host)
			}
			return ctx.Err()
		}
	}
}

// drop takes w off the queues; false when it has a place. The caller holds
// l.mu.
func (l *limiter) drop(w *waiter) bool {
	for _, queue := range []*[]*waiter{&l.first, &l.behind} {
		if i := slices.Index(*queue, w); i >= 0 {
			*queue = slices.Delete(*queue, i, i+1)
			return true
		}
	}
	return false
}

func (l *limiter) leave(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.busy[host]--; l.busy[host] == 0 {
		delete(l.busy, host)
	}
	l.admit()
}

// admit gives places to those who may have one. Who waits for a host that has
// none free keeps nobody else from theirs. The caller holds l.mu.
func (l *limiter) admit() {
	let := func(queue []*waiter, spare int) []*waiter {
		return slices.DeleteFunc(queue, func(w *waiter) bool {
			if !free(l.all, l.parallel, spare) || !free(l.busy[w.host], l.perHost, spare) {
				return false
			}
			l.all++
			l.busy[w.host]++
			close(w.entered)
			return true
		})
	}
	l.first = let(l.first, 0)
	l.behind = let(l.behind, 1)
}

// free reports whether of limit places one more than spare is free; a limit of
// one spares none.
func free(taken, limit, spare int) bool {
	if limit == 1 {
		spare = 0
	}
	return limit <= 0 || taken < limit-spare
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
