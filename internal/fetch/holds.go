package fetch

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"chantal"
)

const (
	longestHold = 10 * time.Minute // how long an origin is left in peace at most, whatever it asks for
	deafHold    = 15 * time.Second // how long one that cannot be connected to is not tried by those who need not
)

// holds are the origins that are not asked for a while, by scheme and host:port:
// those that want that, and those that let everybody wait for a connection in
// vain. It is safe for concurrent use.
type holds struct{ until *lru.Cache[string, heldError] }

// heldError says that an origin was not asked, since it does not want that yet,
// or since it could not be connected to a moment ago.
type heldError struct {
	status int   // what it answered; 0 when there was no connection
	deaf   error // then: why
	until  time.Time
}

func (e *heldError) Unwrap() error { return e.deaf }

func (e *heldError) Error() string {
	if e.deaf != nil {
		return fmt.Sprintf("it could not be reached a moment ago, and is not tried again before %s: %v", e.until.UTC().Format("15:04:05 MST"), e.deaf)
	}
	return fmt.Sprintf("it answered %d and wants to be left in peace until %s; it is not asked before", e.status, e.until.UTC().Format("15:04:05 MST"))
}

func newHolds() *holds {
	until, _ := lru.New[string, heldError](10_000) // it fails for sizes below 1
	return &holds{until}
}

func origin(u *url.URL) string { return u.Scheme + "://" + HostPort(u) }

// check returns the error for a request that would come too early. Who has no
// fallback may try an origin that could not be reached.
func (h *holds) check(u *url.URL, fallback bool) error {
	held, found := h.until.Get(origin(u))
	if !found || !time.Now().Before(held.until) || held.deaf != nil && !fallback {
		return nil
	}
	return &chantal.UpstreamError{URL: bare(u), Err: &held}
}

// failed remembers an origin that made a request wait and gave it no connection.
// One that refuses at once costs nobody anything.
func (h *holds) failed(u *url.URL, err error, took time.Duration) {
	if took >= slowDial && unreached(err) {
		h.until.Add(origin(u), heldError{deaf: err, until: time.Now().Add(deafHold)})
	}
}

// note remembers what an answer asks for.
func (h *holds) note(u *url.URL, resp *http.Response) {
	if held, found := h.until.Peek(origin(u)); found && held.deaf != nil {
		h.until.Remove(origin(u))
	}
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return
	}
	if wait := min(retryAfter(resp.Header, time.Now()), longestHold); wait > 0 {
		h.until.Add(origin(u), heldError{status: resp.StatusCode, until: time.Now().Add(wait)})
	}
}

// retryAfter returns the wait that a Retry-After field asks for (RFC 9110,
// 10.2.3), 0 if it asks for none. A date is taken by upstream's own clock where
// the answer shows it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	field := h.Get("Retry-After")
	if n, err := strconv.ParseUint(field, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	t, err := http.ParseTime(field)
	if err != nil {
		return 0
	}
	if theirs, err := http.ParseTime(h.Get("Date")); err == nil {
		now = theirs
	}
	return max(0, t.Sub(now))
}
