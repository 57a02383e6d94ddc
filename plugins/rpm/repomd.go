package rpm

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"chantal"
)

// record is one <data> of repomd.xml, whatever its type. Fields that only
// zchunk-aware clients need (header-size, open-checksum) stay in the bytes.
type record struct {
	Type     string   `xml:"type,attr"`
	Location location `xml:"location"`
	Checksum checksum `xml:"checksum"`
	Size     string   `xml:"size"`
	Time     string   `xml:"timestamp"`
}

type location struct {
	Base string `xml:"base,attr"` // xml:base
	Href string `xml:"href,attr"`
}

type checksum struct {
	Type  string `xml:"type,attr"`
	Value string `xml:",chardata"`
}

// Check implements chantal.Format. With keys the detached signature has to be
// there and good; without them .asc and .key are taken as given, with a doubt
// where the signature is one over something else.
func (f Format) Check(t chantal.Tree, files map[string][]byte, keys chantal.Keyring, now time.Time) (chantal.Verdict, error) {
	if len(t.Roots) == 0 {
		return chantal.Verdict{}, fmt.Errorf("tree %q has no roots", t.Name)
	}
	root := t.Roots[0]
	if isTreeInfo(root) {
		return checkTreeInfo(t, files)
	}
	body, ok := files[root]
	if !ok {
		return chantal.Verdict{}, fmt.Errorf("%s is missing", root)
	}
	records, err := readRepomd(bytes.NewReader(body))
	if err != nil {
		return chantal.Verdict{}, fmt.Errorf("read %s: %w", root, err)
	}
	dir, _ := home(root)
	for i := range records {
		if _, err := records[i].promise(dir); err != nil {
			return chantal.Verdict{}, fmt.Errorf("read %s: %w", root, err)
		}
	}
	v := chantal.Verdict{Date: newest(records, now)}
	if keys != nil {
		signature, ok := files[root+".asc"]
		if !ok {
			return chantal.Verdict{}, fmt.Errorf("%s is not signed: %s.asc is missing", root, root)
		}
		if v.Signer, err = keys.Verify(body, signature, now); err != nil {
			return chantal.Verdict{}, fmt.Errorf("verify %s: %w", root, err)
		}
	}
	if signature, ok := files[root+".asc"]; ok && keys == nil && f.Belongs != nil {
		if err := f.Belongs(body, signature); err != nil {
			v.Doubtful = map[string]string{root + ".asc": err.Error()}
		}
	}
	for _, name := range t.Roots {
		if _, ok := files[name]; ok {
			v.Roots = append(v.Roots, name)
		}
	}
	for name := range files {
		if !slices.Contains(t.Roots, name) {
			if v.Rejected == nil {
				v.Rejected = make(map[string]string)
			}
			v.Rejected[name] = "not a root file of " + t.Name
		}
	}
	return v, nil
}

// newest returns the latest timestamp of the records. <revision> would be the
// natural place for a date, but it is any string that the maker liked. What is
// more than a day ahead of now is somebody's wrong clock, and would make every
// later state look stale, so it counts for nothing.
func newest(records []record, now time.Time) time.Time {
	var latest time.Time
	for _, r := range records {
		whole, _, _ := strings.Cut(strings.TrimSpace(r.Time), ".") // old makers wrote fractions
		sec, err := strconv.ParseInt(whole, 10, 64)
		if err != nil || sec <= 0 || sec > now.Add(24*time.Hour).Unix() {
			continue
		}
		if t := time.Unix(sec, 0).UTC(); t.After(latest) {
			latest = t
		}
	}
	return latest
}

// readRepomd reads repomd.xml to its end. The error says where it is not XML,
// not a repomd, or ends early; one that lists no file at all is an error too.
func readRepomd(r io.Reader) ([]record, error) {
	d := newXMLDecoder(r)
	var records []record
	for rooted, ended := false, false; ; {
		tok, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && ended:
			if len(records) == 0 {
				return nil, errors.New("it lists no files")
			}
			return records, nil
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			switch {
			case !rooted && tok.Name.Local == "repomd":
				rooted = true
			case !rooted || ended:
				return nil, fmt.Errorf("<%s> where <repomd> was expected", tok.Name.Local)
			case tok.Name.Local == "data":
				var rec record
				if err := d.DecodeElement(&rec, &tok); err != nil {
					return nil, err
				}
				records = append(records, rec)
			default:
				if err := d.Skip(); err != nil {
					return nil, err
				}
			}
		case xml.EndElement: // those of inner elements are consumed with them
			ended = true
		}
	}
}

// newXMLDecoder returns a decoder of UTF-8 and ASCII.
func newXMLDecoder(r io.Reader) *xml.Decoder {
	d := xml.NewDecoder(r)
	d.CharsetReader = func(charset string, input io.Reader) (io.Reader, error) {
		if strings.EqualFold(charset, "us-ascii") || strings.EqualFold(charset, "ascii") {
			return input, nil
		}
		return nil, fmt.Errorf("encoding %q is not supported", charset)
	}
	return d
}

// promise returns what the record says of its file, dir being the folder that
// holds repodata.
func (r *record) promise(dir string) (chantal.Promise, error) {
	p := chantal.Promise{Kind: chantal.Meta}
	fail := func(err error) (chantal.Promise, error) {
		return chantal.Promise{}, fmt.Errorf("record %q: %w", r.Type, err)
	}
	var err error
	if p.Path, p.URL, err = r.Location.record(dir); err != nil {
		return fail(err)
	}
	if p.Digests, err = digests(r.Checksum); err != nil {
		return fail(err)
	}
	if p.Size, err = size(r.Size); err != nil {
		return fail(err)
	}
	return p, nil
}

// record resolves the location of metadata. Clients append such an href to the
// repository's URL unchanged, so it is a piece of URL: escapes are undone, and
// a query is no part of the name.
func (l location) record(dir string) (name, at string, err error) {
	href := strings.TrimSpace(l.Href)
	base := strings.TrimSpace(l.Base)
	if isWeb(href) {
		u, err := url.Parse(href)
		if err != nil {
			return "", "", fmt.Errorf("location: %w", err)
		}
		name, err = inside(dir, repodata+"/"+path.Base(path.Clean("/"+u.Path)))
		return name, href, err
	}
	if isWeb(base) {
		at = strings.TrimSuffix(base, "/") + "/" + strings.TrimPrefix(href, "/")
		href = clamp(href)
	}
	if i := strings.IndexAny(href, "?#"); i >= 0 {
		href = href[:i]
	}
	if plain, err := url.PathUnescape(href); err == nil {
		href = plain
	}
	name, err = inside(dir, href)
	return name, at, err
}

// artifact resolves the location of a package. Clients take such an href as a
// file name and escape it themselves, so every character stands for itself.
func (l location) artifact(dir string) (name, at string, err error) {
	switch {
	case isWeb(l.Href):
		u, err := url.Parse(l.Href)
		if err != nil {
			return "", "", fmt.Errorf("location: %w", err)
		}
		name, err = inside(dir, path.Base(path.Clean("/"+u.Path)))
		return name, l.Href, err
	case isWeb(l.Base):
		escaped := (&url.URL{Path: strings.TrimLeft(l.Href, "/")}).EscapedPath()
		at = strings.TrimSuffix(l.Base, "/") + "/" + escaped
		name, err = inside(dir, clamp(l.Href))
		return name, at, err
	}
	name, err = inside(dir, l.Href)
	return name, "", err
}

// clamp cuts off what leads above the folder that href starts from. It is for
// files that live elsewhere, whose path in the repository is only a name.
func clamp(href string) string {
	if href == "" {
		return ""
	}
	return path.Clean("/" + href)
}

// isWeb reports whether s is an absolute URL that can be fetched. Others
// (SUSE's media:) say nothing of where a file is on the network.
func isWeb(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	return ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// inside joins href to dir, and fails where that leaves the repository or is
// no name for a file.
func inside(dir, href string) (string, error) {
	if href == "" {
		return "", errors.New("location has no href")
	}
	if !utf8.ValidString(href) || strings.ContainsFunc(href, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", fmt.Errorf("location %q is not a file name", href)
	}
	name := path.Join(dir, strings.TrimLeft(href, "/"))
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", fmt.Errorf("location %q leaves the repository", href)
	}
	if name == "." || name == dir || strings.HasSuffix(href, "/") {
		return "", fmt.Errorf("location %q is a folder", href)
	}
	return name, nil
}

// digests returns what checksums promise, strongest first. An algorithm that
// nobody here knows promises nothing; a value that cannot be one is an error.
func digests(sums ...checksum) ([]chantal.Digest, error) {
	var found []chantal.Digest
	for _, sum := range sums {
		algo := strings.ToLower(strings.TrimSpace(sum.Type))
		switch algo {
		case "sha":
			algo = "sha1" // createrepo's first name for it
		case "md5", "sha1", "sha224", "sha256", "sha384", "sha512":
		default:
			continue
		}
		d, err := chantal.NewDigest(algo, strings.TrimSpace(sum.Value))
		if err != nil {
			return nil, fmt.Errorf("checksum: %w", err)
		}
		if !slices.Contains(found, d) {
			found = append(found, d)
		}
	}
	slices.SortStableFunc(found, strongest)
	return found, nil
}

// strongest orders digests by what is preferred.
func strongest(a, b chantal.Digest) int {
	switch {
	case a.Stronger(b):
		return -1
	case b.Stronger(a):
		return 1
	}
	return 0
}

// size reads a size in bytes; an absent one is -1.
func size(s string) (int64, error) {
	if s = strings.TrimSpace(s); s == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("size %q is not a number of bytes", s)
	}
	return n, nil
}
