package apt

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"chantal"
)

// maxStanza is the size in bytes beyond which a stanza is an attempt to fill
// the memory; the largest that are known have some hundred KiB.
const maxStanza = 16 << 20

// copier copies the stanzas that are kept from the indexes of one target.
type copier struct {
	e  *edition
	t  *rewrite
	to io.Writer

	raw    []byte            // the stanza, as it was read
	binary stanza            // what is needed of it: in Packages,
	source source            // in Sources
	seen   map[[16]byte]bool // what has been written; nil with one source, which says what it says
}

func newCopier(e *edition, t *rewrite) *copier {
	c := &copier{e: e, t: t, binary: stanza{words: map[string]string{}}, source: source{at: map[string]int{}}}
	c.source.reset()
	if len(e.sources) > 1 {
		c.seen = map[[16]byte]bool{}
	}
	return c
}

// copy copies from one source.
func (c *copier) copy(source int, r io.Reader) error {
	lines := newControl(r)
	for {
		err := lines.next()
		atEnd := errors.Is(err, io.EOF)
		switch {
		case err != nil && !atEnd:
			return err
		case atEnd && c.cut():
			return fmt.Errorf("%s, the last one: %w", c.name(), io.ErrUnexpectedEOF)
		case atEnd || lines.kind == blank:
			if err := c.end(source); err != nil {
				return err
			}
			if atEnd {
				return nil
			}
			continue
		case lines.long:
			return fmt.Errorf("the field %s of %s has a line of more than %d bytes", lines.name, c.name(), bufferSize)
		case len(c.raw)+len(lines.line) > maxStanza:
			return fmt.Errorf("the stanza of %s has more than %d bytes", c.name(), maxStanza)
		}
		c.raw = append(c.raw, lines.line...)
		if err := c.take(lines); err != nil {
			return fmt.Errorf("%s: %w", c.name(), err)
		}
	}
}

// name is the package whose stanza is being read, for people.
func (c *copier) name() string {
	return fmt.Sprintf("package %.80q", append(c.binary.values[fPackage], c.source.pkg.Name...))
}

// cut reports whether the stanza that is being read lacks what it needs, as
// the beginning of a longer one does: Parse takes it for that too.
func (c *copier) cut() bool {
	switch {
	case len(c.raw) == 0 || c.t.kind == translation:
		return false
	case c.t.kind == sources:
		return c.source.begun && len(c.source.files) == 0
	}
	return c.binary.begun && (len(c.binary.values[fFilename]) == 0 || len(c.binary.values[fSize]) == 0)
}

// take takes up one line.
func (c *copier) take(lines *control) error {
	switch c.t.kind {
	case sources:
		return c.source.take(lines)
	case binaries, udebs:
		if lines.kind == field {
			c.binary.begun = true
			if at := packagesField(lines.name); at >= 0 {
				value, err := lines.needed()
				c.binary.set(at, value)
				return err
			}
		}
	}
	return nil
}

// end writes the stanza where it is kept, and makes ready for the next one.
func (c *copier) end(source int) error {
	defer func() {
		c.raw = c.raw[:0]
		c.binary.reset()
		c.source.reset()
	}()
	if len(c.raw) == 0 {
		return nil
	}
	var held bool
	var err error
	switch c.t.kind {
	case translation:
		held = c.describes()
	case sources:
		held, err = c.keepsSource(source)
	default:
		held, err = c.keepsBinary(source)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.name(), err)
	}
	if !held || c.again() {
		return nil
	}
	c.raw = append(c.raw, '\n')
	_, err = c.to.Write(c.raw)
	return err
}

// again reports whether the very stanza has been written before.
func (c *copier) again() bool {
	if c.seen == nil {
		return false
	}
	sum := md5.Sum(c.raw)
	had := c.seen[sum]
	c.seen[sum] = true
	return had
}

func (c *copier) keepsBinary(source int) (bool, error) {
	filename := c.binary.values[fFilename]
	if len(filename) == 0 {
		return false, nil // nothing that could be installed
	}
	p, err := c.binary.promise()
	if err != nil {
		return false, err
	}
	if p.Path, err = c.place(string(filename)); err != nil {
		return false, err
	}
	held, err := c.e.keep(source, &p, c.field)
	if !held || err != nil {
		return false, err
	}
	d := c.e.described[c.t.component]
	d.mu.Lock()
	defer d.mu.Unlock()
	if sum := value(c.raw, "description-md5"); sum != "" {
		d.sums[sum] = true
	} else {
		d.names[string(c.binary.values[fPackage])] = true
	}
	return true, nil
}

// keepsSource asks for every file of a source package; the first, its .dsc as
// a rule, decides.
func (c *copier) keepsSource(source int) (held bool, err error) {
	for i, f := range c.source.files {
		if _, err := clean(f.name); err != nil {
			return false, err
		}
		p := chantal.Promise{Kind: chantal.Artifact, Digests: f.digests, Size: f.size, Package: &c.source.pkg}
		if p.Path, err = c.place(path.Join(c.source.directory, f.name)); err != nil {
			return false, err
		}
		keeps, err := c.e.keep(source, &p, c.field)
		if err != nil {
			return false, err
		}
		if i == 0 {
			held = keeps
		}
		if !held {
			return false, nil
		}
	}
	return held, nil
}

// place returns where the repository has a file.
func (c *copier) place(filename string) (string, error) {
	at, _, err := newIndex(path.Join(c.e.dir, c.t.name)).place(filename)
	return at, err
}

// describes reports whether a translated description is of a package that is
// kept.
func (c *copier) describes() bool {
	d := c.e.described[c.t.component]
	return d.sums[value(c.raw, "description-md5")] || d.names[value(c.raw, "package")]
}

// field is what a chantal.Keep can ask for.
func (c *copier) field(name string) string {
	switch name {
	case "component":
		return c.t.component
	case "source":
		of := value(c.raw, "source")
		if of == "" || c.t.kind == sources {
			of = value(c.raw, "package")
		}
		of, _, _ = strings.Cut(of, " ") // a version in parentheses may follow
		return of
	}
	return value(c.raw, name)
}

// value returns a field of a stanza by its name in lower case, with the lines
// that continue it; "" where it is not there.
func value(raw []byte, name string) string {
	for line := range bytes.Lines(raw) {
		n := len(name)
		if len(line) <= n || line[n] != ':' || !bytes.EqualFold(line[:n], []byte(name)) {
			raw = raw[len(line):]
			continue
		}
		raw = raw[n+1:]
		end := 0
		for more := range bytes.Lines(raw) {
			if end > 0 && more[0] != ' ' && more[0] != '\t' {
				break
			}
			end += len(more)
		}
		return string(bytes.TrimSpace(raw[:end]))
	}
	return ""
}
