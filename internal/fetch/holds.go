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

// longestHold is how long an origin is left in peace at most, whatever it asks
// for.
const longestHold = 10 * time.Minute

// holds are the origins that asked not to be asked for a while, by scheme and
// host:port. It is safe for concurrent use.
type holds struct{ until *lru.Cache[string, heldError] }

// heldError says that an origin was not asked, since it does not want that yet.
type heldError struct {
	status int
	until  time.Time
}

func (e *heldError) Error() string {
	return fmt.Sprintf("it answered %d and wants to be left in peace until %s; it is not asked before", e.status, e.until.UTC().Format("15:04:05 MST"))
}

func newHolds() *holds {
	until, _ := lru.New[string, heldError](10_000) // it fails for sizes below 1
	return &holds{until}
}

func origin(u *url.URL) string { return u.Scheme + "://" + HostPort(u) }

// check returns the error for a request that would come too early.
func (h *holds) check(u *url.URL) error {
	held, found := h.until.Get(origin(u))
	if !found || !time.Now().Before(held.until) {
		return nil
	}
	return &chantal.UpstreamError{URL: bare(u), Err: &held}
}

// note remembers what an answer asks for.
func (h *holds) note(u *url.URL, resp *http.Response) {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return
	}
	if wait := min(retryAfter(resp.Header, time.Now()), longestHold); wait > 0 {
		h.until.Add(origin(u), heldError{resp.StatusCode, time.Now().Add(wait)})
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
