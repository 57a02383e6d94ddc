package httpcache

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"chantal/internal/fetch"
)

// longestHeuristic bounds how long an answer that does not say is fresh.
const longestHeuristic = 24 * time.Hour

// directives are those of Cache-Control, by name in lower case.
type directives map[string]string

// parseControl reads Cache-Control (RFC 9111, 5.2), and Pragma where there is
// none. The first of several equal directives counts.
func parseControl(h http.Header) directives {
	d := directives{}
	lines := h.Values("Cache-Control")
	if len(lines) == 0 && strings.Contains(strings.ToLower(h.Get("Pragma")), "no-cache") {
		d["no-cache"] = ""
	}
	for _, part := range splitList(strings.Join(lines, ",")) {
		name, value, _ := strings.Cut(part, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if _, again := d[name]; !again && name != "" {
			d[name] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return d
}

// splitList splits at commas that are not inside quotes.
func splitList(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}

func (d directives) has(names ...string) bool {
	for _, n := range names {
		if _, ok := d[n]; ok {
			return true
		}
	}
	return false
}

// seconds returns the value of a directive; one that makes no sense is 0, the
// careful reading.
func (d directives) seconds(name string) (time.Duration, bool) {
	v, ok := d[name]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return 0, true
	}
	return time.Duration(n) * time.Second, true
}

// lifetime is how long an answer is fresh (RFC 9111, 4.2.1). received stands
// in for a missing Date.
func lifetime(h http.Header, received time.Time) time.Duration {
	d := parseControl(h)
	for _, name := range []string{"s-maxage", "max-age"} {
		if age, ok := d.seconds(name); ok {
			return age
		}
	}
	date := received
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		date = t
	}
	if h.Get("Expires") != "" {
		t, err := http.ParseTime(h.Get("Expires"))
		if err != nil {
			return 0
		}
		return max(0, t.Sub(date))
	}
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		return min(max(0, date.Sub(t)/10), longestHeuristic)
	}
	return 0
}

// age is the answer's current age (RFC 9111, 4.2.3).
func (e *entry) age(now time.Time) time.Duration {
	var apparent, told time.Duration
	if t, err := http.ParseTime(e.Header.Get("Date")); err == nil {
		apparent = max(0, e.Received.Sub(t))
	}
	if n, err := strconv.ParseUint(e.Header.Get("Age"), 10, 31); err == nil {
		told = time.Duration(n) * time.Second
	}
	return max(apparent, told+e.Received.Sub(e.Requested)) + max(0, now.Sub(e.Received))
}

// storable reports whether the answer to a plain request may be kept and given
// to others (RFC 9111, 3). Answers that set cookies or vary with more than the
// encoding, which is never asked for, are somebody's own; those that could
// never be used again are not worth the disk; and those whose end cannot be
// told from a break might be short.
func storable(resp *fetch.Response, received time.Time) bool {
	if resp.Status != http.StatusOK || resp.OpenEnded || !shareable(resp.Header) {
		return false
	}
	return resp.ETag != "" || !resp.Modified.IsZero() || lifetime(resp.Header, received) > 0
}

// shareable reports whether an answer, of whatever status, is meant for
// everybody.
func shareable(h http.Header) bool {
	if parseControl(h).has("no-store", "private") || h.Get("Set-Cookie") != "" {
		return false
	}
	for _, name := range splitList(strings.Join(h.Values("Vary"), ",")) {
		if !strings.EqualFold(strings.TrimSpace(name), "Accept-Encoding") {
			return false
		}
	}
	return true
}

// usable reports whether e may answer a request with those directives without
// asking upstream.
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
	return age < fresh
}

// usableStale reports whether e may stand in for an upstream that cannot be
// asked (RFC 9111, 4.2.4; RFC 5861, 4).
func (e *entry) usableStale(now time.Time) bool {
	kept := parseControl(e.Header)
	if kept.has("no-cache", "must-revalidate", "proxy-revalidate", "s-maxage") {
		return false
	}
	limit, ok := kept.seconds("stale-if-error")
	return !ok || e.age(now)-lifetime(e.Header, e.Received) <= limit
}

// plainFields are the request fields with which a request is like anybody
// else's. Of these only what keepFields names is sent upstream, since the
// answer is for all.
var plainFields = map[string]bool{
	"Accept": true, "Accept-Charset": true, "Accept-Encoding": true, "Accept-Language": true, "User-Agent": true,
	"Cache-Control": true, "Pragma": true, "Range": true, "Via": true, "Host": true, "Referer": true, "Forwarded": true,
	"If-Match": true, "If-None-Match": true, "If-Modified-Since": true, "If-Unmodified-Since": true, "If-Range": true,
	"X-Forwarded-For": true, "X-Forwarded-Host": true, "X-Forwarded-Proto": true, "X-Real-Ip": true,
	"Dnt": true, "Upgrade-Insecure-Requests": true, "Priority": true,
}

var keepFields = [...]string{"Accept", "User-Agent", "Via"}

// plain reports whether the answer to a request with the end-to-end fields h
// can be anybody's. A field that is not known might be a secret
// (Authorization, Cookie, a token), so such a request is passed on untouched.
func plain(h http.Header, asked directives) bool {
	for name := range h {
		if !plainFields[name] && !strings.HasPrefix(name, "Sec-") {
			return false
		}
	}
	return !asked.has("no-store")
}
