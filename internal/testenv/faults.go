package testenv

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault is a way to answer wrongly. Each also works as the first segment of a
// URL's path.
type Fault string

// The faults. Those that are numbers answer with that status and a line of
// text.
const (
	NotFound    Fault = "404"
	Gone        Fault = "410"
	Forbidden   Fault = "403"
	TooMany     Fault = "429"
	Internal    Fault = "500"
	Unavailable Fault = "503"

	Truncate Fault = "truncate" // the right Content-Length, half the body, then the connection is cut
	Corrupt  Fault = "corrupt"  // the right length, one byte in the middle changed
	Tail     Fault = "tail"     // the right length, the very last byte changed
	Lie      Fault = "lie"      // a Content-Length ten bytes too long, then the connection is closed
	Slow     Fault = "slow"     // twenty pieces, 50 ms apart
	Hang     Fault = "hang"     // no answer until the client gives up
	Stall    Fault = "stall"    // half the body, the rest after Release
	Flip     Fault = "flip"     // the right answer, after which what was staged is published
	NoETag   Fault = "noetag"   // no ETag, no Last-Modified, never 304
	Dated    Fault = "dated"    // no ETag: whole seconds of Last-Modified are all there is
	Coarse   Fault = "coarse"   // an ETag made of Last-Modified and length, as common web servers do
	Chunked  Fault = "chunked"  // no Content-Length, no ranges
	Redirect Fault = "redirect" // 302 to the same path without the fault
	Portal   Fault = "portal"   // 200 and somebody else's HTML, whatever was asked
	Huge     Fault = "huge"     // 300 MiB of text that begins like the file
	Empty    Fault = "empty"    // 200 and no body
)

var faults = []Fault{
	NotFound, Gone, Forbidden, TooMany, Internal, Unavailable, Truncate, Corrupt, Tail, Lie, Slow, Hang, Stall,
	Flip, NoETag, Dated, Coarse, Chunked, Redirect, Portal, Huge, Empty,
}

// ParseFault returns the fault with that name.
func ParseFault(name string) (Fault, error) {
	if f := Fault(name); slices.Contains(faults, f) {
		return f, nil
	}
	return "", fmt.Errorf("no fault %q; there are %v", name, faults)
}

type fault struct {
	kind   Fault
	prefix string
	left   int // how many more requests; -1 for all
}

const hugeSize = 300 << 20

const portalPage = "<!DOCTYPE html>\n<html><head><title>Welcome to Hotel Example</title></head>" +
	"<body><form action=\"/login\">Please accept our terms.</form></body></html>\n"

// Fail makes requests for absolute paths that begin with prefix fail: the next
// times of them, or all when times is negative. Of several faults that apply,
// the one set last wins.
func (s *Server) Fail(kind Fault, prefix string, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, fault{kind, prefix, times})
}

// Release lets go on what Stall holds, now and until Heal.
func (s *Server) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.released:
	default:
		close(s.released)
	}
}

// Heal ends all faults that Fail set. Bodies held by Stall go on.
func (s *Server) Heal() {
	s.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
	s.released = make(chan struct{})
}

// admit records the request and returns what is to be answered.
func (s *Server) admit(r *http.Request) (f File, found bool, kind Fault, released chan struct{}) {
	name := r.URL.Path
	if first, rest, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/"); ok && slices.Contains(faults, Fault(first)) {
		kind, name = Fault(first), "/"+rest
	}
	// Web servers take "./" and "//", which apt sends, for nothing.
	if clean := path.Clean(name); strings.HasSuffix(name, "/") && clean != "/" {
		name = clean + "/"
	} else {
		name = clean
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, Request{Method: r.Method, Path: name, Header: r.Header.Clone(), Host: r.Host})
	for i := len(s.faults) - 1; i >= 0 && kind == ""; i-- {
		if f := &s.faults[i]; f.left != 0 && strings.HasPrefix(name, f.prefix) {
			kind = f.kind
			f.left = max(f.left-1, -1)
		}
	}
	f, found = s.site[name]
	if kind == Flip && s.staged != nil {
		s.site, s.staged = s.staged, nil
	}
	return f, found, kind, s.released
}

// ServeHTTP answers from the files published, as the faults have it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, found, kind, released := s.admit(r)
	if code, err := strconv.Atoi(string(kind)); err == nil {
		http.Error(w, http.StatusText(code), code)
		return
	}
	switch kind {
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Redirect:
		w.Header().Set("Location", strings.TrimPrefix(r.URL.EscapedPath(), "/"+string(Redirect)))
		w.WriteHeader(http.StatusFound)
		return
	case Portal:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, portalPage)
		return
	}
	if !found {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	if f.JSON != nil {
		w.Header().Set("Vary", "Accept")
		if strings.Contains(r.Header.Get("Accept"), SimpleJSON) {
			f.Content, f.Type = f.JSON, SimpleJSON
		}
	}
	w.Header().Set("Content-Type", contentType(r.URL.Path, f))
	switch kind {
	case NoETag, Dated:
	case Coarse:
		w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, f.Modified.Unix(), len(f.Content)))
	default:
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(f.Content))[:18]+`"`)
	}
	if kind == NoETag || f.Modified.IsZero() {
		r.Header.Del("If-Modified-Since")
		f.Modified = time.Time{}
	} else {
		w.Header().Set("Last-Modified", f.Modified.UTC().Format(http.TimeFormat))
	}
	if r.Method == http.MethodHead {
		kind = ""
	}
	switch kind {
	case Corrupt, Tail:
		f.Content = bytes.Clone(f.Content)
		at := len(f.Content) / 2
		if kind == Tail {
			at = len(f.Content) - 1
		}
		if at >= 0 && at < len(f.Content) {
			f.Content[at] ^= 0x20
		}
		http.ServeContent(w, r, "", f.Modified, bytes.NewReader(f.Content))
	case "", Flip, NoETag, Dated, Coarse:
		http.ServeContent(w, r, "", f.Modified, bytes.NewReader(f.Content))
	default:
		badBody(w, r, kind, f.Content, released)
	}
}

// badBody answers 200 and sends the body as the fault has it.
func badBody(w http.ResponseWriter, r *http.Request, kind Fault, body []byte, released chan struct{}) {
	length := len(body)
	switch kind {
	case Lie:
		length += 10
	case Huge:
		length = hugeSize
	case Empty:
		length = 0
	}
	if kind != Chunked {
		w.Header().Set("Content-Length", strconv.Itoa(length))
	}
	flush := http.NewResponseController(w).Flush
	switch kind {
	case Truncate:
		w.Write(body[:length/2])
		flush()
		panic(http.ErrAbortHandler)
	case Lie:
		w.Write(body)
		flush()
		panic(http.ErrAbortHandler)
	case Stall:
		w.Write(body[:length/2])
		flush()
		select {
		case <-released:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
		w.Write(body[length/2:])
	case Slow, Chunked:
		for piece := range slices.Chunk(body, max(1, (length+19)/20)) {
			if _, err := w.Write(piece); err != nil {
				return
			}
			flush()
			if kind == Slow {
				time.Sleep(50 * time.Millisecond)
			}
		}
	case Huge:
		w.Write(body)
		filler := bytes.Repeat([]byte("X-Padding: 0123456789abcdef\n"), 2048)
		for left := length - len(body); left > 0; {
			n, err := w.Write(filler[:min(left, len(filler))])
			if err != nil {
				return
			}
			left -= n
		}
	}
}

func contentType(name string, f File) string {
	if f.Type != "" {
		return f.Type
	}
	switch path.Ext(name) {
	case ".deb":
		return "application/vnd.debian.binary-package"
	case ".rpm":
		return "application/x-rpm"
	case ".xml", ".asc", ".html":
		return mime.TypeByExtension(path.Ext(name))
	}
	return "application/octet-stream"
}
