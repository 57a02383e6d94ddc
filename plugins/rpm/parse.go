package rpm

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"

	"chantal"
)

// Parse implements chantal.Format for repomd.xml (what it lists is metadata),
// for primary (packages), for the lists of delta packages and for a treeinfo
// (images). Other metadata
// names no files, and Parse returns nil for it. name tells which of these a
// file is, and that its hrefs are relative to the folder above its repodata.
func (Format) Parse(name string, r io.Reader) iter.Seq2[chantal.Promise, error] {
	dir, ok := home(name)
	switch {
	case isTreeInfo(name):
		return parseTreeInfo(name, r)
	case !ok:
		return nil
	case path.Base(name) == repomd:
		return parseRepomd(dir, name, r)
	case isPrimary(name):
		return parseIndex(name, r, "package", decodePackage(dir), "metadata")
	case isDelta(name):
		return parseIndex(name, r, "newpackage", decodeDeltas(dir), "prestodelta", "deltainfo")
	}
	return nil
}

func parseRepomd(dir, name string, r io.Reader) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		records, err := readRepomd(r)
		if err != nil {
			yield(chantal.Promise{}, fmt.Errorf("read %s: %w", name, err))
			return
		}
		for i := range records {
			p, err := records[i].promise(dir)
			if err != nil {
				yield(chantal.Promise{}, fmt.Errorf("read %s: %w", name, err))
				return
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// decoder turns one raw element into promises, which it hands to found until
// that returns false.
type decoder func(element []byte, found func(chantal.Promise) bool) error

func parseIndex(name string, r io.Reader, element string, decode decoder, roots ...string) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		stopped := false
		found := func(p chantal.Promise) bool {
			stopped = !yield(p, nil)
			return !stopped
		}
		s := splitter{r: r}
		for n := 1; ; n++ {
			e, err := s.next(element, roots...)
			if err == io.EOF {
				return
			}
			if err == nil {
				err = decode(e, found)
			}
			if stopped {
				return
			}
			if err != nil {
				yield(chantal.Promise{}, fmt.Errorf("read %s: <%s> %d: %w", name, element, n, err))
				return
			}
		}
	}
}

// fields are what is read of a <package> of primary.xml.
type fields struct {
	pkg      chantal.Package
	sums     []checksum
	size     string
	location location
	have     uint8 // bit per field, for stopping early
}

const (
	haveName = 1 << iota
	haveArch
	haveVersion
	haveSum
	haveSize
	haveLocation
	haveGroup
	haveAll = 1<<iota - 1
)

// decodePackage returns the decoder for a <package> of primary.xml.
func decodePackage(dir string) decoder {
	return func(element []byte, found func(chantal.Promise) bool) error {
		p, _, err := readPackage(dir, element)
		if err == nil {
			found(p)
		}
		return err
	}
}

// readPackage reads a <package> of primary.xml, in the folder dir of its
// repository. id is what the other indexes call the package by; it may be "".
func readPackage(dir string, element []byte) (p chantal.Promise, id string, err error) {
	var f fields
	if err := f.read(element); err != nil {
		return p, "", err
	}
	if f.pkg.Name == "" {
		return p, "", errors.New("the package has no name")
	}
	p = chantal.Promise{Kind: chantal.Artifact, Package: &f.pkg}
	if p.Path, p.URL, err = f.location.artifact(dir); err != nil {
		return p, "", fmt.Errorf("%s: %w", f.pkg.Name, err)
	}
	if p.Digests, err = digests(f.sums...); err != nil {
		return p, "", fmt.Errorf("%s: %w", f.pkg.Name, err)
	}
	if p.Size, err = size(f.size); err != nil {
		return p, "", fmt.Errorf("%s: %w", f.pkg.Name, err)
	}
	if len(f.sums) > 0 {
		id = pkgid(f.sums[0].Value)
	}
	return p, id, nil
}

// pkgid returns the one spelling of what indexes call a package by.
func pkgid(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// read reads the children of the element; of what is deeper, only <rpm:group>
// of <format>. It ends as soon as it has everything, for what follows (what
// the package provides, requires and contains) is most of the element.
func (f *fields) read(element []byte) error {
	m := markup{rest: element}
	parent, kind := "", ""
	for depth := 0; f.have != haveAll; {
		t, err := m.next()
		if err != nil {
			return err
		}
		if t.kind == closing {
			depth--
			if depth == 0 {
				return nil
			}
			if depth == 1 {
				err = f.text(string(t.name), kind, &m)
			} else if depth == 2 && parent == "format" && string(t.name) == "group" {
				f.pkg.Section, err = m.line()
				f.have |= haveGroup
			}
			if err != nil {
				return err
			}
			continue
		}
		if depth == 1 {
			parent = string(t.name)
			if kind, err = f.attributes(parent, t); err != nil {
				return err
			}
		}
		if t.kind == opening {
			depth++
		} else if depth == 0 {
			return nil
		}
	}
	return nil
}

// attributes takes what the element name has in its attributes; for a checksum
// that is its type, which is returned.
func (f *fields) attributes(name string, t tag) (kind string, err error) {
	attr := func(key string) string {
		v, e := t.attr(key)
		err = errors.Join(err, e)
		return v
	}
	switch name {
	case "version":
		f.pkg.Version = evr(attr("epoch"), attr("ver"), attr("rel"))
		f.have |= haveVersion
	case "checksum":
		kind = attr("type")
	case "size":
		f.size = attr("package")
		f.have |= haveSize
	case "location":
		f.location = location{Base: attr("xml:base"), Href: attr("href")}
		f.have |= haveLocation
	}
	return kind, err
}

// text takes the text of the element name that just ended.
func (f *fields) text(name, kind string, m *markup) (err error) {
	switch name {
	case "name":
		f.pkg.Name, err = m.line()
		f.have |= haveName
	case "arch":
		f.pkg.Arch, err = m.line()
		f.have |= haveArch
	case "checksum":
		var sum string
		sum, err = m.string()
		f.sums = append(f.sums, checksum{Type: kind, Value: sum})
		f.have |= haveSum
	}
	return err
}

// line is string, as one line without outer blanks.
func (m *markup) line() (string, error) {
	s, err := m.string()
	return oneLine(s), err
}

func oneLine(s string) string {
	s = strings.TrimSpace(s)
	if strings.ContainsFunc(s, isControl) {
		s = strings.Map(func(c rune) rune {
			if isControl(c) {
				return ' '
			}
			return c
		}, s)
	}
	return s
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// evr writes a version as rpm does: "epoch:version-release", without an epoch
// of 0.
func evr(epoch, version, release string) string {
	v := version
	if release != "" {
		v += "-" + release
	}
	if epoch != "" && epoch != "0" {
		v = epoch + ":" + v
	}
	return oneLine(v)
}

// decodeDeltas returns the decoder for a <newpackage> of prestodelta.xml or
// deltainfo.xml: the <delta> elements, each a .drpm that leads to it from one
// older version.
func decodeDeltas(dir string) decoder {
	return func(element []byte, found func(chantal.Promise) bool) error {
		m := markup{rest: element}
		var at location
		var sum checksum
		var length string
		for depth := 0; ; {
			t, err := m.next()
			if err != nil {
				return err
			}
			switch {
			case t.kind == empty && depth == 0:
				return nil
			case t.kind == opening:
				depth++
				switch {
				case depth == 2 && string(t.name) == "delta":
					at, sum, length = location{}, checksum{}, ""
				case depth == 3 && string(t.name) == "filename":
					at.Base, err = t.attr("xml:base")
				case depth == 3 && string(t.name) == "checksum":
					sum.Type, err = t.attr("type")
				}
			case t.kind == closing:
				depth--
				switch {
				case depth == 0:
					return nil
				case depth == 1 && string(t.name) == "delta":
					p, err := delta(dir, at, sum, length)
					if err != nil || !found(p) {
						return err
					}
				case depth == 2 && string(t.name) == "filename":
					at.Href, err = m.line()
				case depth == 2 && string(t.name) == "size":
					length, err = m.line()
				case depth == 2 && string(t.name) == "checksum":
					sum.Value, err = m.string()
				}
			}
			if err != nil {
				return err
			}
		}
	}
}

func delta(dir string, at location, sum checksum, length string) (p chantal.Promise, err error) {
	p.Kind = chantal.Artifact
	if p.Path, p.URL, err = at.artifact(dir); err != nil {
		return p, err
	}
	if p.Digests, err = digests(sum); err != nil {
		return p, err
	}
	p.Size, err = size(length)
	return p, err
}
