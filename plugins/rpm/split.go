package rpm

import (
	"bytes"
	"fmt"
	"io"
)

// maxElement is how long one element of an index may be, in bytes. The longest
// seen in the wild (a kernel's list of provides) is under 1 MiB.
const maxElement = 8 << 20

const chunk = 256 << 10

// splitter cuts the direct children of an XML document's root element out of a
// stream, as raw bytes, in a buffer that it uses again and again. Decoding all
// of primary.xml takes a hundred times as long as finding where its packages
// begin and end.
type splitter struct {
	r      io.Reader
	buf    []byte // what was read and not yet consumed
	whole  []byte // the array behind buf
	ended  bool   // r has nothing more
	err    error  // of r, other than its end
	inside bool   // the root element has begun
	root   []byte // its tag, raw; a copy
	coding string // what the XML declaration says of the encoding; "" for nothing
}

// begin reads to behind the tag that opens the root element, which has to be
// one of roots.
func (s *splitter) begin(roots ...string) error {
	n, t, err := s.tag()
	if err != nil {
		return err
	}
	if t.kind == closing || !oneOf(t.name, roots) {
		return fmt.Errorf("<%.40s> where <%s> was expected", t.name, roots[0])
	}
	s.root, s.inside = bytes.Clone(s.buf[:n]), true
	s.buf = s.buf[n:]
	return nil
}

// next returns the next <name> element below one of roots, complete with its
// tags; it is valid until the next call. io.EOF is returned where the root
// element and then the stream end; io.ErrUnexpectedEOF where the stream ends
// before. Children with other names are passed over; with an empty name none
// are.
func (s *splitter) next(name string, roots ...string) ([]byte, error) {
	if !s.inside {
		if err := s.begin(roots...); err != nil {
			return nil, err
		}
	}
	if bytes.HasSuffix(s.root, []byte("/>")) {
		return nil, s.drain()
	}
	for {
		n, t, err := s.tag()
		switch {
		case err != nil:
			return nil, err
		case t.kind == closing && oneOf(t.name, roots):
			return nil, s.drain()
		case t.kind == closing || len(t.name) == 0:
			return nil, fmt.Errorf("%w: %.40q where <%s> was expected", errMarkup, s.buf[:n], name)
		default:
			named := name == "" || string(t.name) == name
			if e, err := s.element(n, t); err != nil || named {
				return e, err
			}
		}
	}
}

// tag finds the next tag: the first n bytes of the buffer, which it leaves
// there.
func (s *splitter) tag() (n int, t tag, err error) {
	for {
		if err := s.find('<'); err != nil {
			return 0, tag{}, err
		}
		n, skip, err := s.complete(func(b []byte) (int, bool) {
			if n, is := aside(b); is {
				return n, true
			}
			if bytes.HasPrefix(b, []byte("<!")) && len(b) > len("<![CDATA[") {
				return -1, false
			}
			return tagEnd(b), false
		})
		if err != nil {
			return 0, tag{}, err
		}
		if !skip {
			return n, parseTag(s.buf[:n]), nil
		}
		if declaration := s.buf[:n]; bytes.HasPrefix(declaration, []byte("<?xml ")) {
			if s.coding, err = parseTag(declaration[:n-1]).attr("encoding"); err != nil {
				return 0, tag{}, err
			}
		}
		s.buf = s.buf[n:]
	}
}

func oneOf(name []byte, names []string) bool {
	for _, n := range names {
		if string(name) == n {
			return true
		}
	}
	return false
}

// element consumes the element whose opening tag t is the first n bytes.
func (s *splitter) element(n int, t tag) ([]byte, error) {
	if t.kind == opening {
		end := endFinder{name: append([]byte("</"), rawName(s.buf)...), from: n}
		var err error
		if n, _, err = s.complete(end.find); err != nil {
			return nil, err
		}
	}
	e := s.buf[:n:n]
	s.buf = s.buf[n:]
	return e, nil
}

// endFinder looks for the end of an element in bytes of which more may come,
// and remembers how far it looked.
type endFinder struct {
	name []byte // "</" and the element's name, with its prefix
	from int    // no end begins before it
}

// find returns the length of the element that b begins with, as complete wants
// it. Only a comment or a CDATA section can hide an end tag, and both begin
// with "<!"; text and attributes have no "<".
func (f *endFinder) find(b []byte) (int, bool) {
	for {
		stop := len(b)
		i := bytes.Index(b[f.from:], f.name)
		if i >= 0 {
			stop = f.from + i
		}
		if j := bytes.Index(b[f.from:stop], []byte("<!")); j >= 0 {
			f.from += j
			n, is := aside(b[f.from:])
			switch {
			case n > 0:
				f.from += n
				continue
			case !is && len(b)-f.from > len("<![CDATA["):
				return -1, false
			}
			return 0, false
		}
		if i < 0 {
			f.from = max(f.from, len(b)-len(f.name))
			return 0, false
		}
		f.from = stop
		rest := bytes.TrimLeft(b[stop+len(f.name):], " \t\r\n")
		switch {
		case len(rest) == 0:
			return 0, false
		case rest[0] == '>':
			return len(b) - len(rest) + 1, false
		}
		f.from += len(f.name) // the end of an element with a longer name
	}
}

// rawName returns the name in the tag that b begins with, prefix included.
func rawName(b []byte) []byte {
	return b[1 : 1+bytes.IndexAny(b[1:], " \t\r\n/>")]
}

// find drops what is before the next c.
func (s *splitter) find(c byte) error {
	for {
		if i := bytes.IndexByte(s.buf, c); i >= 0 {
			s.buf = s.buf[i:]
			return nil
		}
		s.buf = s.buf[:0]
		if err := s.more(); err != nil {
			return err
		}
	}
}

// complete reads until end finds where the thing that the buffer begins with
// ends: a positive length; 0 for "not in these bytes", negative for "never".
func (s *splitter) complete(end func([]byte) (int, bool)) (n int, flag bool, err error) {
	for {
		n, flag = end(s.buf)
		if n < 0 {
			return 0, false, errMarkup
		}
		if n > maxElement || n == 0 && len(s.buf) >= maxElement {
			return 0, false, fmt.Errorf("an element is longer than %d bytes", maxElement)
		}
		if n > 0 {
			return n, flag, nil
		}
		if err := s.more(); err != nil {
			return 0, false, err
		}
	}
}

// more appends what r has to the buffer. A stream that ends is an
// io.ErrUnexpectedEOF here: nobody asks for more after the root element.
func (s *splitter) more() error {
	switch {
	case s.err != nil:
		return s.err
	case s.ended:
		return io.ErrUnexpectedEOF
	}
	if cap(s.buf)-len(s.buf) < chunk/2 {
		// The consumed part is freed first; a long element doubles the array.
		if cap(s.whole) < len(s.buf)+chunk {
			s.whole = make([]byte, max(2*cap(s.whole), len(s.buf)+chunk))
		}
		s.buf = s.whole[:copy(s.whole[:cap(s.whole)], s.buf)]
	}
	n, err := s.r.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	if err == io.EOF {
		s.ended = true
	} else {
		s.err = err
	}
	if n > 0 || err == nil {
		return nil
	}
	return s.more()
}

// drain reads to the end, where decompressors find that a stream was damaged.
func (s *splitter) drain() error {
	if s.err == nil && !s.ended {
		_, s.err = io.Copy(io.Discard, s.r)
	}
	if s.err != nil {
		return s.err
	}
	return io.EOF
}
