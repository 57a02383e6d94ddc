package pypi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"chantal"
)

var _ chantal.Deriver = Format{}

// What the public index answers beside its pages: a project or a release of it
// as JSON, and what is attested of a file (PEP 740).
//
//	pypi/NAME/json
//	pypi/NAME/VERSION/json
//	integrity/NAME/VERSION/FILE/provenance
type besides struct {
	project, version, file string // normalised, as asked for, ""
}

// parseBesides reads such a path; false for others.
func parseBesides(path string) (b besides, ok bool) {
	parts := strings.Split(path, "/")
	n := len(parts)
	switch {
	case (n == 3 || n == 4) && parts[0] == "pypi" && parts[n-1] == "json":
		if n == 4 {
			b.version = parts[2]
		}
	case n == 5 && parts[0] == "integrity" && parts[n-1] == provenance:
		b.version, b.file = parts[2], parts[3]
	default:
		return b, false
	}
	b.project = Normalize(parts[1])
	return b, validName(parts[1]) && (b.file == "" || isDistribution(b.file))
}

// Derived implements chantal.Deriver.
func (Format) Derived(path string) (page string) {
	b, ok := parseBesides(path)
	if !ok {
		return ""
	}
	return pagePath(b.project)
}

// Needs implements chantal.Deriver: the metadata of a wheel of the release, or
// the provenance itself.
func (Format) Needs(path string, root []byte, before time.Time) (chantal.Promise, error) {
	b, releases, err := readReleases(path, root, chantal.Rendering{Before: before})
	if err != nil {
		return chantal.Promise{}, err
	}
	if b.file != "" {
		for _, r := range releases.all {
			for _, f := range r.files {
				if f.name == b.file && f.attested != nil {
					all := promises(b.project, f)
					return all[len(all)-1], nil
				}
			}
		}
		return chantal.Promise{}, fmt.Errorf("%s: the page names nothing of the kind: %w", path, fs.ErrNotExist)
	}
	for _, f := range releases.chosen.files {
		_, suffix := cutSuffix(f.name)
		if !f.hasMetadata || suffix != wheelSuffix {
			continue
		}
		all := promises(b.project, f)
		for i := range all {
			if strings.HasSuffix(all[i].URL, metadataSuffix) && len(all[i].Digests) > 0 {
				return all[i], nil
			}
		}
	}
	return chantal.Promise{}, nil
}

// Derive implements chantal.Deriver. The JSON has what page and metadata say;
// what only the index's database knows is null. What is true of today alone,
// known vulnerabilities and who owns the project, is not there at all: nobody
// shall take an old state's word for it, or nothing for none.
func (Format) Derive(path string, root, needed []byte, o chantal.Rendering) (body []byte, mediaType string, err error) {
	b, releases, err := readReleases(path, root, o)
	if err != nil {
		return nil, "", err
	}
	if b.file != "" {
		if needed == nil {
			return nil, "", fmt.Errorf("%s: it was never seen: %w", path, fs.ErrNotExist)
		}
		return needed, "application/vnd.pypi.integrity.v1+json", nil
	}
	doc := legacyJSON{Info: releases.info(needed), URLs: releases.describe(releases.chosen, o, b.version != "")}
	if n := serial(releases.page.body, releases.page.meta); n > 0 && o.Before.IsZero() {
		doc.LastSerial = &n
	}
	if b.version == "" {
		if doc.Releases, err = releases.describeAll(o); err != nil {
			return nil, "", fmt.Errorf("derive %s: %w", path, err)
		}
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		return nil, "", fmt.Errorf("derive %s: %w", path, err)
	}
	return out.Bytes(), "application/json", nil
}

// releases are the files of a page by version, the oldest first.
type releases struct {
	page   *page
	all    []*release
	chosen *release // the one asked for, or else the latest
}

type release struct {
	written string // the version as the page has it
	version version
	ok      bool // it is one that PEP 440 knows
	files   []*file
}

// readReleases reads the page that the file at path is made of. The error is a
// fs.ErrNotExist where it has no such release.
func readReleases(path string, root []byte, o chantal.Rendering) (b besides, r *releases, err error) {
	b, ok := parseBesides(path)
	if !ok {
		return b, nil, fmt.Errorf("derive %s: no file has that path", path)
	}
	r = &releases{}
	if r.page, err = decodePage(pagePath(b.project), root); err != nil {
		return b, nil, fmt.Errorf("derive %s: %w", path, err)
	}
	by := make(map[string]*release) // by canonical version
	for f, err := range r.page.selected(o) {
		if err != nil {
			return b, nil, fmt.Errorf("derive %s: %w", path, err)
		}
		written := versionOf(f.name, b.project)
		key := canonicalVersion(written)
		if by[key] == nil {
			by[key] = &release{written: written}
			by[key].version, by[key].ok = parseVersion(written)
			r.all = append(r.all, by[key])
		}
		kept := *f
		kept.members = slices.Clone(f.members)
		by[key].files = append(by[key].files, &kept)
	}
	if r.page.versions != (span{}) {
		for s := range elements(r.page.body, r.page.versions) {
			if written, ok := text(r.page.body, s); ok && by[canonicalVersion(written)] != nil {
				by[canonicalVersion(written)].written = written
			}
		}
	}
	slices.SortStableFunc(r.all, func(a, b *release) int { return Format{}.CompareVersions(a.written, b.written) })
	if b.version == "" {
		r.chosen = r.latest()
	} else {
		r.chosen = by[canonicalVersion(b.version)]
	}
	if r.chosen == nil {
		return b, nil, fmt.Errorf("derive %s: the page has no such release: %w", path, fs.ErrNotExist)
	}
	return b, r, nil
}

// latest returns the release that people get who ask for none: the highest, but
// pre-releases only where there is nothing else, and yanked ones after those.
func (r *releases) latest() *release {
	var latest *release
	best := -1
	for _, candidate := range r.all {
		rank := 0
		if _, yanked := candidate.yanked(r.page.body); !yanked {
			rank += 2
		}
		if candidate.ok && !candidate.version.prerelease() {
			rank++
		}
		if rank >= best {
			latest, best = candidate, rank
		}
	}
	return latest
}

// yanked reports whether all files of the release were taken back, and why the
// first was.
func (r *release) yanked(body []byte) (reason string, yanked bool) {
	for _, f := range r.files {
		why, is := f.yanked(body)
		if !is {
			return "", false
		}
		if reason == "" {
			reason = why
		}
	}
	return reason, true
}

// legacyJSON is the JSON of a project, or of a release of it.
type legacyJSON struct {
	Info       legacyInfo      `json:"info"`
	LastSerial *int64          `json:"last_serial"`
	Releases   json.RawMessage `json:"releases,omitempty"`
	URLs       []legacyFile    `json:"urls"`
}

type legacyFile struct {
	Comment        string          `json:"comment_text"`
	Digests        json.RawMessage `json:"digests"`
	Downloads      int             `json:"downloads"`
	Filename       string          `json:"filename"`
	Signed         bool            `json:"has_sig"`
	MD5            *string         `json:"md5_digest"`
	Type           string          `json:"packagetype"`
	Python         string          `json:"python_version"`
	RequiresPython *string         `json:"requires_python"`
	Size           *int64          `json:"size"`
	Uploaded       *string         `json:"upload_time"`
	UploadedISO    *string         `json:"upload_time_iso_8601"`
	URL            string          `json:"url"`
	Yanked         bool            `json:"yanked"`
	YankedReason   *string         `json:"yanked_reason"`
}

// describeAll returns all releases as an object, the oldest first.
func (r *releases) describeAll(o chantal.Rendering) (json.RawMessage, error) {
	dst := []byte{'{'}
	for _, release := range r.all {
		files, err := json.Marshal(r.describe(release, o, false))
		if err != nil {
			return nil, err
		}
		dst = append(appendKey(dst, release.written), files...)
	}
	return append(dst, '}'), nil
}

// describe returns the files of a release. deep is for the document of a
// release, which is a folder deeper than a page.
func (r *releases) describe(of *release, o chantal.Rendering, deep bool) []legacyFile {
	described := make([]legacyFile, 0, len(of.files))
	for _, f := range of.files {
		described = append(described, r.describeFile(f, o, deep))
	}
	return described
}

func (r *releases) describeFile(f *file, o chantal.Rendering, deep bool) legacyFile {
	body := r.page.body
	d := legacyFile{Digests: json.RawMessage("{}"), Downloads: -1, Filename: f.name, Signed: f.signed, URL: f.link.url}
	if hashes := get(f.members, "hashes"); hashes.to > hashes.from && body[hashes.from] == '{' {
		d.Digests = json.RawMessage(hashes.of(body))
		if members, err := object(body, hashes, nil); err == nil {
			d.MD5 = textOrNull(body, get(members, "md5"))
		}
	}
	d.Type, d.Python = distribution(f.name)
	d.RequiresPython = textOrNull(body, get(f.members, "requires-python"))
	if f.size >= 0 {
		d.Size = &f.size
	}
	if !f.uploaded.IsZero() {
		d.UploadedISO = textOrNull(body, get(f.members, "upload-time"))
		short := f.uploaded.Format("2006-01-02T15:04:05")
		d.Uploaded = &short
	}
	if o.Local {
		d.URL = string(appendLocal(nil, f))
		if deep {
			d.URL = "../" + d.URL
		}
	}
	var reason string
	if reason, d.Yanked = f.yanked(body); reason != "" {
		d.YankedReason = &reason
	}
	return d
}

func textOrNull(body []byte, s span) *string {
	value, ok := text(body, s)
	if !ok {
		return nil
	}
	return &value
}

// distribution returns what kind of distribution a file is, and for which
// Python, in the index's words.
func distribution(filename string) (kind, python string) {
	stem, suffix := cutSuffix(filename)
	switch suffix {
	case wheelSuffix:
		python, _, _ = tagsOf(filename)
		return "bdist_wheel", python
	case eggSuffix:
		_, python, _ = cutLast(stem, "-py")
		return "bdist_egg", python
	case ".exe":
		return "bdist_wininst", "any"
	case ".msi", ".rpm", ".dmg":
		return "bdist_" + suffix[1:], "any"
	case ".deb":
		return "bdist_dumb", "any"
	}
	return "sdist", "source"
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
