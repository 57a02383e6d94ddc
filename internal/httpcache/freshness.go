package httpcache

import (
	"net/http"
	"strings"
	"time"

	"chantal/internal/fetch"
)

// longestHeuristic bounds how long an answer that does not say is fresh.
const longestHeuristic = 24 * time.Hour

// lifetime is how long an answer is fresh (RFC 9111, 4.2.1): as it says, else
// a tenth of the time since it was last modified. received stands in for a
// missing Date.
func lifetime(h http.Header, received time.Time) time.Duration {
	if d, told := toldLifetime(h, received); told {
		return d
	}
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		return min(max(0, dateOf(h, received).Sub(t)/10), longestHeuristic)
	}
	return 0
}

// toldLifetime is how long the answer itself says that it is fresh.
func toldLifetime(h http.Header, received time.Time) (d time.Duration, told bool) {
	control := parseControl(h)
	for _, name := range []string{"s-maxage", "max-age"} {
		if age, ok := control.seconds(name); ok {
			return age, true
		}
	}
	if h.Get("Expires") == "" {
		return 0, false
	}
	t, err := http.ParseTime(h.Get("Expires"))
	if err != nil {
		return 0, true
	}
	return max(0, t.Sub(dateOf(h, received))), true
}

func dateOf(h http.Header, received time.Time) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return received
}

// age is the answer's current age (RFC 9111, 4.2.3).
func (e *entry) age(now time.Time) time.Duration {
	return ageOf(e.Header, e.Requested, e.Received, now)
}

func ageOf(h http.Header, requested, received, now time.Time) time.Duration {
	apparent := max(0, received.Sub(dateOf(h, received)))
	first, _, _ := strings.Cut(h.Get("Age"), ",")
	told := deltaSeconds(first)
	return max(apparent, told+received.Sub(requested)) + max(0, now.Sub(received))
}

// Fresh says what HTTP lets a shared cache do with an answer (RFC 9111, 3 and
// 4.2) that was asked for and received at these times, to a request that no
// client has a part in: for how long it may be given out without asking again,
// if upstream told that, and whether it may be kept at all.
func Fresh(resp *fetch.Response, requested, received time.Time) (d time.Duration, told, keep bool) {
	control := parseControl(resp.Header)
	keep = !control.has("no-store", "private")
	if control.has("no-cache") || varies(resp.Header, "*") {
		return 0, true, keep
	}
	if d, told = toldLifetime(resp.Header, received); told {
		d = max(0, d-ageOf(resp.Header, requested, received, received))
	}
	return d, told, keep
}

// storable reports whether the answer to a plain request may be kept and given
// to others (RFC 9111, 3). Those that could never be used again are not worth
// the disk; and those whose end cannot be told from a break might be short.
func storable(resp *fetch.Response, received time.Time) bool {
	if resp.Status != http.StatusOK || resp.OpenEnded || !shareable(resp.Header) {
		return false
	}
	return resp.ETag != "" || !resp.Modified.IsZero() || lifetime(resp.Header, received) > 0
}

// shareable reports whether an answer, of whatever status, is meant for
// everybody. One that sets a cookie is somebody's own, whatever else it says.
func shareable(h http.Header) bool {
	return !parseControl(h).has("no-store", "private") && h.Get("Set-Cookie") == "" && !varies(h, "*")
}

// usable reports whether e may answer a request with those directives without
// asking upstream (RFC 9111, 4.2 and 5.2.1).
func (e *entry) usable(asked directives, now time.Time) bool {
	kept := parseControl(e.Header)
	if asked.has("no-cache") || kept.has("no-cache") {
		return false
	}
	age, fresh := e.age(now), lifetime(e.Header, e.Received)
	if limit, ok := asked.seconds("max-age"); ok && (age > limit || limit == 0) {
		return false
	}
	if spare, ok := asked.seconds("min-fresh"); ok {
		age += spare
	}
	if age < fresh {
		return true
	}
	if !asked.has("max-stale") || asked.has("min-fresh") || mustAsk(kept) {
		return false
	}
	return asked["max-stale"] == "" || age-fresh <= deltaSeconds(asked["max-stale"])
}

// mustAsk reports whether an answer forbids to be used when it is stale (RFC
// 9111, 4.2.4).
func mustAsk(kept directives) bool {
	return kept.has("no-cache", "must-revalidate", "proxy-revalidate", "s-maxage")
}

// usableStale reports whether e may stand in for an upstream that cannot be
// asked (RFC 9111, 4.2.4; RFC 5861, 4): without a limit where neither the
// answer nor the request sets one.
func (e *entry) usableStale(asked directives, now time.Time) bool {
	kept := parseControl(e.Header)
	if mustAsk(kept) {
		return false
	}
	stale := e.age(now) - lifetime(e.Header, e.Received)
	for _, d := range []directives{kept, asked} {
		if limit, ok := d.seconds("stale-if-error"); ok && stale > limit {
			return false
		}
	}
	return true
}
