// Package fetch is upstream as a Source: one URL asked, one answer given.
//
// Client speaks HTTP, knows the credentials, and leaves an origin in peace that
// asked for it; Retry, Limit, Bandwidth and Offline change a Source into one
// with that property; Egress decides at every dial which addresses may be
// reached. The package does not know what a file is for: which mirror to ask,
// what the bytes should be and where they go is the callers' business.
package fetch

import (
	"context"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"time"
)

// Request asks for one URL. A Source does not change it, and it may be sent
// again once the Source has returned.
type Request struct {
	Repo     string      // the repository on whose behalf; its credentials are used. "" for none
	URL      string      // absolute, http or https; path and query are sent byte for byte. Userinfo in it goes to its host only
	Method   string      // GET or HEAD; "" is GET
	Accept   string      // "" is */*
	Header   http.Header // further end-to-end fields, which the named ones above and below win over; may be nil
	ETag     string      // If-None-Match, as upstream wrote it, with its quotes
	Modified time.Time   // If-Modified-Since
	Offset   int64       // ask for the bytes from here on; 0 for the whole file
	IfRange  string      // with Offset: a strong ETag or a date; if the file is another one, all of it is answered
	NoCache  bool        // caches on the way have to ask their upstream
	NoFollow bool        // a redirect is the answer, not followed
	Encoded  bool        // an answer with any Content-Encoding will do; Header's Accept-Encoding is sent, if there is one

	// Urgent says that the file is small and others wait for it, so that it
	// does not queue behind downloads.
	Urgent bool
	// Behind says that nobody waits for the answer before it is closed: such a
	// request goes behind the others. nil for one that somebody waits for.
	Behind <-chan struct{}
	// Fallback says that the caller has another answer at hand, of another
	// mirror or from the store: a failure soon is worth more than this answer
	// late.
	Fallback bool
	// Within bounds the whole of it, the reading of the body included; 0 is no
	// bound beside the context's.
	Within time.Duration
}

// Response is an answer, whatever its status.
type Response struct {
	Status   int
	Header   http.Header   // as received, of the last answer if there were redirects
	Size     int64         // of the whole file, in bytes, also for HEAD and 206; -1 if not known
	Offset   int64         // where Body begins in the file; not 0 only for 206
	Body     io.ReadCloser // never nil; the caller closes it. A 206 may end before Size
	URL      string        // after redirects, without userinfo
	ETag     string
	Type     string    // Content-Type
	Modified time.Time // Last-Modified; zero where absent or no date

	// OpenEnded says that Body ends where its connection does (RFC 9112, 6.3),
	// so that a broken connection looks like the end.
	OpenEnded bool
}

// Source answers requests. Implementations are safe for concurrent use.
//
// Every status is a Response. Errors: *chantal.UpstreamError when there was no
// answer or none that can be used, *chantal.RefusedError when Chantal's own
// rules forbid to ask, and the context's error when it ended. Reading the body
// fails with the first or the last of these; it never ends early without an
// error where upstream announced a length. The context governs the body too.
type Source interface {
	Fetch(ctx context.Context, r *Request) (*Response, error)
}

// SourceFunc is a function as a Source.
type SourceFunc func(ctx context.Context, r *Request) (*Response, error)

// Fetch calls f.
func (f SourceFunc) Fetch(ctx context.Context, r *Request) (*Response, error) { return f(ctx, r) }

// hopByHop are the fields that concern one connection only (RFC 9110, 7.6.1),
// and those of a proxy's own authentication.
var hopByHop = [...]string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info",
}

// EndToEnd returns a copy of h without the fields that must not be passed on:
// the hop-by-hop ones, those that Connection names, and proxy authentication.
func EndToEnd(h http.Header) http.Header {
	out := h.Clone()
	if out == nil {
		return http.Header{}
	}
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			out.Del(textproto.TrimString(name))
		}
	}
	for _, name := range hopByHop {
		delete(out, name)
	}
	return out
}

// wrapBody is a body with an action at its end.
type wrapBody struct {
	io.Reader
	close func() error
}

func (b *wrapBody) Close() error { return b.close() }
