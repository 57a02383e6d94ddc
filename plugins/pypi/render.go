package pypi

import (
	"fmt"
	"html"
	"io/fs"
	"iter"
	"strconv"
	"strings"

	"chantal"
)

// maxMinor is the newest 1.x of the simple API that our pages follow.
const maxMinor = 4

// Render implements chantal.Renderer. Both representations come from the same
// walk over the kept page. Keys that nobody knows yet stay in JSON; those that
// begin with an underscore are the upstream server's own and go, but for
// "_last-serial", which mirrors rely on.
//
// With Before only files with an upload time before it stay, and the versions
// that such a file remains of; the list of projects cannot be told for the
// past and is fs.ErrNotExist, as is a project without any file left. Local
// links are described at appendLocal. Metadata siblings are advertised as
// core-metadata in JSON (some clients break on the older names, PEP 714), under
// both names in HTML, and not for files whose URL has a query. Provenance URLs
// always stay upstream's (PEP 740).
func (Format) Render(path string, root []byte, mediaType string, o chantal.Rendering) ([]byte, error) {
	p, err := decodePage(path, root)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", path, err)
	}
	if p.project == "" && !o.Before.IsZero() {
		return nil, fmt.Errorf("render %s: the list of projects of a past that was not observed: %w", path, fs.ErrNotExist)
	}
	t, _, _ := strings.Cut(mediaType, ";")
	var rendered []byte
	switch t {
	case jsonType:
		rendered, err = p.json(o)
	case htmlType, "text/html":
		rendered, err = p.html(o)
	default:
		err = fmt.Errorf("the media type %s is none of a simple index", excerpt(mediaType))
	}
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", path, err)
	}
	return rendered, nil
}

// selected yields the files that o leaves; none at all is an error with Before.
func (p *page) selected(o chantal.Rendering) iter.Seq2[*file, error] {
	if o.Before.IsZero() {
		return p.offered()
	}
	return func(yield func(*file, error) bool) {
		left := false
		for f, err := range p.offered() {
			if err == nil && (f.uploaded.IsZero() || !f.uploaded.Before(o.Before)) {
				continue
			}
			left = true
			if !yield(f, err) || err != nil {
				return
			}
		}
		if !left {
			yield(nil, fmt.Errorf("no file uploaded before %s: %w", o.Before.UTC().Format("2006-01-02T15:04:05Z"), fs.ErrNotExist))
		}
	}
}

// private reports whether a key is the upstream server's own.
func private(key string, o chantal.Rendering) bool {
	return strings.HasPrefix(key, "_") && (key != "_last-serial" || !o.Before.IsZero())
}

// appendMember appends a key and its value as it is, after a comma unless it
// is the object's first.
func (p *page) appendMember(dst []byte, key string, s span) []byte {
	return append(appendKey(dst, key), s.of(p.body)...)
}

func appendKey(dst []byte, key string) []byte {
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return append(appendString(dst, key), ':')
}

// json renders the page as JSON. The array of files comes before what depends
// on the files: the versions and the API version.
func (p *page) json(o chantal.Rendering) ([]byte, error) {
	dst := append(make([]byte, 0, len(p.body)+len(p.body)/3), '{')
	for _, m := range p.top {
		switch {
		case m.key == "meta", private(m.key, o):
		case p.project != "" && (m.key == "files" || m.key == "versions"):
		default:
			dst = p.appendMember(dst, m.key, m.span)
		}
	}
	minor := min(p.minor, maxMinor)
	if p.project != "" {
		remaining := map[string]bool{} // file versions as written
		sized, first := true, true
		dst = append(appendKey(dst, "files"), '[')
		for f, err := range p.selected(o) {
			if err != nil {
				return nil, err
			}
			if !first {
				dst = append(dst, ',')
			}
			dst = p.appendFile(dst, f, o)
			first = false
			sized = sized && f.size >= 0
			if !o.Before.IsZero() {
				remaining[versionOf(f.name, p.project)] = true
			}
		}
		dst = append(dst, ']')
		if !o.Before.IsZero() {
			dst = p.appendVersions(dst, remaining)
		} else if p.versions != (span{}) {
			dst = p.appendMember(dst, "versions", p.versions)
		}
		if !sized || p.versions == (span{}) {
			minor = 0 // from 1.1 on sizes and versions are mandatory (PEP 700)
		}
	}
	dst = append(appendKey(dst, "meta"), `{"api-version":"1.`...)
	dst = append(strconv.AppendInt(dst, int64(minor), 10), '"')
	for _, m := range p.meta {
		if m.key != "api-version" && !private(m.key, o) {
			dst = p.appendMember(dst, m.key, m.span)
		}
	}
	return append(dst, "}}\n"...), nil
}

// appendVersions appends those of the page's versions that files remain of.
func (p *page) appendVersions(dst []byte, remaining map[string]bool) []byte {
	if p.versions == (span{}) {
		return dst
	}
	canonical := make(map[string]bool, len(remaining))
	for version := range remaining {
		canonical[canonicalVersion(version)] = true
	}
	dst = append(appendKey(dst, "versions"), '[')
	for s := range elements(p.body, p.versions) {
		if version, ok := text(p.body, s); ok && canonical[canonicalVersion(version)] {
			if dst[len(dst)-1] != '[' {
				dst = append(dst, ',')
			}
			dst = append(dst, s.of(p.body)...)
		}
	}
	return append(dst, ']')
}

func (p *page) appendFile(dst []byte, f *file, o chantal.Rendering) []byte {
	dst = append(dst, '{')
	for _, m := range f.members {
		switch {
		case m.key == "url" && o.Local:
			dst = append(appendKey(dst, "url"), '"')
			dst = append(appendLocal(dst, f), '"') // has no character that JSON escapes
		case m.key == "core-metadata" && f.hasMetadata:
		case m.key == "core-metadata":
			dst = append(appendKey(dst, m.key), "false"...)
		case m.key == "dist-info-metadata", m.key == "data-dist-info-metadata":
		case private(m.key, o):
		default:
			dst = p.appendMember(dst, m.key, m.span)
		}
	}
	if f.hasMetadata {
		dst = p.appendMember(dst, "core-metadata", f.metadataAt)
	}
	return append(dst, '}')
}

// html renders the page as HTML (PEP 503 and its additions; the attributes for
// size and upload time are not standardised, but read by clients).
func (p *page) html(o chantal.Rendering) ([]byte, error) {
	title := "Simple index"
	if p.project != "" {
		title = "Links for " + html.EscapeString(p.name)
	}
	dst := make([]byte, 0, len(p.body)+len(p.body)/3)
	dst = append(dst, "<!DOCTYPE html>\n<html>\n<head>\n"...)
	dst = appendMeta(dst, "pypi:repository-version", "1."+strconv.Itoa(min(p.minor, maxMinor)))
	if p.status != "" {
		dst = appendMeta(dst, "pypi:project-status", p.status)
	}
	if p.reason != "" {
		dst = appendMeta(dst, "pypi:project-status-reason", p.reason)
	}
	dst = append(dst, "<title>"+title+"</title>\n</head>\n<body>\n<h1>"+title+"</h1>\n"...)
	if p.project == "" {
		for name, err := range p.names() {
			if err != nil {
				return nil, err
			}
			if validName(name) {
				dst = append(dst, `<a href="`+Normalize(name)+`/">`+name+"</a><br>\n"...)
			}
		}
	} else {
		for f, err := range p.selected(o) {
			if err != nil {
				return nil, err
			}
			dst = p.appendAnchor(dst, f, o)
		}
	}
	dst = append(dst, "</body>\n</html>\n"...)
	if serial, err := strconv.ParseUint(string(get(p.meta, "_last-serial").of(p.body)), 10, 64); err == nil && o.Before.IsZero() {
		dst = append(dst, "<!--SERIAL "+strconv.FormatUint(serial, 10)+"-->\n"...)
	}
	return dst, nil
}

func appendMeta(dst []byte, name, content string) []byte {
	return append(dst, `<meta name="`+name+`" content="`+html.EscapeString(content)+"\">\n"...)
}

func (p *page) appendAnchor(dst []byte, f *file, o chantal.Rendering) []byte {
	attribute := func(name, value string) {
		dst = append(dst, ` data-`+name+`="`...)
		dst = append(append(dst, html.EscapeString(value)...), '"')
	}
	copied := func(name, key string) {
		if value, ok := text(p.body, get(f.members, key)); ok {
			attribute(name, value)
		}
	}
	dst = append(dst, `<a href="`...)
	if o.Local {
		dst = appendLocal(dst, f)
	} else {
		dst = append(dst, html.EscapeString(f.link.url)...)
	}
	if hash := hashForm(f.digests); hash != "" {
		dst = append(append(dst, '#'), hash...)
	}
	dst = append(dst, '"')
	copied("requires-python", "requires-python")
	if s := get(f.members, "yanked"); string(s.of(p.body)) == "true" {
		attribute("yanked", "")
	} else {
		copied("yanked", "yanked")
	}
	if f.hasMetadata {
		value := hashForm(f.metadata)
		if value == "" {
			value = "true"
		}
		attribute("core-metadata", value)
		attribute("dist-info-metadata", value)
	}
	if signed := string(get(f.members, "gpg-sig").of(p.body)); signed == "true" || signed == "false" {
		attribute("gpg-sig", signed)
	}
	copied("provenance", "provenance")
	copied("upload-time", "upload-time")
	if f.size >= 0 {
		attribute("size", strconv.FormatInt(f.size, 10))
	}
	dst = append(append(dst, '>'), html.EscapeString(f.name)...)
	return append(dst, "</a><br>\n"...)
}

// hashForm is the "algo=hex" that HTML has room for: sha256, which clients
// expect, or else the strongest that Python's hashlib names the same way; ""
// for none.
func hashForm(digests []chantal.Digest) string {
	d := sha256Of(digests)
	for i := 0; d == "" && i < len(digests); i++ {
		if !strings.HasPrefix(digests[i].Algo(), "blake2b") {
			d = digests[i]
		}
	}
	if d == "" {
		return ""
	}
	return d.Algo() + "=" + d.Hex()
}
