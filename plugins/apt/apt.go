// Package apt knows Debian package repositories: suites below dists/ and flat
// ones, their roots (InRelease, Release, Release.gpg) and their indexes.
//
// It follows Debian's repository format and what apt itself does with it. It
// knows neither network nor disk nor clock: bytes and paths come in, promises
// come out.
package apt

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"

	"chantal"
)

// Format is a chantal.Format, a chantal.Locator and a chantal.Selector. The zero value is ready;
// all of its methods are safe for concurrent use.
//
// It is no chantal.Closer: of all that a Release lists only what a client
// asks for is needed, and clients ask for very little of it.
type Format struct {
	// Belongs tells without keys when a detached signature is one over other
	// bytes. Where it is nil nobody looks.
	Belongs func(signed, signature []byte) error
}

// The roots of a tree by file name, the main one first.
const (
	inRelease  = "InRelease"
	release    = "Release"
	releaseGPG = "Release.gpg"
)

// byHash maps the names of by-hash folders to algorithms; apt asks for the
// strongest one that a Release lists.
var byHash = map[string]string{"SHA512": "sha512", "SHA256": "sha256", "SHA1": "sha1", "MD5Sum": "md5"}

// byHashFolder is the other direction of byHash.
var byHashFolder = map[string]string{"sha512": "SHA512", "sha256": "SHA256", "sha1": "SHA1", "md5": "MD5Sum"}

// Classify implements chantal.Format. The path alone decides: whether an
// index is promised, and by which suite, only the roots can say.
func (*Format) Classify(p string) chantal.Class {
	canon, err := clean(p)
	if err != nil {
		return chantal.Class{Kind: chantal.Opaque, Path: p}
	}
	c := chantal.Class{Path: canon}
	if strings.HasSuffix(p, "/") {
		c.Path += "/" // a listing, which is another thing than the file
		return c
	}
	dir, name := path.Dir(canon), path.Base(canon)
	_, suite, inDists := cutDists(canon)
	if d := digestOf(canon); d != "" {
		c.Kind, c.Digest = chantal.Meta, d
		return c
	}
	switch {
	case isRoot(name) && (!inDists || !inIndexFolder(suite)):
		c.Kind, c.Tree = chantal.Root, tree(dir)
	case hasSuffix(name, ".deb", ".udeb", ".ddeb", ".dsc"):
		c.Kind = chantal.Artifact
	case inDists || isFlatIndex(dir, name):
		c.Kind = chantal.Meta
	case isSourceFile(name):
		c.Kind = chantal.Artifact
	}
	return c
}

func isRoot(name string) bool { return name == inRelease || name == release || name == releaseGPG }

// tree returns the tree whose roots lie in dir.
func tree(dir string) chantal.Tree {
	return chantal.Tree{Name: dir, Roots: []string{
		path.Join(dir, inRelease), path.Join(dir, release), path.Join(dir, releaseGPG),
	}}
}

// cutDists splits a clean path at its first folder called dists: base is what
// precedes it ("" or ending in a slash), rest what follows it.
func cutDists(p string) (base, rest string, ok bool) {
	if rest, ok := strings.CutPrefix(p, "dists/"); ok {
		return "", rest, true
	}
	base, rest, ok = strings.Cut(p, "/dists/")
	if !ok {
		return "", "", false
	}
	return base + "/", rest, true
}

// inIndexFolder reports whether one of the folders of p, a path below dists,
// is one that suites and components keep their indexes in: installers look
// for a Release in some of them that is an index and no root.
func inIndexFolder(p string) bool {
	for folder, rest, ok := strings.Cut(p, "/"); ok; folder, rest, ok = strings.Cut(rest, "/") {
		if isIndexFolder(folder) {
			return true
		}
	}
	return false
}

func isIndexFolder(folder string) bool {
	switch folder {
	case "source", "debian-installer", "i18n", "dep11", "cnf", "by-hash":
		return true
	}
	return strings.HasPrefix(folder, "binary-") || strings.HasPrefix(folder, "installer-") ||
		strings.HasPrefix(folder, "Contents") || strings.HasSuffix(folder, ".diff")
}

// digestOf returns the digest that a path …/by-hash/ALGO/HEX is named after.
func digestOf(p string) chantal.Digest {
	dir, hex := path.Split(p)
	dir, folder := path.Split(strings.TrimSuffix(dir, "/"))
	algo, ok := byHash[folder]
	if !ok || path.Base(dir) != "by-hash" {
		return ""
	}
	// Upper-case digits would be another name for the same bytes, which no
	// client uses and no upstream has.
	d, err := chantal.NewDigest(algo, hex)
	if err != nil || d.Hex() != hex {
		return ""
	}
	return d
}

// isFlatIndex reports whether a file outside dists has the name of an index.
func isFlatIndex(dir, name string) bool {
	switch plainName(name) {
	case "Packages", "Sources":
		return true
	}
	return strings.HasPrefix(name, "Contents-") || strings.HasPrefix(name, "Translation-") ||
		isDiffFolder(dir)
}

// isDiffFolder reports whether dir holds the differences between an index and
// its earlier states.
func isDiffFolder(dir string) bool {
	name, ok := strings.CutSuffix(path.Base(dir), ".diff")
	return ok && (name == "Packages" || name == "Sources" ||
		strings.HasPrefix(name, "Contents-") || strings.HasPrefix(name, "Translation-"))
}

// isSourceFile reports whether name is that of a part of a source package
// other than its .dsc.
func isSourceFile(name string) bool {
	name = strings.TrimSuffix(name, ".asc")
	return hasSuffix(name, ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst", ".tar.lzma", ".diff.gz")
}

// plainName takes the suffix off that the compression of an index adds.
func plainName(name string) string {
	for _, suffix := range [...]string{".xz", ".gz", ".bz2", ".zst", ".lzma", ".lz4"} {
		if plain, ok := strings.CutSuffix(name, suffix); ok {
			return plain
		}
	}
	return name
}

func hasSuffix(s string, suffixes ...string) bool {
	for _, suffix := range suffixes {
		if strings.HasSuffix(s, suffix) {
			return true
		}
	}
	return false
}

// clean returns the one spelling of a path that came from metadata or a
// client, or an error if it is none inside a repository. A ".." is refused
// even where it would stay inside: nobody honest writes one.
func clean(p string) (string, error) {
	for i := range len(p) {
		if p[i] < ' ' || p[i] == 0x7f {
			return "", fmt.Errorf("path %.200q has a control character", p)
		}
	}
	switch {
	case strings.HasPrefix(p, "/"):
		return "", fmt.Errorf("path %.200q is absolute", p)
	case p == ".." || strings.HasPrefix(p, "../") || strings.HasSuffix(p, "/..") || strings.Contains(p, "/../"):
		return "", fmt.Errorf("path %.200q leaves its folder", p)
	}
	p = path.Clean(p)
	if p == "." {
		return "", errors.New("path is empty")
	}
	return p, nil
}

// Parse implements chantal.Format. Roots, Packages, Sources, the Index of a
// .diff folder and the list of the installer's images promise something;
// everything else is taken as it is.
func (f *Format) Parse(p string, r io.Reader) iter.Seq2[chantal.Promise, error] {
	dir, name := path.Dir(p), path.Base(p)
	var parse func(index, io.Reader, func(chantal.Promise) bool) error
	switch plain := plainName(name); {
	case f.Classify(p).Kind == chantal.Root:
		if name == releaseGPG {
			return nil
		}
		parse = parseRoot
	case plain == "Packages":
		parse = parsePackages
	case plain == "Sources":
		parse = parseSources
	case plain == "Index" && isDiffFolder(dir):
		parse = parseDiffIndex
	case listsImages(p):
		parse = parseSums
	default:
		return nil
	}
	return func(yield func(chantal.Promise, error) bool) {
		err := parse(newIndex(p), r, func(promise chantal.Promise) bool { return yield(promise, nil) })
		if err != nil && !errors.Is(err, errStopped) {
			yield(chantal.Promise{}, fmt.Errorf("parsing %s: %w", p, err))
		}
	}
}

// errStopped ends a parse whose consumer has left.
var errStopped = errors.New("the consumer has left")
