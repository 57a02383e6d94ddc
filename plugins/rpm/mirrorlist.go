package rpm

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"chantal"
)

// The forms of lists, named as dnf's configuration names them.
const (
	metalink   = "metalink"   // XML: mirrors, and checksums of repomd.xml
	mirrorlist = "mirrorlist" // one URL per line
)

// maxMirrors is how many mirrors of a list are kept: the preferred ones. Lists
// of big distributions have some hundred, and nobody tries them all.
const maxMirrors = 100

// rootPath is the root that lists lead to, relative to a mirror's base.
const rootPath = repodata + "/" + repomd

// Lists implements chantal.MirrorLister.
func (Format) Lists() (root string, forms []string) { return rootPath, []string{metalink, mirrorlist} }

// NamesRoots implements chantal.MirrorLister.
func (Format) NamesRoots(form string) bool { return form == metalink }

// forOneClient are the query parameters that a client sets for itself: they
// count it, or choose among mirrors, and lead to the same repository.
var forOneClient = []string{"countme", "protocol", "location", "country", "ip", "time"}

// ListURL implements chantal.MirrorLister. Parameters are sorted, as servers
// read them in any order.
func (Format) ListURL(u *url.URL) (canonical *url.URL, likely bool) {
	c := *u
	c.Host, c.Fragment, c.RawFragment = strings.ToLower(u.Host), "", ""
	var kept []string
	for param := range strings.SplitSeq(u.RawQuery, "&") {
		name, _, _ := strings.Cut(param, "=")
		if param != "" && !slices.Contains(forOneClient, strings.ToLower(name)) {
			kept = append(kept, param)
		}
	}
	slices.Sort(kept)
	c.RawQuery = strings.Join(kept, "&")
	return &c, likelyList(u)
}

// likelyList reports whether a URL looks like those that lists have: "metalink"
// or "mirrorlist" in it, a last segment that speaks of mirrors, or a query for
// a repository.
func likelyList(u *url.URL) bool {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || isPackage(u.Path) {
		return false
	}
	whole := strings.ToLower(u.Host + u.Path + "?" + u.RawQuery)
	return strings.Contains(whole, metalink) || strings.Contains(whole, mirrorlist) ||
		strings.Contains(strings.ToLower(path.Base(u.Path)), "mirror") || u.Query().Has("repo")
}

// ParseList implements chantal.MirrorLister. What begins with "<" is read as a
// metalink, anything else as a mirrorlist.
func (Format) ParseList(body []byte) (chantal.MirrorList, error) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("<")) {
		l, err := parseMetalink(bytes.NewReader(body))
		if err != nil {
			return chantal.MirrorList{}, fmt.Errorf("read %s: %w", metalink, err)
		}
		return l, nil
	}
	l, err := parseMirrorlist(body)
	if err != nil {
		return chantal.MirrorList{}, fmt.Errorf("read %s: %w", mirrorlist, err)
	}
	return l, nil
}

// parseMirrorlist reads one URL per line, "#" beginning a comment. A line that
// is no URL makes the whole something else.
func parseMirrorlist(body []byte) (chantal.MirrorList, error) {
	if !utf8.Valid(body) {
		return chantal.MirrorList{}, errors.New("it is not text")
	}
	l := chantal.MirrorList{Form: mirrorlist}
	lines := 0
	for line := range strings.Lines(string(body)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		lines++
		if scheme, _, ok := strings.Cut(line, "://"); !ok || scheme == "" || strings.ContainsAny(line, " \t<>") {
			return chantal.MirrorList{}, fmt.Errorf("the line %.60q is not a URL", line)
		}
		if base, ok := mirrorBase(line); ok && len(l.Bases) < maxMirrors && !slices.Contains(l.Bases, base) {
			l.Bases = append(l.Bases, base)
		}
	}
	if len(l.Bases) == 0 {
		return chantal.MirrorList{}, fmt.Errorf("none of its %d lines is an http or https URL that can be used", lines)
	}
	return l, nil
}

// mirrorBase returns the URL of a mirror as a base. What cannot be one is left
// out: other protocols, relative URLs, passwords, queries, variables that only
// a client could replace, and paths with "..".
func mirrorBase(raw string) (base string, ok bool) {
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.User != nil:
		return "", false
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.ContainsAny(raw, "$#"):
		return "", false
	case slices.Contains(strings.Split(u.Path, "/"), "..") || strings.ContainsFunc(u.Path, isControl) || !utf8.ValidString(u.Path):
		return "", false
	}
	u.Host = strings.ToLower(u.Host)
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
		if u.RawPath != "" {
			u.RawPath += "/"
		}
	}
	return u.String(), true
}

// RenderList implements chantal.MirrorLister.
func (Format) RenderList(l chantal.MirrorList) (body []byte, mediaType string) {
	if l.Form == mirrorlist {
		return []byte(strings.Join(l.Bases, "\n") + "\n"), "text/plain; charset=utf-8"
	}
	return renderMetalink(l), "application/metalink+xml"
}

// renderMetalink writes a metalink 3.0 with MirrorManager's extension, as dnf,
// yum and zypper read it.
func renderMetalink(l chantal.MirrorList) []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?>` + "\n")
	b.WriteString(`<metalink version="3.0" xmlns="http://www.metalinker.org/" type="dynamic" generator="chantal" ` +
		`xmlns:mm0="http://fedorahosted.org/mirrormanager">` + "\n <files>\n  <file name=\"" + repomd + "\">\n")
	for i, root := range l.Roots {
		indent := "   "
		switch i {
		case 0:
		case 1:
			b.WriteString("   <mm0:alternates>\n")
			fallthrough
		default:
			b.WriteString("    <mm0:alternate>\n")
			indent = "     "
		}
		renderRoot(&b, indent, root)
		if i > 0 {
			b.WriteString("    </mm0:alternate>\n")
		}
	}
	if len(l.Roots) > 1 {
		b.WriteString("   </mm0:alternates>\n")
	}
	b.WriteString("   <resources maxconnections=\"1\">\n")
	for i, base := range l.Bases {
		scheme, _, _ := strings.Cut(base, "://")
		fmt.Fprintf(&b, "    <url protocol=\"%s\" type=\"%s\" preference=\"%d\">", scheme, scheme, max(100-i, 1))
		writeEscaped(&b, base+rootPath)
		b.WriteString("</url>\n")
	}
	b.WriteString("   </resources>\n  </file>\n </files>\n</metalink>\n")
	return b.Bytes()
}

func renderRoot(b *bytes.Buffer, indent string, root chantal.ListedRoot) {
	if !root.Date.IsZero() {
		b.WriteString(indent + "<mm0:timestamp>" + strconv.FormatInt(root.Date.Unix(), 10) + "</mm0:timestamp>\n")
	}
	if root.Size >= 0 {
		b.WriteString(indent + "<size>" + strconv.FormatInt(root.Size, 10) + "</size>\n")
	}
	b.WriteString(indent + "<verification>\n")
	for _, d := range root.Digests {
		b.WriteString(indent + " <hash type=\"" + d.Algo() + "\">" + d.Hex() + "</hash>\n")
	}
	b.WriteString(indent + "</verification>\n")
}
