package proxy

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A part is the bytes from up to, not including, to.
type part struct{ from, to int64 }

// A selection is what a request gets of a file.
type selection struct {
	status int    // 200, 206, 304, 412 or 416
	parts  []part // for 206: what goes out, in the order of the request
}

// validators are what conditions are held against.
type validators struct {
	etag     string    // "" while it is not known
	modified time.Time // in whole seconds; zero while it is not known
	dated    bool      // no other state of the URL was given out with that date
}

// conditional are the fields that make an answer other than the whole file.
var conditional = [...]string{"Range", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since"}

// choose decides what a request for a file of size bytes gets, from its
// conditions and ranges (RFC 9110, 13.2.2 and 14.2). size is -1 while it is not
// known; ranges are left out of account then.
func choose(r *http.Request, v validators, size int64) selection {
	plain := true
	for _, key := range conditional {
		plain = plain && len(r.Header[key]) == 0
	}
	if plain {
		return selection{status: http.StatusOK}
	}
	if status := v.conditions(r); status != 0 {
		return selection{status: status}
	}
	spec := r.Header.Get("Range")
	if spec == "" || r.Method != http.MethodGet || size < 0 || !v.sameAs(r.Header.Get("If-Range")) {
		return selection{status: http.StatusOK}
	}
	return selected(spec, size)
}

// conditions returns the status that the preconditions lead to; 0 when the
// request is to be answered.
func (v validators) conditions(r *http.Request) int {
	date := func(key string) (time.Time, bool) {
		t, err := http.ParseTime(r.Header.Get(key))
		return t, err == nil && !v.modified.IsZero()
	}
	if tags := r.Header.Values("If-Match"); len(tags) > 0 {
		if !v.listed(tags, true) {
			return http.StatusPreconditionFailed
		}
	} else if t, ok := date("If-Unmodified-Since"); ok && v.modified.After(t) {
		return http.StatusPreconditionFailed
	}
	if tags := r.Header.Values("If-None-Match"); len(tags) > 0 {
		if v.listed(tags, false) {
			return http.StatusNotModified
		}
	} else if t, ok := date("If-Modified-Since"); ok && v.dated && t.Equal(v.modified) {
		// Only the very date: an upstream that went back to an older state
		// has changed, whatever the order of dates.
		return http.StatusNotModified
	}
	return 0
}

// listed reports whether a field's list of entity tags has the file's. strong
// asks for the strong comparison (RFC 9110, 8.8.3.2).
func (v validators) listed(fields []string, strong bool) bool {
	for _, field := range fields {
		for field = strings.TrimLeft(field, " \t,"); field != ""; field = strings.TrimLeft(field, " \t,") {
			if field[0] == '*' {
				return true
			}
			tag, weak := strings.CutPrefix(field, "W/")
			if tag == "" || tag[0] != '"' {
				break // not a list of tags
			}
			end := strings.IndexByte(tag[1:], '"') + 2
			if end == 1 {
				break
			}
			own, ownWeak := strings.CutPrefix(v.etag, "W/")
			if tag[:end] == own && !(strong && (weak || ownWeak)) {
				return true
			}
			field = tag[end:]
		}
	}
	return false
}

// sameAs reports whether If-Range lets a part be answered: the client's other
// parts are of this very state. A date proves that only where the URL had one
// state per date.
func (v validators) sameAs(ifRange string) bool {
	if ifRange == "" {
		return true
	}
	if t, err := http.ParseTime(ifRange); err == nil {
		return v.dated && !v.modified.IsZero() && t.Equal(v.modified)
	}
	return ifRange == v.etag && strings.HasPrefix(ifRange, `"`)
}

const (
	boundary       = 200      // about what stands between two parts of a file, in bytes
	mostBoundaries = 64 << 10 // by how much all parts may be longer than the file, else that is sent
)

// selected returns what a Range field selects of size bytes. No byte is sent
// twice, however the ranges overlap; those that only touch stay apart, and the
// order is kept, as clients that patch a file together expect it.
func selected(spec string, size int64) selection {
	unit, set, _ := strings.Cut(spec, "=")
	if !strings.EqualFold(strings.TrimSpace(unit), "bytes") || size == 0 {
		return selection{status: http.StatusOK} // of other units nothing is known, of nothing there are no parts
	}
	var parts []part
	for one := range strings.SplitSeq(set, ",") {
		one = strings.Trim(one, " \t")
		if one == "" {
			continue
		}
		p, ok := parseRange(one, size)
		if !ok {
			return selection{status: http.StatusRequestedRangeNotSatisfiable}
		}
		if p.from < p.to {
			parts = append(parts, p)
		}
	}
	if parts = merged(parts); len(parts) == 0 {
		return selection{status: http.StatusRequestedRangeNotSatisfiable}
	}
	length := int64(len(parts)) * boundary
	for _, p := range parts {
		length += p.to - p.from
	}
	if len(parts) > 1 && length > size+mostBoundaries {
		return selection{status: http.StatusOK}
	}
	return selection{http.StatusPartialContent, parts}
}

// parseRange reads one range, "0-9", "10-" or "-5"; ok is false where it is
// none. It is empty where the file has nothing of it.
func parseRange(s string, size int64) (p part, ok bool) {
	first, last, found := strings.Cut(s, "-")
	from, fromOK := position(first)
	to, toOK := position(last)
	switch {
	case !found || !fromOK && first != "" || !toOK && last != "" || first == "" && last == "":
		return p, false
	case first == "":
		return part{max(size-to, 0), size}, true
	case last == "":
		return part{min(from, size), size}, true
	}
	return part{min(from, size), min(to, size-1) + 1}, from <= to
}

// position reads digits. What no file is long enough for is as good as the
// largest number.
func position(s string) (n int64, ok bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 63)
	return n, err == nil || len(s) > 18
}

// merged joins ranges that overlap; the joint one takes the place of the first
// of them.
func merged(parts []part) []part {
	type placed struct {
		part
		at int
	}
	all := make([]placed, len(parts))
	for i, p := range parts {
		all[i] = placed{p, i}
	}
	slices.SortFunc(all, func(a, b placed) int { return cmp.Compare(a.from, b.from) })
	kept := all[:0]
	for _, p := range all {
		if n := len(kept); n > 0 && p.from < kept[n-1].to {
			last := &kept[n-1]
			last.to, last.at = max(last.to, p.to), min(last.at, p.at)
			continue
		}
		kept = append(kept, p)
	}
	slices.SortFunc(kept, func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	parts = parts[:0]
	for _, p := range kept {
		parts = append(parts, p.part)
	}
	return parts
}

// length returns how many bytes of the file the answer has; 0 where nobody knows
// yet.
func (s selection) length(r *http.Request, a *answer) (n int64) {
	switch {
	case r.Method == http.MethodHead:
	case s.status == http.StatusOK:
		n = max(a.size(), 0)
	case s.status == http.StatusPartialContent:
		for _, p := range s.parts {
			n += p.to - p.from
		}
	}
	return n
}
