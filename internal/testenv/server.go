// Package testenv builds small signed package repositories from a few lines
// and serves them on loopback, rightly or wrongly: what tests stand in front
// of in place of the real archives.
//
// APT, RPM and PyPI are the repositories; each publishing of one is a set of
// Files, which a Server puts under a prefix in one step. Failures are asked
// for with Server.Fail, or in the URL: http://HOST/truncate/debian/… is
// http://HOST/debian/… with every body cut in half.
//
// The package knows nothing of the code under test, and nothing here is fit
// for anything but tests: keys are made per run, content is pseudo-random.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// File is one file that an upstream serves.
type File struct {
	Content  []byte
	Modified time.Time // sent as Last-Modified, in whole seconds
	Type     string    // sent as Content-Type; empty for a guess by name
	JSON     []byte    // sent in place of Content when Accept names SimpleJSON; nil for never

	tag string // the ETag, or "none"; empty for one made of the content
}

// Files are the files of a repository by their path relative to it.
type Files map[string]File

// Request is one request as a Server received it.
type Request struct {
	Method string
	Path   string // without the fault that stood before it
	Header http.Header
	Host   string
}

// Server is an upstream on loopback. All methods are safe for concurrent use.
type Server struct {
	addr string

	mu       sync.Mutex
	http     *http.Server // nil while down
	served   chan struct{}
	site     map[string]File // by absolute path
	before   map[string]File // what site was until the last publishing
	staged   map[string]File // what the fault flip changes to; nil for nothing
	faults   []fault
	released chan struct{} // closed to let bodies held by the fault stall go on
	requests []Request
	held     map[net.Conn]bool // connections that faults write to; nil while down
}

// NewServer starts a server without files on a free port of 127.0.0.1. The
// caller ends it with Down.
func NewServer() (*Server, error) {
	s := &Server{site: map[string]File{}, released: make(chan struct{})}
	if err := s.listen("127.0.0.1:0"); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) listen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("start upstream: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = l.Addr().String()
	s.http = &http.Server{Handler: s}
	s.held = map[net.Conn]bool{}
	s.served = make(chan struct{})
	go func(h *http.Server, served chan struct{}) {
		defer close(served)
		h.Serve(l) // always ends with ErrServerClosed, by Down
	}(s.http, s.served)
	return nil
}

// URL returns "http://127.0.0.1:PORT", which stays the same over Down and Up.
func (s *Server) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.addr
}

// Down closes the port and every connection. It does nothing when the server
// is down already.
func (s *Server) Down() {
	s.mu.Lock()
	h, served, held := s.http, s.served, s.held
	s.http, s.held = nil, nil
	s.mu.Unlock()
	for conn := range held {
		conn.Close()
	}
	if h != nil {
		h.Close()
		<-served
	}
}

// hold notes a connection that Down has to close; false when it is too late.
func (s *Server) hold(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		s.held[conn] = true
	}
	return s.held != nil
}

// let ends hold.
func (s *Server) let(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, conn)
}

// Up listens on the same port again after Down.
func (s *Server) Up() error {
	s.mu.Lock()
	up, addr := s.http != nil, s.addr
	s.mu.Unlock()
	if up {
		return errors.New("upstream is up already")
	}
	var err error
	for range 50 { // somebody's outgoing connection may hold the port for a moment
		if err = s.listen(addr); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// Publish replaces everything under prefix ("debian", "a/b"; "" for the top)
// by files, for all requests at one moment.
func (s *Server) Publish(prefix string, files Files) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.site = s.site, replace(s.site, prefix, files)
}

// Stage prepares what Publish would do for the fault flip, which does it right
// after answering the next request that it applies to.
func (s *Server) Stage(prefix string, files Files) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staged = replace(s.site, prefix, files)
}

// Put replaces the one file at the absolute path, and nothing that speaks of
// it. A zero File removes it.
func (s *Server) Put(path string, f File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Content == nil {
		delete(s.site, path)
	} else {
		s.site[path] = f
	}
}

// File returns the file that is served at the absolute path without faults.
func (s *Server) File(path string) (File, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.site[path]
	return f, ok
}

// Paths returns the absolute paths of all files, sorted.
func (s *Server) Paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.site))
}

// Requests returns every request so far, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Count returns how many requests asked for the absolute path; a path that
// ends in "/" counts everything under it.
func (s *Server) Count(path string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Path == path || strings.HasSuffix(path, "/") && strings.HasPrefix(r.Path, path) {
			n++
		}
	}
	return n
}

// Forget empties the list of requests.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// WaitFor returns when Count(path) has reached n, or with the error of ctx.
func (s *Server) WaitFor(ctx context.Context, path string, n int) error {
	for s.Count(path) < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %d requests for %s: %w", n, path, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

func replace(site map[string]File, prefix string, files Files) map[string]File {
	base := "/"
	if prefix != "" {
		base = "/" + strings.Trim(prefix, "/") + "/"
	}
	next := make(map[string]File, len(site)+len(files))
	for path, f := range site {
		if !strings.HasPrefix(path, base) {
			next[path] = f
		}
	}
	for path, f := range files {
		next[base+path] = f
	}
	return next
}
