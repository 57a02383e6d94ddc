package formattest

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"chantal"
)

// lawError says which law of chantal.Format was broken, to tell it from an
// error that Parse gives by right.
type lawError struct{ why string }

func (e lawError) Error() string { return e.why }

func broken(format string, args ...any) error { return lawError{fmt.Sprintf(format, args...)} }

func isLaw(err error) bool { return errors.As(err, new(lawError)) }

// ValidPath reports whether p may be a path in a repository: relative,
// cleaned, not empty, and free of control characters. One slash at the end is
// allowed, as project pages have it.
func ValidPath(p string) bool {
	bare := strings.TrimSuffix(p, "/")
	return bare != "" && bare != "." && !strings.HasPrefix(bare, "/") &&
		bare != ".." && !strings.HasPrefix(bare, "../") && path.Clean(bare) == bare &&
		!strings.ContainsFunc(bare, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// CheckClassify returns which law f breaks when it classifies p, or nil. It
// suits fuzz targets.
func CheckClassify(f chantal.Format, p string) error {
	c := f.Classify(p)
	switch again := f.Classify(p); {
	case !reflect.DeepEqual(c, again):
		return broken("Classify(%q) gives %+v, then %+v", p, c, again)
	case c.Path != p && !ValidPath(c.Path):
		return broken("Classify(%q) has the path %q", p, c.Path)
	case c.Kind > chantal.Artifact:
		return broken("Classify(%q) has the kind %d", p, c.Kind)
	}
	canon := f.Classify(c.Path)
	if c.Path != p {
		canon.Digest = c.Digest // a spelling may name a digest that the canonical one does not
	}
	if !reflect.DeepEqual(c, canon) {
		return broken("Classify(%q) is %+v, but its own path is %+v", p, c, canon)
	}
	if c.Digest != "" {
		if d, err := chantal.ParseDigest(string(c.Digest)); err != nil || d != c.Digest {
			return broken("Classify(%q) has the digest %q", p, c.Digest)
		}
	}
	if c.Kind != chantal.Root {
		if c.Tree.Name != "" || c.Tree.Roots != nil {
			return broken("Classify(%q) is no root and has the tree %+v", p, c.Tree)
		}
		return nil
	}
	if !ValidPath(p) {
		return nil // the roots beside a path that is none need not be any either
	}
	return checkTree(f, c)
}

// checkTree tests that a root is one of its tree's roots, and that each of
// these leads to the same tree.
func checkTree(f chantal.Format, c chantal.Class) error {
	if c.Tree.Name == "" || !slices.Contains(c.Tree.Roots, c.Path) {
		return broken("the root %q is not in its tree %+v", c.Path, c.Tree)
	}
	for _, root := range c.Tree.Roots {
		if !ValidPath(root) {
			return broken("the tree of %q has the root %q", c.Path, root)
		}
		if sibling := f.Classify(root); sibling.Kind != chantal.Root || !reflect.DeepEqual(sibling.Tree, c.Tree) {
			return broken("the tree of %q has the root %q, which is %+v", c.Path, root, sibling)
		}
	}
	return nil
}

// CheckPromise returns which law p, yielded by f's Parse without an error,
// breaks, or nil. It suits fuzz targets.
func CheckPromise(f chantal.Format, p chantal.Promise) error {
	switch {
	case !ValidPath(p.Path):
		return broken("the promised path %q is not valid", p.Path)
	case p.Alt != "" && !ValidPath(p.Alt):
		return broken("%q: the alternative path %q is not valid", p.Path, p.Alt)
	case p.Kind != chantal.Meta && p.Kind != chantal.Artifact:
		return broken("%q: promised as %v", p.Path, p.Kind)
	case p.Size < -1:
		return broken("%q: promised with %d bytes", p.Path, p.Size)
	case p.Package != nil && p.Package.Name == "":
		return broken("%q: promised with a package that has no name", p.Path)
	}
	for i, d := range p.Digests {
		if e, err := chantal.ParseDigest(string(d)); err != nil || e != d {
			return broken("%q: promised with the digest %q", p.Path, d)
		}
		if i > 0 && d.Stronger(p.Digests[i-1]) {
			return broken("%q: the digests %q are not strongest first", p.Path, p.Digests)
		}
		if slices.Contains(p.Digests[:i], d) {
			return broken("%q: promised with %q twice", p.Path, d)
		}
	}
	if p.Alt != "" {
		if c := f.Classify(p.Alt); !p.Has(c.Digest) {
			return broken("%q: the alternative %q is named after %q, which is not promised", p.Path, p.Alt, c.Digest)
		}
	}
	if c := f.Classify(p.Path); c.Path != p.Path {
		return broken("the promised path %q is looked up as %q", p.Path, c.Path)
	}
	return CheckClassify(f, p.Path)
}
