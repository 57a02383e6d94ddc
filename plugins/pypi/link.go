package pypi

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// link is where a file lives, taken apart.
type link struct {
	url   string // absolute, http or https, without user and fragment
	host  string // see canonicalHost
	path  string // decoded, without the leading slash, no empty segments
	query bool   // the URL has a query, which path does not show
}

// newLink takes an absolute URL apart. The error says why it cannot be a file
// that a page may link to.
func newLink(s string) (link, error) {
	u, err := url.Parse(s)
	if err != nil {
		return link{}, errors.New("it is no URL") // the reason quotes the URL in full
	}
	return linkOf(u, s)
}

// resolve takes a URL apart that may be relative to base. Dot segments are
// resolved, and a user is dropped: credentials are the configuration's to
// give, never a page's.
func resolve(base *url.URL, s string) (l link, fragment string, err error) {
	u, err := base.Parse(strings.Trim(s, " \t\r\n\f"))
	if err != nil {
		return link{}, "", errors.New("it is no URL")
	}
	fragment = u.Fragment
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	l, err = linkOf(u, u.String())
	return l, fragment, err
}

func linkOf(u *url.URL, text string) (link, error) {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return link{}, fmt.Errorf("the scheme %s is neither http nor https", excerpt(u.Scheme))
	case u.Opaque != "":
		return link{}, errors.New("it has no host")
	}
	if u.User != nil || u.Fragment != "" || strings.Contains(text, "#") {
		bare := *u
		bare.User, bare.Fragment, bare.RawFragment = nil, "", ""
		text = bare.String()
	}
	host, ok := canonicalHost(u.Host)
	if !ok {
		return link{}, fmt.Errorf("the host %s is not usable", excerpt(u.Host))
	}
	path := squeeze(u.Path)
	if err := checkPath(path); err != nil {
		return link{}, err
	}
	return link{url: text, host: host, path: path, query: u.RawQuery != "" || u.ForceQuery}, nil
}

// canonicalHost writes a host as it is in the paths of files: in lower case and
// without the usual ports (a path does not tell the scheme, so both go with
// either scheme). ok is false for what is neither name nor address with an
// optional port, and for the two words that stand in the place of a host in
// links.
func canonicalHost(host string) (canonical string, ok bool) {
	name, port := strings.ToLower(host), ""
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, ']') {
		name, port = name[:i], name[i+1:]
	}
	if name == "" || name == "-" || name == "sha256" || name[0] == '.' || len(name) > 255 || len(port) > 5 {
		return "", false
	}
	address := name[0] == '[' && name[len(name)-1] == ']'
	for i := range len(name) {
		c := name[i]
		inside := address && (c == ':' || c == '[' && i == 0 || c == ']' && i == len(name)-1)
		if !inside && !alphanumeric(c) && !separator(c) {
			return "", false
		}
	}
	if strings.Trim(port, "0123456789") != "" {
		return "", false
	}
	if port == "" || port == "80" || port == "443" {
		return name, true
	}
	return name + ":" + port, true
}

// squeeze drops the empty segments of a path, but for one at the end.
func squeeze(path string) string {
	path = strings.TrimLeft(path, "/")
	if !strings.Contains(path, "//") {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if path[i] != '/' || path[i-1] != '/' {
			b.WriteByte(path[i])
		}
	}
	return b.String()
}

// checkPath reports why a decoded path may not name a file: it is a folder, is
// not clean, would leave its place, or has characters that no file name has.
func checkPath(path string) error {
	if path == "" || strings.HasSuffix(path, "/") {
		return errors.New("the path names no file")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return fmt.Errorf("the path has the segment %q", segment)
		}
	}
	return checkCharacters(path)
}

func checkCharacters(s string) error {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f || c == '\\' {
			return fmt.Errorf("it has the character %q", c)
		}
	}
	if !utf8.ValidString(s) {
		return errors.New("it is not UTF-8")
	}
	return nil
}

// appendLocal appends the link to a file relative to its project's page, and so
// independent of the repository's name, the ref and the host: clients resolve
// it within the ref they came by. It is reversible: what follows the digest is
// upstream's URL without the scheme (and without a query, which Parse's
// promise has). Every byte but unreserved ones is percent-encoded.
func appendLocal(dst []byte, f *file) []byte {
	dst = append(dst, "../../"+files...)
	if d := f.sha256(); d != "" {
		dst = append(dst, "sha256/"...)
		dst = append(dst, d.Hex()...)
	} else {
		dst = append(dst, '-')
	}
	dst = append(dst, '/')
	dst = append(dst, f.link.host...)
	dst = append(dst, '/')
	const digits = "0123456789ABCDEF"
	for i := range len(f.link.path) {
		switch c := f.link.path[i]; {
		case alphanumeric(c), separator(c), c == '~', c == '/':
			dst = append(dst, c)
		default:
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}
