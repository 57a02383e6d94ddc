package httpcache

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

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
	return deltaSeconds(v), true
}

// deltaSeconds reads a number of seconds; nonsense is 0, and what is too large
// to count is 68 years (RFC 9111, 1.2.2).
func deltaSeconds(s string) time.Duration {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 31)
	if errors.Is(err, strconv.ErrRange) {
		n = math.MaxInt32
	} else if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}
