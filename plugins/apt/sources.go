package apt

import (
	"errors"
	"fmt"
	"io"
	"path"

	"chantal"
)

// maxSourceFiles is the number of files beyond which a source package is
// taken for an attempt to fill the memory; the largest have some hundred.
const maxSourceFiles = 10_000

// source is one stanza of a Sources index; its memory is used again.
type source struct {
	pkg       chantal.Package
	directory string
	files     []releaseEntry // in the order in which they are listed first; names not checked
	at        map[string]int // name → position in files
	begun     bool
	algo      string // of the list that is being read
}

func (s *source) reset() {
	clear(s.at)
	*s = source{pkg: chantal.Package{Arch: "source"}, files: s.files[:0], at: s.at}
}

// parseSources yields the files of a source index. The lists of one package
// are merged: each says the same of the files in another algorithm.
func parseSources(ix index, r io.Reader, yield func(chantal.Promise) bool) error {
	c := newControl(r)
	s := source{at: make(map[string]int)}
	s.reset()
	for {
		err := c.next()
		atEnd := errors.Is(err, io.EOF)
		switch {
		case err != nil && !atEnd:
			return err
		case !atEnd && c.kind != blank:
			if err := s.take(c); err != nil {
				return fmt.Errorf("source package %.80q: %w", s.pkg.Name, err)
			}
			continue
		case atEnd && s.begun && len(s.files) == 0:
			return fmt.Errorf("the last source package, %.80q: %w", s.pkg.Name, io.ErrUnexpectedEOF)
		}
		if err := s.yield(ix, yield); err != nil {
			return err
		}
		if atEnd {
			return ix.finish(yield)
		}
		s.reset()
	}
}

// take takes up one line of the stanza.
func (s *source) take(c *control) error {
	if c.kind == continuation {
		if s.algo == "" || c.name == nil {
			return nil
		}
		return s.list(c)
	}
	s.begun, s.algo = true, ""
	var to *string
	switch string(c.name) {
	case "package":
		to = &s.pkg.Name
	case "version":
		to = &s.pkg.Version
	case "section":
		to = &s.pkg.Section
	case "directory":
		to = &s.directory
	case "files":
		s.algo = "md5"
	case "checksums-sha1":
		s.algo = "sha1"
	case "checksums-sha256":
		s.algo = "sha256"
	case "checksums-sha512":
		s.algo = "sha512"
	}
	if to == nil {
		return nil
	}
	value, err := c.needed()
	*to = string(value)
	return err
}

func (s *source) list(c *control) error {
	line, err := c.needed()
	if err != nil {
		return err
	}
	l, err := parseListed(line)
	if err != nil {
		return err
	}
	at, ok := s.at[l.name]
	if !ok {
		if at = len(s.files); at == maxSourceFiles {
			return fmt.Errorf("more than %d files", maxSourceFiles)
		}
		s.at[l.name] = at
		s.files = append(s.files, releaseEntry{name: l.name, size: l.size})
	}
	s.files[at].digests, err = addDigest(s.files[at].digests, s.algo, l.hex)
	return err
}

func (s *source) yield(ix index, yield func(chantal.Promise) bool) error {
	var pkg *chantal.Package
	if s.pkg.Name != "" {
		pkg = new(chantal.Package)
		*pkg = s.pkg
	}
	for _, f := range s.files {
		// Joined first, "/etc" and "../x" would look harmless.
		_, err := clean(f.name)
		if err == nil && s.directory != "" && s.directory != "." {
			_, err = clean(s.directory)
		}
		if err == nil {
			p := chantal.Promise{Kind: chantal.Artifact, Digests: f.digests, Size: f.size, Package: pkg}
			err = ix.promise(path.Join(s.directory, f.name), p, yield)
		}
		if errors.Is(err, errStopped) {
			return err
		}
		if err != nil {
			return fmt.Errorf("source package %.80q: %w", s.pkg.Name, err)
		}
	}
	return nil
}
