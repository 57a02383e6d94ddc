package pypi

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"chantal"
)

// page is a page in the kept form (PEP 691), found but for the most part not
// decoded: the one model that promises and both representations come from.
type page struct {
	project  string // normalised; "" for the list of projects
	body     []byte
	top      []member
	meta     []member
	minor    int    // of the api-version
	name     string // as upstream writes it
	entries  span   // the array of files, or of projects
	status   string // PEP 792; "" where upstream says nothing
	reason   string
	versions span // the array of versions; zero where upstream has none
}

// decodePage checks the frame of the page at path; files and projects are
// checked as they are walked.
func decodePage(path string, body []byte) (*page, error) {
	project, ok := pageProject(path)
	if !ok {
		return nil, errors.New("no page has that path")
	}
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, errors.New("it is not JSON, or not all of it")
	}
	p := &page{project: project, body: body}
	at := space(body, 0)
	var err error
	if p.top, err = object(body, span{at, skip(body, at)}, nil); err != nil {
		return nil, err
	}
	if p.meta, err = object(body, get(p.top, "meta"), nil); err != nil {
		return nil, fmt.Errorf(`"meta": %w`, err)
	}
	version, _ := text(body, get(p.meta, "api-version"))
	if p.minor, err = minorVersion(version); err != nil {
		return nil, err
	}
	key := "projects"
	if project != "" {
		key = "files"
		if err := p.decodeProject(); err != nil {
			return nil, err
		}
	}
	if p.entries = get(p.top, key); !p.isArray(p.entries) {
		return nil, fmt.Errorf("it has no array %q", key)
	}
	return p, nil
}

// decodeProject reads what a project's page has beside its files.
func (p *page) decodeProject() error {
	p.name, _ = text(p.body, get(p.top, "name"))
	if !validName(p.name) || Normalize(p.name) != p.project {
		return fmt.Errorf("it is the page of %s, not of %q", excerpt(p.name), p.project)
	}
	if s := get(p.top, "versions"); p.isArray(s) {
		p.versions = s
	}
	if s := get(p.top, "project-status"); s.to > s.from && p.body[s.from] == '{' {
		status, err := object(p.body, s, nil)
		if err != nil {
			return fmt.Errorf(`"project-status": %w`, err)
		}
		p.status, _ = text(p.body, get(status, "status"))
		p.reason, _ = text(p.body, get(status, "reason"))
	}
	return nil
}

func (p *page) isArray(s span) bool { return s.to > s.from && p.body[s.from] == '[' }

// minorVersion returns the minor part of an API version (PEP 629). Another
// major version than 1 is an error: what it means cannot be known.
func minorVersion(version string) (int, error) {
	major, minor, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(minor)
	if major != "1" || err != nil || n < 0 {
		return 0, fmt.Errorf("the api-version is %s, not 1.x", excerpt(version))
	}
	return n, nil
}

// check walks everything that decodePage leaves unread.
func (p *page) check() error {
	if p.project == "" {
		for _, err := range p.names() {
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, err := range p.files() {
		if err != nil {
			return err
		}
	}
	return nil
}

// names yields the names in the list of projects, as upstream writes them.
func (p *page) names() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var members []member
		for s := range elements(p.body, p.entries) {
			var err error
			if members, err = object(p.body, s, members); err != nil {
				yield("", fmt.Errorf("a project: %w", err))
				return
			}
			name, ok := text(p.body, get(members, "name"))
			if !ok {
				yield("", fmt.Errorf("the project %s has no name", excerpt(s.of(p.body))))
				return
			}
			if !yield(name, nil) {
				return
			}
		}
	}
}

// offered yields the files that clients may be given: none of a quarantined
// project (PEP 792).
func (p *page) offered() iter.Seq2[*file, error] {
	if p.status == "quarantined" {
		return func(func(*file, error) bool) {}
	}
	return p.files()
}

// file is one file of a project's page.
type file struct {
	at          span // all of it
	members     []member
	name        string
	link        link
	digests     []chantal.Digest // strongest first
	size        int64            // -1 where the page does not say
	uploaded    time.Time        // zero where the page does not say
	metadataAt  span             // the value of core-metadata or its older names
	hasMetadata bool
	metadata    []chantal.Digest // of the .metadata sibling
	signed      bool             // there is a .asc sibling
	attested    *link            // where the provenance is (PEP 740); nil where the page names none
}

func (f *file) sha256() chantal.Digest { return sha256Of(f.digests) }

func sha256Of(digests []chantal.Digest) chantal.Digest {
	for _, d := range digests {
		if d.Algo() == "sha256" {
			return d
		}
	}
	return ""
}

// files yields the files in upstream's order and ends at the first error. The
// file is valid until the next one; its digests may be kept.
func (p *page) files() iter.Seq2[*file, error] {
	return func(yield func(*file, error) bool) {
		var f file
		for s := range elements(p.body, p.entries) {
			if err := f.decode(p.body, s); err != nil {
				yield(nil, err)
				return
			}
			var err error
			u, ok := text(p.body, get(f.members, "url"))
			if !ok {
				err = errors.New("it has none")
			} else {
				f.link, err = newLink(u)
			}
			if err != nil {
				yield(nil, fmt.Errorf("the URL of the file %s: %w", excerpt(f.name), err))
				return
			}
			if f.link.query {
				// Clients differ in where they append the sibling's suffix.
				f.hasMetadata, f.metadata, f.signed = false, nil, false
			}
			if !yield(&f, nil) {
				return
			}
		}
	}
}

// decode reads the file at s, all but its URL.
func (f *file) decode(b []byte, s span) (err error) {
	*f = file{at: s, members: f.members, size: -1}
	if f.members, err = object(b, s, f.members); err != nil {
		return fmt.Errorf("a file: %w", err)
	}
	f.name, _ = text(b, get(f.members, "filename"))
	if strings.ContainsRune(f.name, '/') || checkPath(f.name) != nil {
		return fmt.Errorf("%s is no file name", excerpt(f.name))
	}
	if f.digests, err = digests(b, get(f.members, "hashes")); err != nil {
		return fmt.Errorf("the hashes of the file %s: %w", excerpt(f.name), err)
	}
	if s := get(f.members, "size"); s.to > s.from {
		if n, err := strconv.ParseInt(string(s.of(b)), 10, 64); err == nil && n >= 0 {
			f.size = n
		}
	}
	if uploaded, ok := text(b, get(f.members, "upload-time")); ok {
		if t, err := time.Parse(time.RFC3339Nano, uploaded); err == nil {
			f.uploaded = t.UTC()
		}
	}
	f.signed = string(get(f.members, "gpg-sig").of(b)) == "true"
	if at, ok := text(b, get(f.members, "provenance")); ok && strings.HasPrefix(at, "https://") {
		if l, err := newLink(at); err == nil && !l.query && strings.HasSuffix(l.path, "/"+f.name+"/"+provenance) {
			f.attested = &l
		}
	}
	if err := f.decodeMetadata(b); err != nil {
		return fmt.Errorf("the metadata hashes of the file %s: %w", excerpt(f.name), err)
	}
	return nil
}

// decodeMetadata reads core-metadata, or where that is missing the names it
// had before PEP 714.
func (f *file) decodeMetadata(b []byte) (err error) {
	for _, key := range [...]string{"core-metadata", "dist-info-metadata", "data-dist-info-metadata"} {
		s := get(f.members, key)
		if s.from == s.to {
			continue
		}
		switch b[s.from] {
		case 't':
			f.hasMetadata, f.metadataAt = true, s
		case '{':
			f.hasMetadata, f.metadataAt = true, s
			f.metadata, err = digests(b, s)
		}
		return err
	}
	return nil
}

// digests reads an object of hashes, strongest first. Algorithms that are not
// known, and empty values, count as not listed; a wrong value of a known one
// is an error, for ignoring it would mean to trust the file without it.
func digests(b []byte, s span) ([]chantal.Digest, error) {
	if s.from == s.to || b[s.from] == 'n' {
		return nil, nil
	}
	var few [4]member
	members, err := object(b, s, few[:0])
	if err != nil {
		return nil, err
	}
	var all []chantal.Digest
	for _, m := range members {
		hex, ok := text(b, m.span)
		if !ok || hex == "" || !knownAlgo(m.key) {
			continue
		}
		d, err := chantal.NewDigest(strings.ReplaceAll(m.key, "_", "-"), hex)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b chantal.Digest) int {
		switch {
		case a.Stronger(b):
			return -1
		case b.Stronger(a):
			return 1
		}
		return 0
	})
	return all, nil
}

// knownAlgo says which keys of "hashes" are understood, in hashlib's spelling
// and that of the public index.
func knownAlgo(key string) bool {
	switch key {
	case "sha512", "sha384", "sha256", "sha224", "sha1", "md5", "blake2b", "blake2b_256", "blake2b-256":
		return true
	}
	return false
}
