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
	base      string        // for inDists: what precedes "dists/"; "" or ending in a slash
	shared    *sharedFolder // nil but for a flat repository at the top
}

func newIndex(p string) index {
	ix := index{dir: path.Dir(p), name: path.Base(p)}
	ix.base, _, ix.inDists = cutDists(p)
	if !ix.inDists && ix.dir == "." {
		ix.shared = new(sharedFolder)
	}
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
	if p.Path = first; ix.shared != nil {
		ix.shared.add(p)
	}
	return nil
}

// finish yields what is only known when all of the index has been read.
func (ix index) finish(yield func(chantal.Promise) bool) error {
	if ix.shared == nil {
		return nil
	}
	return ix.shared.yield(yield)
}

const (
	maxHeld        = 100_000 // promises
	maxSharedDepth = 4       // folders
)

// sharedFolder finds out whether all files of an index lie in one folder.
//
// A flat repository that was recognised by its root begins in the root's
// folder, while the client's source ("deb URI dir/") may begin above it. Then
// the index stands at the top and every file is called dir/…, as seen from a
// folder that is not in the repository. From the index alone that cannot be
// told from a repository with one folder, so the files are promised without
// it as well.
type sharedFolder struct {
	held   []chantal.Promise
	folder string
	none   bool
}

func (s *sharedFolder) add(p chantal.Promise) {
	if s.none {
		return
	}
	dir := path.Dir(p.Path)
	if len(s.held) == 0 {
		s.folder = dir
	}
	for s.folder != "." && dir != s.folder && !strings.HasPrefix(dir, s.folder+"/") {
		s.folder = path.Dir(s.folder)
	}
	s.held = append(s.held, p)
	if s.folder == "." || len(s.held) > maxHeld {
		s.held, s.none = nil, true
	}
}

func (s *sharedFolder) yield(yield func(chantal.Promise) bool) error {
	if s.none || len(s.held) == 0 {
		return nil
	}
	folders := strings.Split(s.folder, "/")
	for n := 1; n <= min(len(folders), maxSharedDepth); n++ {
		cut := len(strings.Join(folders[:n], "/")) + 1
		for _, p := range s.held {
			p.Path = p.Path[cut:]
			if !yield(p) {
				return errStopped
			}
		}
	}
	return nil
}
