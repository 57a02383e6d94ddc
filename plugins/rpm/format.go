// Package rpm knows rpm-md repositories, as createrepo makes them and dnf, yum
// and zypper read them: repodata/repomd.xml is the root, its records name the
// metadata by digest, and primary.xml among that names the packages.
//
// It reads bytes that it is handed and answers from them alone: it opens no
// file, asks no network and looks at no clock.
package rpm

import (
	"net/url"
	"path"
	"strings"

	"chantal"
)

// Format is the rpm-md format. The zero value is ready to use, and safe for
// concurrent use. It implements chantal.Format, chantal.Locator,
// chantal.Closer, chantal.Selector, chantal.Comparer, chantal.MirrorLister and
// chantal.Publisher.
type Format struct {
	// Belongs tells without keys when a detached signature is one over other
	// bytes. Where it is nil nobody looks.
	Belongs func(signed, signature []byte) error
}

var (
	_ chantal.Format       = Format{}
	_ chantal.Locator      = Format{}
	_ chantal.Closer       = Format{}
	_ chantal.MirrorLister = Format{}
)

const (
	repodata = "repodata"
	repomd   = "repomd.xml"
)

// Classify implements chantal.Format. The root files of folder D are
// D/repodata/repomd.xml, .asc and .key; all else below a repodata folder is
// metadata, but for packages, which are artifacts wherever they lie. A treeinfo
// is the root of a tree of its own.
func (Format) Classify(name string) chantal.Class {
	c := chantal.Class{Kind: chantal.Opaque, Path: name}
	if isPackage(name) {
		c.Kind = chantal.Artifact
		return c
	}
	c.Trees = treesAbove(name)
	if len(c.Trees) == 0 {
		if isTreeInfo(name) {
			c.Kind, c.Tree = chantal.Root, installTree(path.Dir(name))
		}
		return c
	}
	dir, base := path.Split(name)
	if dir == c.Trees[0]+"/" {
		switch base {
		case repomd, repomd + ".asc", repomd + ".key":
			c.Kind, c.Tree = chantal.Root, tree(c.Trees[0])
			return c
		}
	}
	c.Kind, c.Digest = chantal.Meta, digestInName(base)
	return c
}

// tree returns the tree whose roots lie in the folder name.
func tree(name string) chantal.Tree {
	root := path.Join(name, repomd)
	return chantal.Tree{Name: name, Roots: []string{root, root + ".asc", root + ".key"}}
}

// treesAbove returns the repodata folders that hold name, innermost first.
// There may be several: a record's href can lead into a deeper folder.
func treesAbove(name string) []string {
	const folder = repodata + "/"
	var trees []string
	for end := len(name); ; {
		i := strings.LastIndex(name[:end], folder)
		if i < 0 {
			return trees
		}
		if i == 0 || name[i-1] == '/' {
			trees = append(trees, name[:i+len(repodata)])
		}
		end = i
	}
}

// home returns the folder, relative to the repository and "" for its top, that
// hrefs in the metadata file name are relative to: the one that holds the
// innermost repodata above name.
func home(name string) (dir string, ok bool) {
	trees := treesAbove(name)
	if len(trees) == 0 {
		return "", false
	}
	dir = path.Dir(trees[0])
	if dir == "." {
		dir = ""
	}
	return dir, true
}

func isPackage(name string) bool {
	return strings.HasSuffix(name, ".rpm") || strings.HasSuffix(name, ".drpm")
}

// digestInName returns the digest that createrepo's unique names begin with
// ("<hex>-primary.xml.gz"). The length tells the algorithm; repomd.xml uses
// none of those that share a length with another.
func digestInName(base string) chantal.Digest {
	hex, _, ok := strings.Cut(base, "-")
	if !ok || hex != strings.ToLower(hex) {
		return ""
	}
	algo := map[int]string{32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}[len(hex)]
	d, err := chantal.NewDigest(algo, hex)
	if err != nil {
		return ""
	}
	return d
}

// Locate implements chantal.Locator: what is above a repodata folder can be a
// repository, and nothing else in a URL shows where one begins.
func (Format) Locate(u *url.URL, _ string) []chantal.Location {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || isPackage(u.Path) {
		return nil
	}
	const folder = "/" + repodata + "/"
	var found []chantal.Location
	whole := u.EscapedPath()
	for i := strings.LastIndex(whole, folder); i >= 0; i = strings.LastIndex(whole[:i+1], folder) {
		below, err := url.PathUnescape(whole[i+1:])
		if err != nil {
			return nil
		}
		if below = path.Clean(below); !strings.HasPrefix(below, repodata+"/") {
			continue // the folder itself, or a way out of it
		}
		host := url.URL{Scheme: u.Scheme, Host: u.Host}
		found = append(found, chantal.Location{
			Base: host.String() + whole[:i+1],
			Root: repodata + "/" + repomd,
			Path: below,
		})
	}
	return found
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Prefix implements chantal.Locator.
func (Format) Prefix() string { return "" }

// Required implements chantal.Closer: without primary no client knows a
// package, so a generation that lacks it is of no use to any of them.
func (Format) Required(listed []chantal.Promise) []chantal.Promise {
	var required []chantal.Promise
	for _, p := range listed {
		if isPrimary(p.Path) {
			required = append(required, p)
		}
	}
	return required
}

// Closure implements chantal.Closer: all metadata that is listed. Clients leave
// out what they do not need today, and the next one may need it. Images, which
// a treeinfo lists, are no metadata.
func (Format) Closure(listed []chantal.Promise) []chantal.Promise {
	var all []chantal.Promise
	for _, p := range listed {
		if p.Kind != chantal.Artifact {
			all = append(all, p)
		}
	}
	return all
}

// isPrimary reports whether name is the XML form of primary in a compression
// that yields it as a whole: "primary.xml.gz", "<hex>-primary.xml.zst". The
// database and the zchunk form (their own records) are not.
func isPrimary(name string) bool { return isXML(name, "primary.xml") }

// isDelta reports whether name lists delta packages.
func isDelta(name string) bool {
	return isXML(name, "prestodelta.xml") || isXML(name, "deltainfo.xml")
}

func isXML(name, kind string) bool {
	_, ext, found := cutLast(path.Base(name), kind)
	switch ext {
	case ".zck", ".asc", ".sig", ".key", ".sqlite":
		return false
	}
	return found && strings.Count(ext, ".") <= 1 && (ext == "" || ext[0] == '.')
}
