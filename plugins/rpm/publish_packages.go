package rpm

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"strings"

	"chantal"
)

const xmlDeclaration = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

// gone, in holdings, is in the place of a source.
const gone = -1

// holdings is what is known of the packages of all sources. It is the one
// thing that grows with a repository, by some 200 bytes a package.
type holdings struct {
	byPkgid map[string]int  // where the package is held from, as an index of sources; or gone
	byNEVRA map[string]bool // whether one with these is held
	names   map[string]bool // of files that are gone, without their folders; only where somebody asks
	count   int             // of elements in primary
}

// choose reads primary of all sources and decides what is held.
func (e *edition) choose() error {
	e.holdings = holdings{byPkgid: map[string]int{}, byNEVRA: map[string]bool{}}
	if slices.ContainsFunc(e.sources, (*source).hasUnknown) {
		e.names = map[string]bool{}
	}
	for i, s := range e.sources {
		primary, ok := s.part(func(kind string) bool { return familyOf(kind) == packages })
		if !ok {
			return fmt.Errorf("%s lists no primary", repomd)
		}
		for element, err := range elements(primary, "metadata") {
			if err != nil {
				return err
			}
			p, id, err := readPackage(e.dir, element)
			if err != nil {
				return fmt.Errorf("read %s: <package> %d: %w", primary.at.Path, len(s.kept)+1, err)
			}
			held, err := e.asks(s, &p, element)
			if err != nil {
				return err
			}
			s.kept = append(s.kept, e.note(i, &p, id, held))
		}
	}
	return nil
}

// asks returns what Keep decides about a package.
func (e *edition) asks(s *source, p *chantal.Promise, element []byte) (held bool, err error) {
	var failed error
	held, err = e.keep(s.number, p, func(name string) string {
		value, err := e.field(s, p, element, name)
		failed = errors.Join(failed, err)
		return value
	})
	return held, errors.Join(err, failed)
}

// note notes whether a package of source i is to be held, and reports whether
// it is held from there: a later source may have it, too.
func (e *edition) note(i int, p *chantal.Promise, id string, held bool) bool {
	key, file := nevra(p.Package.Name, p.Package.Version, p.Package.Arch), path.Base(p.Path)
	from, known := e.byPkgid[id]
	if held && id != "" && known && from != gone && from != i {
		return false
	}
	if held {
		e.byPkgid[id] = i
		e.count++
	} else if !known && id != "" {
		e.byPkgid[id] = gone
	}
	e.byNEVRA[key] = e.byNEVRA[key] || held
	if e.names != nil {
		isGone, known := e.names[file]
		e.names[file] = !held && (isGone || !known)
	}
	return held
}

// nevra joins what makes a package the one that others mean.
func nevra(name, version, arch string) string { return name + "\x00" + version + "\x00" + arch }

// elements yields the <package> elements of p, of which the root element has to
// be one of roots; each is valid until the next.
func elements(p part, roots ...string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		r, err := p.open()
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.Close()
		s := splitter{r: r}
		for n := 1; ; n++ {
			element, err := s.next("package", roots...)
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("read %s: <package> %d: %w", p.at.Path, n, err))
				return
			}
			if !yield(element, nil) {
				return
			}
		}
	}
}

// take returns what of the n-th element of an index of s is to be written, nil
// for nothing.
type take func(s *source, n int, element []byte) ([]byte, error)

// inPrimary takes what was chosen of primary.
func (e *edition) inPrimary(s *source, n int, element []byte) ([]byte, error) {
	if n >= len(s.kept) || !s.kept[n] {
		return nil, nil
	}
	return element, nil
}

// byID takes elements of other indexes about packages that are held from s.
func (e *edition) byID(s *source, _ int, element []byte) ([]byte, error) {
	id, err := parseTag(element[:tagEnd(element)]).attr("pkgid")
	if err != nil || id == "" {
		return nil, err
	}
	if from, known := e.byPkgid[pkgid(id)]; !known || from == gone || e.sources[from] != s {
		return nil, nil
	}
	return element, nil
}

// packages writes an index with one element a package. The count of these has
// to stand at its beginning; it is known but for indexes that disagree with
// primary, which are written twice.
func (e *edition) packages(old part, parts []part, take take, roots ...string) ([]byte, error) {
	count := e.count
	return e.write(old.listed, func(w io.Writer) (again bool, err error) {
		n, err := splice(w, parts, count, "package", take, roots...)
		again, count = n != count, n
		return again, err
	})
}

// splice writes an index with what take leaves of the elements called name in
// parts, and returns how many there are. count is what it says of packages
// itself, nothing where it is negative.
func splice(w io.Writer, parts []part, count int, name string, take take, roots ...string) (n int, err error) {
	splits := make([]splitter, len(parts))
	tags := make([][]byte, len(parts))
	for i, p := range parts {
		r, err := p.open()
		if err != nil {
			return 0, err
		}
		defer r.Close()
		splits[i] = splitter{r: r}
		if err := splits[i].begin(roots...); err != nil {
			return 0, fmt.Errorf("read %s: %w", p.at.Path, err)
		}
		if c := splits[i].coding; c != "" && !strings.EqualFold(c, "utf-8") && !strings.EqualFold(c, "us-ascii") {
			return 0, fmt.Errorf("read %s: encoding %q is not supported", p.at.Path, c)
		}
		tags[i] = splits[i].root
	}
	begin, end, err := mergeTags(tags, count)
	if err != nil {
		return 0, err
	}
	b := bufio.NewWriterSize(w, chunk)
	b.WriteString(xmlDeclaration)
	b.Write(begin)
	b.WriteByte('\n')
	for i, p := range parts {
		for at := 0; ; at++ {
			element, err := splits[i].next(name, roots...)
			if err == io.EOF {
				break
			}
			if err == nil {
				element, err = take(p.source, at, element)
			}
			if err != nil {
				return 0, fmt.Errorf("read %s: <%s> %d: %w", p.at.Path, name, at+1, err)
			}
			if element != nil {
				n++
				b.Write(element)
				b.WriteByte('\n')
			}
		}
	}
	b.Write(end)
	b.WriteByte('\n')
	return n, b.Flush()
}

// mergeTags returns the tags of a root element that has the namespaces of all
// the given ones, the attributes of the first, and a count of packages unless
// that is negative.
func mergeTags(tags [][]byte, count int) (begin, end []byte, err error) {
	var keys []string
	values := map[string][]byte{}
	for i, raw := range tags {
		rest := parseTag(raw).attrs
		for {
			k, value, err := nextAttr(&rest)
			if err != nil {
				return nil, nil, err
			}
			if k == nil {
				break
			}
			key := string(k)
			namespace := key == "xmlns" || strings.HasPrefix(key, "xmlns:")
			old, there := values[key]
			switch {
			case there && namespace && !bytes.Equal(unquote(old), unquote(value)):
				return nil, nil, fmt.Errorf("%s is %s in one source and %s in another", key, old, value)
			case there, i > 0 && !namespace, key == "packages" && count >= 0:
				continue
			}
			keys, values[key] = append(keys, key), value
		}
	}
	name := rawName(tags[0])
	begin = append([]byte{'<'}, name...)
	for _, key := range keys {
		begin = fmt.Appendf(begin, " %s=%s", key, values[key])
	}
	if count >= 0 {
		begin = fmt.Appendf(begin, ` packages="%d"`, count)
	}
	return append(begin, '>'), fmt.Appendf(nil, "</%s>", name), nil
}

func unquote(value []byte) []byte { return value[1 : len(value)-1] }

// escape returns s as the value of an attribute or as text.
func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

// hasUnknown reports whether s has records of a type that nobody here knows.
func (s *source) hasUnknown() bool {
	return slices.ContainsFunc(s.records, func(r listed) bool { return familyOf(r.Type) == unknown })
}

// namesGone reports whether content that nobody here can read names a package
// that is not held: by its checksum, or by its file.
func (e *edition) namesGone(p part) (bool, error) {
	r, err := p.open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	b := bufio.NewReaderSize(r, chunk)
	const long = 512 // no name is longer
	word := make([]byte, 0, long)
	for {
		c, err := b.ReadByte()
		if err != nil && err != io.EOF {
			return false, fmt.Errorf("read %s: %w", p.at.Path, err)
		}
		if err == nil && inName(c) {
			if len(word) < long {
				word = append(word, c)
			}
			continue
		}
		if len(word) >= 32 {
			if from, known := e.byPkgid[strings.ToLower(string(word))]; known && from == gone {
				return true, nil
			}
		}
		if e.names[string(word)] {
			return true, nil
		}
		if word = word[:0]; err == io.EOF {
			return false, nil
		}
	}
}

// inName reports whether c occurs in the names of packages' files.
func inName(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("-._+~^%", c) >= 0
}
