package apt

import (
	"errors"
	"fmt"
	"io"

	"chantal"
)

// The fields that are needed of a stanza in Packages.
const (
	fPackage = iota
	fVersion
	fArchitecture
	fSection
	fFilename
	fSize
	fSHA512 // the digests, strongest first, to the end
	fSHA256
	fSHA1
	fMD5
	fields
)

// packagesAlgo holds the algorithms of the digest fields, from fSHA512.
var packagesAlgo = [...]string{"sha512", "sha256", "sha1", "md5"}

func packagesField(lower []byte) int {
	switch string(lower) {
	case "package":
		return fPackage
	case "version":
		return fVersion
	case "architecture":
		return fArchitecture
	case "section":
		return fSection
	case "filename":
		return fFilename
	case "size":
		return fSize
	case "sha512":
		return fSHA512
	case "sha256":
		return fSHA256
	case "sha1":
		return fSHA1
	case "md5sum":
		return fMD5
	}
	return -1
}

// stanza holds the needed fields of one package; its memory is used again for
// the next one.
type stanza struct {
	values [fields][]byte
	begun  bool
	words  map[string]string // architectures and sections, of which there are few
}

func (s *stanza) set(at int, value []byte) { s.values[at] = append(s.values[at][:0], value...) }

func (s *stanza) reset() {
	s.begun = false
	for i := range s.values {
		s.values[i] = s.values[i][:0]
	}
}

// word returns b as a string, the same one for the same bytes.
func (s *stanza) word(b []byte) string {
	w, ok := s.words[string(b)]
	if !ok {
		w = string(b)
		if len(s.words) < 10_000 {
			s.words[w] = w
		}
	}
	return w
}

// promise returns what the stanza promises, but for the path.
func (s *stanza) promise() (chantal.Promise, error) {
	p := chantal.Promise{Kind: chantal.Artifact, Size: -1}
	if size := s.values[fSize]; len(size) > 0 {
		n, err := parseSize(size)
		if err != nil {
			return p, err
		}
		p.Size = n
	}
	for i, algo := range packagesAlgo {
		hex := s.values[fSHA512+i]
		if len(hex) == 0 {
			continue
		}
		d, err := chantal.NewDigest(algo, string(hex))
		if err != nil {
			return p, err
		}
		if p.Digests == nil {
			p.Digests = make([]chantal.Digest, 0, 2)
		}
		p.Digests = append(p.Digests, d)
	}
	if name := s.values[fPackage]; len(name) > 0 {
		p.Package = &chantal.Package{
			Name: string(name), Version: string(s.values[fVersion]),
			Arch: s.word(s.values[fArchitecture]), Section: s.word(s.values[fSection]),
		}
	}
	return p, nil
}

// parsePackages yields the packages of a binary index. Stanzas that name no
// file cannot be fetched and are passed over; at the very end such a one is
// taken for the beginning of a longer one.
func parsePackages(ix index, r io.Reader, yield func(chantal.Promise) bool) error {
	c := newControl(r)
	s := stanza{words: make(map[string]string)}
	for {
		err := c.next()
		atEnd := errors.Is(err, io.EOF)
		if err != nil && !atEnd {
			return err
		}
		switch {
		case !atEnd && c.kind == field:
			s.begun = true
			if at := packagesField(c.name); at >= 0 {
				value, err := c.needed()
				if err != nil {
					return err
				}
				s.set(at, value)
			}
			continue
		case !atEnd && c.kind == continuation, !atEnd && !s.begun:
			continue
		}
		if s.begun {
			if err := s.end(ix, atEnd, yield); err != nil {
				return err
			}
		}
		if atEnd {
			return ix.finish(yield)
		}
	}
}

// end yields what the stanza promises, and makes ready for the next one.
func (s *stanza) end(ix index, atEnd bool, yield func(chantal.Promise) bool) error {
	defer s.reset()
	filename := s.values[fFilename]
	if atEnd && (len(filename) == 0 || len(s.values[fSize]) == 0) {
		return fmt.Errorf("the last package, %.80q: %w", s.values[fPackage], io.ErrUnexpectedEOF)
	}
	if len(filename) == 0 {
		return nil
	}
	p, err := s.promise()
	if err == nil {
		err = ix.promise(string(filename), p, yield)
	}
	if err != nil && !errors.Is(err, errStopped) {
		return fmt.Errorf("package %.80q: %w", s.values[fPackage], err)
	}
	return err
}
