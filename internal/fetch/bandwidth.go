package fetch

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Window is a time of the day with a bandwidth of its own.
type Window struct {
	From, To time.Duration // since midnight as clocks show it; where To is not after From it is of the next day
	Rate     int64         // bytes per second; 0 for no limit
}

// Bandwidth slows reading of all bodies together to the rate of the first of
// windows that holds, as now tells the time and its zone; where none does, and
// without any, there is no limit.
func Bandwidth(windows []Window, now func() time.Time) func(Source) Source {
	return func(next Source) Source {
		if len(windows) == 0 {
			return next
		}
		p := &pacer{windows: windows, now: now, limit: rate.NewLimiter(rate.Inf, 0)}
		return SourceFunc(func(ctx context.Context, r *Request) (*Response, error) {
			resp, err := next.Fetch(ctx, r)
			if err != nil || resp.Body == http.NoBody {
				return resp, err
			}
			inner := resp.Body
			closed, cancel := context.WithCancel(ctx)
			resp.Body = &wrapBody{
				Reader: &slowReader{from: inner, pace: p, caller: ctx, closed: closed},
				close:  func() error { cancel(); return inner.Close() },
			}
			return resp, nil
		})
	}
}

// pacer is the one limit for all bodies.
type pacer struct {
	windows []Window
	now     func() time.Time

	mu    sync.Mutex
	rate  int64 // that limit is set to
	limit *rate.Limiter
}

// burst returns how many bytes may be read at once at this time of the day; 0
// for any number. A tenth of a second keeps reads long without letting the rate
// be seen to jump.
func (p *pacer) burst() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	bytes := rateAt(p.windows, p.now())
	burst := int(max(bytes/10, 1))
	if bytes == 0 {
		burst = 0
	}
	if bytes != p.rate {
		p.rate = bytes
		p.limit.SetBurst(burst)
		if bytes == 0 {
			p.limit.SetLimit(rate.Inf)
		} else {
			p.limit.SetLimit(rate.Limit(bytes))
		}
	}
	return burst
}

// rateAt returns the rate of the first window that holds; 0 where none does.
func rateAt(windows []Window, t time.Time) int64 {
	hour, minute, second := t.Clock()
	at := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second
	for _, w := range windows {
		in := w.From <= at && at < w.To
		if w.To <= w.From {
			in = w.From <= at || at < w.To
		}
		if in {
			return w.Rate
		}
	}
	return 0
}

// slowReader pays for bytes after it has read them.
type slowReader struct {
	from           io.Reader
	pace           *pacer
	caller, closed context.Context // the request's, and the same until the body is closed
}

func (s *slowReader) Read(p []byte) (int, error) {
	if burst := s.pace.burst(); burst > 0 {
		p = p[:min(len(p), burst)]
	}
	n, err := s.from.Read(p)
	for paid := 0; paid < n; {
		// The rate may have become another one meanwhile.
		part := n - paid
		burst := s.pace.burst()
		if burst == 0 {
			break
		}
		part = min(part, burst)
		// WaitN fails at once for a deadline that the wait would pass; that is
		// the context's end all the same.
		if werr := s.pace.limit.WaitN(s.closed, part); werr != nil {
			switch {
			case s.closed.Err() == nil && s.pace.burst() != burst:
				continue // the rate has changed since
			case err != nil:
			case s.caller.Err() != nil:
				err = s.caller.Err()
			case s.closed.Err() != nil:
				err = http.ErrBodyReadAfterClose
			default:
				err = context.DeadlineExceeded
			}
			break
		}
		paid += part
	}
	return n, err
}
