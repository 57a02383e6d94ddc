package apt

import (
	"path"
	"strings"

	"chantal"
)

// index is where a file that is being parsed lies.
type index struct {
	dir, name string
	inDists   bool
	base      string // for inDists: what precedes "dists/"; "" or ending in a slash
}

func newIndex(p string) index {
	ix := index{dir: path.Dir(p), name: path.Base(p)}
	ix.base, _, ix.inDists = cutDists(p)
	return ix
}

// place returns where the file is that an index calls filename. Below dists
// that is certain: relative to the folder that holds dists.
//
// In a flat repository filename is relative to the URI of the client's source,
// and only the client knows how much of the index's folder belongs to that
// ("deb URI dir/"). So there can be two answers, second is "" if there is but
// one: first takes the repository's base for the URI; second takes the URI to
// lie deeper, as deep as the folder's end and the filename's beginning agree.
func (ix index) place(filename string) (first, second string, err error) {
	name, err := clean(filename)
	switch {
	case err != nil:
		return "", "", err
	case ix.inDists:
		return ix.base + name, "", nil
	case ix.dir == ".":
		return name, "", nil
	}
	second = path.Join(ix.dir, withoutShared(ix.dir, name))
	if second == name {
		second = ""
	}
	return name, second, nil
}

// withoutShared takes the longest end of dir off that name begins with.
func withoutShared(dir, name string) string {
	for more := true; more; _, dir, more = strings.Cut(dir, "/") {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			return rest
		}
	}
	return name
}

// promise yields p at every place that filename may stand for. p.Path is
// ignored.
func (ix index) promise(filename string, p chantal.Promise, yield func(chantal.Promise) bool) error {
	first, second, err := ix.place(filename)
	if err != nil {
		return err
	}
	for _, p.Path = range [...]string{first, second} {
		if p.Path != "" && !yield(p) {
			return errStopped
		}
	}
	return nil
}
