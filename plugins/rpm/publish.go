package rpm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"chantal"
)

var _ chantal.Publisher = Format{}

// Publish implements chantal.Publisher. Elements of primary, filelists, other
// and updateinfo and the documents of modules are taken over as the bytes that
// they are, or left out. What goes: databases, zchunk forms, delta packages,
// and records of a type that nobody here knows which name a package that is not
// held. Checksums, compression and the form of names are those of upstream;
// bzip2 and what else nobody writes becomes gzip.
//
// A tree of .treeinfo loses the checksums of the repositories below it, and one
// that is neither stays as it is in the last source.
//
// Fields of a package are those of its element in primary.xml: "summary",
// "description", "packager", "url", "license", "vendor", "group", "buildhost",
// "sourcerpm", "source" (the name in that), "epoch", "version", "release",
// "size" and "installed-size" in bytes, "buildtime" in seconds since 1970;
// "provides", "requires" and the other relations as the names in them,
// separated by ", "; and "module", the NAME:STREAM of a document that lists the
// package.
func (Format) Publish(sources []chantal.Contents, keep chantal.Keep, out chantal.Publication) (map[string][]byte, error) {
	if len(sources) == 0 {
		return nil, errors.New("publish: there is no source")
	}
	last := sources[len(sources)-1]
	t := last.Tree()
	if len(t.Roots) == 0 || path.Base(t.Roots[0]) != repomd {
		return publishLone(last)
	}
	dir, _ := home(t.Roots[0])
	e := edition{tree: t, dir: dir, keep: keep, out: out}
	for i, c := range slices.Backward(sources) {
		s, err := newSource(c, i, dir)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", t.Roots[0], err)
		}
		e.sources = append(e.sources, s)
	}
	return e.publish()
}

// edition is one publishing of a tree.
type edition struct {
	tree    chantal.Tree
	dir     string    // that holds repodata; "" for the top
	sources []*source // the last one first, for what it says goes before what the others say
	keep    chantal.Keep
	out     chantal.Publication
	holdings
}

// source is one of the generations that are put together.
type source struct {
	chantal.Contents
	number  int // as Keep counts
	root    []byte
	others  [][]byte // what repomd.xml has beside records, raw
	records []listed
	kept    []bool            // of the elements in primary
	streams map[string]string // NAME:STREAM of each package in a module; nil until somebody asks
}

// listed is one record, and what it promises.
type listed struct {
	record
	raw []byte
	at  chantal.Promise
}

// maxRecords is how many files a repomd.xml may list; they are a few dozen.
const maxRecords = 1000

func newSource(c chantal.Contents, number int, dir string) (*source, error) {
	s := &source{Contents: c, number: number}
	split := splitter{r: bytes.NewReader(c.Root(c.Tree().Roots[0]))}
	for {
		raw, err := split.next("", "repomd")
		if err == io.EOF {
			s.root = split.root
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		raw = bytes.Clone(raw)
		if t := parseTag(raw[:tagEnd(raw)]); string(t.name) != "data" {
			s.others = append(s.others, raw)
			continue
		}
		r := listed{raw: raw}
		if err := newXMLDecoder(bytes.NewReader(raw)).Decode(&r.record); err != nil {
			return nil, err
		}
		if r.at, err = r.promise(dir); err != nil {
			return nil, err
		}
		if s.records = append(s.records, r); len(s.records) > maxRecords {
			return nil, fmt.Errorf("it lists more than %d files", maxRecords)
		}
	}
}

// part is what one source has of something that is put together.
type part struct {
	*source
	listed
}

// open returns the content. The error names the file. What is not stored is not
// left out: without advisories, modules or file lists of its packages a
// repository would say what is not true.
func (p part) open() (io.ReadCloser, error) {
	r, err := p.Open(p.at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s, which %s lists, is not stored; publish a state of which upstream has it (%w)", p.at.Path, repomd, err)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", p.at.Path, err)
	}
	return r, nil
}

// part returns the first record of s whose type is among those for which is
// reports true.
func (s *source) part(is func(kind string) bool) (p part, ok bool) {
	i := slices.IndexFunc(s.records, func(r listed) bool { return is(r.Type) })
	if i < 0 {
		return part{}, false
	}
	return part{s, s.records[i]}, true
}

// parts returns the part of each source that has one.
func (e *edition) parts(is func(kind string) bool) []part {
	var parts []part
	for _, s := range e.sources {
		if p, ok := s.part(is); ok {
			parts = append(parts, p)
		}
	}
	return parts
}

// publish returns the roots.
func (e *edition) publish() (map[string][]byte, error) {
	if err := e.choose(); err != nil {
		return nil, err
	}
	records, err := e.records()
	if err != nil {
		return nil, err
	}
	tags := make([][]byte, len(e.sources))
	for i, s := range e.sources {
		tags[i] = s.root
	}
	begin, end, err := mergeTags(tags, -1)
	if err != nil {
		return nil, err
	}
	body := append([]byte(xmlDeclaration), begin...)
	for _, raw := range slices.Concat(e.sources[0].others, records) {
		if raw != nil {
			body = fmt.Appendf(body, "\n  %s", raw)
		}
	}
	body = fmt.Appendf(body, "\n%s\n", end)
	signature, err := e.out.DetachSign(body, e.out.Date())
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", repomd, err)
	}
	root := path.Join(e.tree.Name, repomd)
	return map[string][]byte{root: body, root + ".asc": signature, root + ".key": e.out.PublicKey()}, nil
}

// writers is how many indexes are written at a time.
const writers = 4

// records writes the indexes and returns a <data> for each type that the
// sources have, those of the last source first; nil where nothing is left.
func (e *edition) records() ([][]byte, error) {
	var all []part
	for _, s := range e.sources {
		for _, r := range s.records {
			if !slices.ContainsFunc(all, func(p part) bool { return p.Type == r.Type }) {
				all = append(all, part{s, r})
			}
		}
	}
	written := make([][]byte, len(all))
	var g errgroup.Group
	g.SetLimit(writers)
	for i, p := range all {
		g.Go(func() (err error) {
			written[i], err = e.record(p)
			return err
		})
	}
	return written, g.Wait()
}

// record returns the <data> for all records of the type that first has: first
// is that of the last source which has one. It is nil where none is left.
func (e *edition) record(first part) ([]byte, error) {
	parts := e.parts(func(kind string) bool { return kind == first.Type })
	switch familyOf(first.Type) {
	case derived:
		return nil, nil
	case packages:
		return e.packages(first, parts, e.inPrimary, "metadata")
	case ofPackages:
		return e.packages(first, parts, e.byID, "filelists", "filelists-ext", "otherdata", "susedata")
	case updates:
		return e.advisories(first, parts)
	case streams:
		return e.modules(first, parts)
	case groups:
		return e.comps(first)
	}
	gone, err := e.namesGone(first)
	if err != nil || gone {
		return nil, err
	}
	return first.raw, nil
}

// family is what records have in common that become of the same thing.
type family uint8

const (
	unknown    family = iota
	derived           // made of other records: databases, zchunk forms, delta packages
	packages          // primary
	ofPackages        // one element for each package, which is called by its pkgid
	updates           // advisories
	streams           // modules
	groups            // comps, each compression as a type of its own
)

// familyOf returns the family of the records of a type.
func familyOf(kind string) family {
	if strings.HasSuffix(kind, "_zck") || strings.HasSuffix(kind, "_db") {
		return derived
	}
	switch main, _, _ := strings.Cut(kind, "."); main { // "susedata.de"
	case "prestodelta", "deltainfo":
		return derived
	case "primary":
		return packages
	case "filelists", "filelists-ext", "other", "susedata":
		return ofPackages
	case "updateinfo":
		return updates
	case "modules":
		return streams
	}
	if kind == "group" || strings.HasPrefix(kind, "group_") {
		return groups
	}
	return unknown
}

// write stores what fill writes in the place of the record old and returns its
// <data>. fill may be called again where it says so by its result.
func (e *edition) write(old listed, fill func(io.Writer) (again bool, err error)) ([]byte, error) {
	sum, algo := "sha256", "sha256"
	if d := old.at.Digests; len(d) > 0 {
		sum, algo = strings.TrimSpace(old.Checksum.Type), d[0].Algo()
	}
	base := path.Base(old.at.Path)
	unique := digestInName(base) != ""
	if unique {
		_, base, _ = strings.Cut(base, "-")
	}
	base, suffix := compression(base)
	if old.Type == "primary" && !isPrimary(base) {
		base = "primary.xml"
	}
	base += suffix
	var w chantal.Written
	for again := true; again; {
		var err error
		w, err = e.out.Write(suffix, []string{algo}, func(w io.Writer) (err error) {
			again, err = fill(w)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(w.Digests) != 1 || len(w.PlainDigests) != 1 {
		return nil, fmt.Errorf("write %s: its %s is not known", base, algo)
	}
	if unique {
		base = w.Digests[0].Hex() + "-" + base
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "<data type=\"%s\">\n", escape(old.Type))
	fmt.Fprintf(&b, "    <checksum type=\"%s\">%s</checksum>\n", escape(sum), w.Digests[0].Hex())
	fmt.Fprintf(&b, "    <open-checksum type=\"%s\">%s</open-checksum>\n", escape(sum), w.PlainDigests[0].Hex())
	fmt.Fprintf(&b, "    <location href=\"%s\"/>\n", escape(repodata+"/"+url.PathEscape(base)))
	fmt.Fprintf(&b, "    <timestamp>%d</timestamp>\n    <size>%d</size>\n", e.out.Date().Unix(), w.Size)
	fmt.Fprintf(&b, "    <open-size>%d</open-size>\n  </data>", w.PlainSize)
	return b.Bytes(), nil
}

// compression splits the suffix off a file's name, and returns the one to
// write. Nothing writes bzip2, and nobody knows what others there may be.
func compression(base string) (name, suffix string) {
	ext := path.Ext(base)
	switch ext {
	case ".gz", ".xz", ".zst":
		return strings.TrimSuffix(base, ext), ext
	case ".xml", ".yaml":
		return base, ""
	}
	if strings.Contains(strings.TrimSuffix(base, ext), ".") {
		base = strings.TrimSuffix(base, ext)
	}
	return base, ".gz"
}

// publishLone returns the roots of a tree that lists no packages.
func publishLone(c chantal.Contents) (map[string][]byte, error) {
	roots := map[string][]byte{}
	for _, name := range c.Tree().Roots {
		body := c.Root(name)
		if body == nil {
			continue
		}
		if isTreeInfo(name) {
			body = withoutRepomd(body)
		}
		roots[name] = body
	}
	return roots, nil
}

// withoutRepomd returns a .treeinfo without the checksums that it has of
// repositories below it: what is published has others, and is checked by its
// own signature.
func withoutRepomd(treeinfo []byte) []byte {
	var kept []byte
	section := ""
	for line := range bytes.Lines(treeinfo) {
		text := strings.TrimSpace(string(line))
		if strings.HasPrefix(text, "[") {
			section = text
		}
		name, _, _ := strings.Cut(text, "=")
		name = strings.TrimSpace(name)
		if section == "[checksums]" && path.Base(name) == repomd {
			continue
		}
		kept = append(kept, line...)
	}
	return kept
}
