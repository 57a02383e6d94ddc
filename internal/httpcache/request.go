package httpcache

import (
	"net/http"
	"slices"
	"strings"

	"chantal/internal/fetch"
)

// Request asks for one URL.
type Request struct {
	Repo   string      // the repository on whose behalf; its credentials are used, and what they bring is for it alone. "" for none
	Method string      // GET or HEAD; "" is GET
	URL    string      // absolute, as it goes upstream
	Header http.Header // the client's
}

// query is a request as the cache sees it.
type query struct {
	Request
	control directives
	sent    map[string]string // the fields that choose a representation, as they go upstream
}

func newQuery(r Request) query {
	r.URL, _, _ = strings.Cut(r.URL, "#")
	r.Header = fetch.EndToEnd(r.Header)
	q := query{Request: r, control: parseControl(r.Header), sent: map[string]string{}}
	for name, normal := range choosing {
		if v := normal(strings.Join(r.Header.Values(name), ",")); v != "" {
			q.sent[name] = v
		}
	}
	return q
}

// place is what everything kept of the URL is found by.
func (q *query) place() string { return q.Repo + "\x00" + q.URL }

// key is what requests have in common that upstream cannot tell apart.
func (q *query) key() string {
	return q.place() + "\x00" + q.sent["Accept"] + "\x00" + q.sent["Accept-Language"]
}

// choosing are the request fields that may choose among representations, with
// what brings their equivalent spellings into one form. That form is both what
// upstream gets and a part of the key, so no client can have an answer kept for
// others that its own fields brought about. Of the client's other fields none
// goes upstream but Via. Accept-Encoding is not among them: upstream is asked
// for files as they are.
var choosing = map[string]func(string) string{
	"Accept":          func(s string) string { return normal(s, "*/*") },
	"Accept-Language": func(s string) string { return normal(s, "*") },
}

// normal removes what has no meaning in a list (RFC 9110, 5.6.1 and 12.5):
// spaces, case, empty members. A list of nothing but anything is no list.
func normal(s, anything string) string {
	var out []string
	for _, part := range splitList(strings.ToLower(s)) {
		part = strings.Join(strings.Fields(part), "")
		if part != "" {
			out = append(out, part)
		}
	}
	if len(out) == 1 && out[0] == anything {
		return ""
	}
	return strings.Join(out, ", ")
}

// varies reports whether an answer depends on a field of the request.
func varies(h http.Header, name string) bool {
	return slices.ContainsFunc(splitList(strings.Join(h.Values("Vary"), ",")), func(s string) bool {
		return strings.EqualFold(strings.TrimSpace(s), name)
	})
}

// plainFields are the request fields with which a request is like anybody
// else's.
var plainFields = map[string]bool{
	"Accept": true, "Accept-Charset": true, "Accept-Encoding": true, "Accept-Language": true, "User-Agent": true,
	"Cache-Control": true, "Pragma": true, "Range": true, "Via": true, "Host": true, "Referer": true, "Forwarded": true,
	"If-Match": true, "If-None-Match": true, "If-Modified-Since": true, "If-Unmodified-Since": true, "If-Range": true,
	"X-Forwarded-For": true, "X-Forwarded-Host": true, "X-Forwarded-Proto": true, "X-Real-Ip": true,
	"Dnt": true, "Upgrade-Insecure-Requests": true, "Priority": true,
}

// plain reports whether the answer can be anybody's. A field that is not known
// might be a secret (Authorization, Cookie, a token), so such a request is
// passed on untouched.
func (q *query) plain() bool {
	for name := range q.Header {
		if !plainFields[name] && !strings.HasPrefix(name, "Sec-") {
			return false
		}
	}
	return !q.control.has("no-store")
}

// reads reports whether the client says that it can read a content coding. One
// that says nothing cannot be trusted to.
func (q *query) reads(coding string) bool {
	for part := range strings.SplitSeq(coding, ",") {
		if !slices.ContainsFunc(splitList(strings.Join(q.Header.Values("Accept-Encoding"), ",")), func(s string) bool {
			name, params, _ := strings.Cut(strings.ToLower(s), ";")
			weight, _ := strings.CutPrefix(strings.TrimSpace(params), "q=")
			name = strings.TrimSpace(name)
			return (name == strings.TrimSpace(part) || name == "*") && (weight == "" || strings.Trim(weight, "0.") != "")
		}) {
			return false
		}
	}
	return true
}

// question is what goes upstream to fill the cache. old, if not nil, is what
// upstream may confirm.
func (q *query) question(old *entry) *fetch.Request {
	req := &fetch.Request{Repo: q.Repo, URL: q.URL, Header: http.Header{}, NoFollow: true, NoCache: q.control.has("no-cache"), Encoded: true}
	for name, value := range q.sent {
		req.Header[name] = []string{value}
	}
	if via := q.Header["Via"]; via != nil {
		req.Header["Via"] = via
	}
	if old != nil {
		req.Fallback = true
		req.ETag, req.Modified = old.Header.Get("ETag"), old.Modified
	}
	return req
}
