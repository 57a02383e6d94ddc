package testenv

import (
	"fmt"
	"mime"
	"net/http"
	"path"
	"strings"
)

// Fault is a way to answer wrongly. Each also works as the first segment of a
// URL's path.
type Fault string

// Harm is what a fault means to one who wants the file.
type Harm uint8

// The harms, from least to worst.
const (
	Odd    Harm = iota // the right bytes, unusually sent
	Broken             // anybody can see that this is not the file
	Absent             // upstream says that there is no such file
	Past               // what the file was before the last publishing
	Wrong              // a proper answer with other bytes: only who knows what to expect can tell
)

// Faults returns all faults with the harm they do, and what they are in words.
// The order does not change.
func Faults(visit func(f Fault, harm Harm, does string)) {
	for _, t := range tricks {
		visit(t.name, t.harm, t.does)
	}
}

// ParseFault returns the fault with that name.
func ParseFault(name string) (Fault, error) {
	var names []Fault
	for _, t := range tricks {
		if t.name == Fault(name) {
			return t.name, nil
		}
		names = append(names, t.name)
	}
	return "", fmt.Errorf("no fault %q; there are %v", name, names)
}

func trickOf(f Fault) func(*exchange) {
	for _, t := range tricks {
		if t.name == f {
			return t.do
		}
	}
	return nil
}

type fault struct {
	kind   Fault
	prefix string
	left   int // how many more requests; -1 for all
}

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

// admit records the request and returns what is to be answered: the right
// file, others that a trick may answer with, and the trick, nil for none.
func (s *Server) admit(r *http.Request) (*exchange, func(*exchange)) {
	name := r.URL.Path
	var kind Fault
	if first, rest, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/"); ok && trickOf(Fault(first)) != nil {
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
	_, below, _ := strings.Cut(name[1:], "/")
	x := &exchange{req: r, file: s.site[name], old: s.before[name], other: s.site["/elsewhere/"+below], released: s.released}
	if kind == Flip && s.staged != nil {
		s.before, s.site, s.staged = s.site, s.staged, nil
	}
	return x, trickOf(kind)
}

// ServeHTTP answers from the files published, as the faults have it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x, trick := s.admit(r)
	if trick == nil {
		right(w, r, x.file)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "faults need HTTP/1.1: "+err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	if !s.hold(conn) {
		return
	}
	defer s.let(conn)
	x.conn = conn
	x.answer(x.file)
	trick(x)
}

// contentType returns a file's type, guessed by its name where none is given.
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
