package proxy

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// checkMessage refuses messages that others on the way could read differently,
// or that have come here before. What is not HTTP/1.1 at all (RFC 9112: two
// hosts, lengths that disagree, white space and control characters in wrong
// places) net/http has refused by then, and closed the connection.
func (h *Handler) checkMessage(r *http.Request) error {
	for _, via := range r.Header.Values("Via") {
		for member := range strings.SplitSeq(via, ",") {
			// protocol, received-by, perhaps a comment (RFC 9110, 7.6.3)
			if f := strings.Fields(member); len(f) > 1 && f[1] == h.Via {
				return &statusError{http.StatusLoopDetected, "the request has come through this server before; check which proxy the upstream is reached by"}
			}
		}
	}
	switch {
	case r.ProtoMajor != 1:
		return &statusError{http.StatusHTTPVersionNotSupported, "only HTTP/1.1 and HTTP/1.0 are spoken here"}
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength != 0:
		return &statusError{http.StatusBadRequest, "a " + r.Method + " request has no content"}
	case strings.Contains(r.RequestURI, "#"):
		return &statusError{http.StatusBadRequest, "a request names no fragment: leave the part from # away"}
	case r.URL.User != nil:
		return &statusError{http.StatusBadRequest, "a request names no user in its URL: send the credentials in the Authorization field"}
	}
	return nil
}

// frame ends connections whose framing somebody on the way may have understood
// otherwise: those on which a request's content came in chunks, since net/http
// does not tell whether it also had a length (RFC 9112, 6.3).
func frame(w http.ResponseWriter, r *http.Request, err error) {
	if len(r.TransferEncoding) > 0 || err != nil && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
}

// spelled returns path and query of a request's target, byte for byte (RFC
// 9112, 3.2).
func spelled(target string) string {
	if strings.HasPrefix(target, "/") {
		return target
	}
	_, rest, _ := strings.Cut(target, "://")
	i := strings.IndexAny(rest, "/?")
	switch {
	case i < 0:
		return "/"
	case rest[i] == '?':
		return "/" + rest[i:]
	}
	return rest[i:]
}

// upstream is the URL that a forward request asks for, in the one form that it
// is both cached under and asked for upstream: scheme and host in lower case,
// no port where it is the usual one, the rest as the client spelled it.
func (t *target) upstream(r *http.Request) string {
	host := strings.ToLower(t.url.Host)
	if name, port, err := net.SplitHostPort(host); err == nil && port == map[string]string{"http": "80", "https": "443"}[t.url.Scheme] {
		if host = name; strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	rest := spelled(r.RequestURI)
	if t.folded {
		_, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		rest = "/" + rest
	}
	return t.url.Scheme + "://" + host + rest
}

// lastForward counts the Max-Forwards of TRACE and OPTIONS down, and answers
// them where it is used up (RFC 9110, 7.6.2). Without an answer and an error
// the request is to be passed on.
func lastForward(r *http.Request) (*answer, error) {
	if r.Method != http.MethodTrace && r.Method != http.MethodOptions || r.Header.Get("Max-Forwards") == "" {
		return nil, nil
	}
	left, err := strconv.ParseUint(r.Header.Get("Max-Forwards"), 10, 31)
	switch {
	case err != nil:
		return nil, &statusError{http.StatusBadRequest, "Max-Forwards is a number"}
	case left > 0:
		r.Header.Set("Max-Forwards", strconv.FormatUint(left-1, 10))
		return nil, nil
	case r.Method == http.MethodOptions:
		return &answer{handler: http.HandlerFunc(options)}, nil
	}
	return &answer{handler: http.HandlerFunc(trace)}, nil
}

// allowed are the methods that repositories answer.
const allowed = "GET, HEAD, OPTIONS"

// options answers OPTIONS for what this server has (RFC 9110, 9.3.7).
func options(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Allow", allowed)
	w.WriteHeader(http.StatusNoContent)
}

// trace shows a request as it came here, without its secrets (RFC 9110, 9.3.8).
func trace(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\r\nHost: %s\r\n", r.Method, r.RequestURI, r.Proto, r.Host)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if name == "Authorization" || name == "Proxy-Authorization" || name == "Cookie" {
			continue
		}
		for _, value := range r.Header[name] {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	b.WriteString("\r\n")
	w.Header().Set("Content-Type", "message/http")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	_, _ = w.Write(b.Bytes())
}
