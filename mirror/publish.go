package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
)

// Publishing says what an edition of a repository is made of.
type Publishing struct {
	Sources []catalog.Frozen // of one repository; several are put together
	Keep    chantal.Keep     // decides what of them is held; nil for everything. Its source counts those that have the tree
	All     bool             // of several sources every version; else of a package only those of the last source that has it
	Resign  bool             // of one source: the indexes stay as they are, where the format can do that
	Signer  chantal.Signer
	Date    time.Time // what the roots say of their age
}

// Published is a new edition of a repository, of which no record speaks yet.
type Published struct {
	Generations []chantal.Generation
	Seen, Kept  int      // artifacts: of the sources, and of the edition; 0 where roots were signed anew alone
	Left        []string // trees of which nothing is held
}

// UnpublishableError says that a repository has no metadata that could be
// written anew.
type UnpublishableError struct{ Repo, Type string }

func (e *UnpublishableError) Error() string {
	return fmt.Sprintf("repository %s of type %s has no metadata that can be written anew", e.Repo, e.Type)
}

// ConflictError says that sources have different files under one path.
type ConflictError struct {
	Repo, Path string
	Digests    [2]chantal.Digest
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s of %s is another file in another source: %s and %s", e.Path, e.Repo, e.Digests[0], e.Digests[1])
}

// Publish writes the metadata of an edition. Everything that it names of its
// own is durable when Publish returns; who records it holds the store from
// before (cas.Store.Hold). Nothing is fetched but indexes that had been stored
// and are lost. progress tells people what is going on.
func (m *Mirror) Publish(ctx context.Context, q Publishing, progress func(string)) (Published, error) {
	r := m.Repo(q.Sources[0].Repo)
	if r == nil {
		return Published{}, fmt.Errorf("there is no repository %s", q.Sources[0].Repo)
	}
	run := &publishing{Publishing: q, repo: r, ctx: ctx, has: map[string]bool{}}
	if err := run.check(); err != nil {
		return Published{}, err
	}
	trees, err := run.trees()
	if err != nil {
		return Published{}, err
	}
	for _, name := range trees {
		if err := ctx.Err(); err != nil {
			return Published{}, err
		}
		if err := run.tree(name, progress); err != nil {
			return Published{}, fmt.Errorf("publishing %s of %s: %w", name, r.Name, err)
		}
	}
	if err := m.Store.Sync(ctx); err != nil {
		return Published{}, fmt.Errorf("storing metadata of %s: %w", r.Name, err)
	}
	run.made.Seen, run.made.Kept = int(run.seen.Load()), int(run.kept.Load())
	return run.made, nil
}

// linesMax is how many trees people are told of one by one.
const linesMax = 20

// publishing is one Publish.
type publishing struct {
	Publishing
	repo       *Repo
	ctx        context.Context
	has        map[string]bool // trees that were published
	seen, kept atomic.Int64
	made       Published
}

// check finds out whether the format can do it.
func (p *publishing) check() error {
	_, resigns := p.repo.Format.(chantal.Resigner)
	_, publishes := p.repo.Format.(chantal.Publisher)
	p.Resign = p.Resign && resigns && len(p.Sources) == 1
	if !publishes && !p.Resign {
		return &UnpublishableError{p.repo.Name, p.repo.Type}
	}
	return nil
}

// trees returns the names of all trees of the sources; the one that lists the
// others comes last.
func (p *publishing) trees() ([]string, error) {
	var all []string
	for _, f := range p.Sources {
		names, err := p.repo.m.Catalog.TreesAt(f.Line(), f.At)
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if s, ok := p.repo.Format.(chantal.Selector); ok {
		list := s.Catalog(&chantal.Selection{Projects: []string{"*"}}).Name
		if i := slices.Index(all, list); i >= 0 {
			all = append(slices.Delete(all, i, i+1), list)
		}
	}
	return all, nil
}

// tree publishes one tree.
func (p *publishing) tree(name string, progress func(string)) error {
	var states []state
	for _, f := range p.Sources {
		s, err := p.repo.stateAt(f.Line(), name, f.At)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		states = append(states, s)
	}
	last := states[len(states)-1]
	class := p.repo.Format.Classify(last.gen.Roots[0].Path)
	if class.Kind != chantal.Root {
		// A file that nothing promises stays what it is: a key, a changelog.
		// What could be a package or speak of one is not part of an edition.
		if class.Kind == chantal.Opaque {
			p.add(name, last.gen.Roots)
		}
		return nil
	}
	if len(p.has) < linesMax { // a Python index has a tree for each project
		progress("publishing " + p.repo.Name + " " + name)
	}
	roots, err := p.roots(name, states)
	if err != nil {
		return err
	}
	if roots == nil {
		p.made.Left = append(p.made.Left, name)
		return nil
	}
	p.has[name] = true
	files, err := p.store(last.gen, roots)
	if err == nil {
		p.add(name, files)
	}
	return err
}

func (p *publishing) add(tree string, roots []chantal.RootFile) {
	p.made.Generations = append(p.made.Generations, chantal.Generation{Tree: tree, Roots: roots, Date: p.Date})
}

// roots makes the roots of one tree; nil for none.
func (p *publishing) roots(name string, states []state) (map[string][]byte, error) {
	r := p.repo
	if p.Resign {
		c, err := p.contents(states[0])
		if err != nil {
			return nil, err
		}
		return r.Format.(chantal.Resigner).Resign(c.Tree(), c.bodies, p.Date, p.Signer)
	}
	var sources []chantal.Contents
	for _, s := range states {
		c, err := p.contents(s)
		if err != nil {
			return nil, err
		}
		sources = append(sources, c)
	}
	keep, err := p.keeper(sources)
	if err != nil {
		return nil, err
	}
	return r.Format.(chantal.Publisher).Publish(sources, keep, &publication{Signer: p.Signer, store: r.m.Store, repo: r.Name, tree: name, date: p.Date})
}

// store stores roots: the main one comes first.
func (p *publishing) store(was chantal.Generation, roots map[string][]byte) ([]chantal.RootFile, error) {
	var files []chantal.RootFile
	for path, body := range roots {
		b, err := p.repo.m.Store.Put(cas.Want{Repo: p.repo.Name, Path: path, Size: int64(len(body)), Modified: p.Date}, body)
		if err != nil {
			return nil, err
		}
		file := chantal.RootFile{Path: path, Digest: b.Digest, Size: b.Size, Modified: p.Date}
		if old := was.Root(path); old != nil {
			file.Type = old.Type
		}
		files = append(files, file)
	}
	order := p.repo.Format.Classify(files[0].Path).Tree.Roots
	at := func(f chantal.RootFile) int { return slices.Index(order, f.Path) }
	slices.SortFunc(files, func(a, b chantal.RootFile) int { return at(a) - at(b) })
	return files, nil
}

// keeper returns what decides about the artifacts of one tree.
func (p *publishing) keeper(sources []chantal.Contents) (chantal.Keep, error) {
	later, err := p.later(sources)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	paths := map[string]chantal.Digest{} // of what is kept, where there are several sources
	agrees := func(at string, digests []chantal.Digest) error {
		if len(sources) == 1 || len(digests) == 0 {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if had, ok := paths[at]; ok && had != digests[0] && had.Algo() == digests[0].Algo() {
			return &ConflictError{p.repo.Name, at, [2]chantal.Digest{had, digests[0]}}
		}
		paths[at] = digests[0]
		return nil
	}
	return func(source int, a *chantal.Promise, field func(string) string) (bool, error) {
		if a.Kind == chantal.Root {
			return p.has[p.repo.Format.Classify(a.Path).Tree.Name], nil
		}
		p.seen.Add(1)
		if a.Package != nil && source < len(later) && later[source][replaced(a.Package)] {
			return false, nil
		}
		if p.Keep != nil {
			if held, err := p.Keep(source, a, field); !held || err != nil {
				return false, err
			}
		}
		p.kept.Add(1)
		return true, agrees(a.Path, a.Digests)
	}, nil
}

// namedPackage is what a package is replaced by in a later source.
type namedPackage struct{ name, arch string }

func replaced(k *chantal.Package) namedPackage { return namedPackage{k.Name, k.Arch} }

// later returns, for each source but the last, which packages a later one has.
func (p *publishing) later(sources []chantal.Contents) ([]map[namedPackage]bool, error) {
	if p.All || len(sources) == 1 {
		return nil, nil
	}
	sets := make([]map[namedPackage]bool, len(sources)-1)
	had := map[namedPackage]bool{}
	for i := len(sources) - 1; i > 0; i-- {
		err := artifacts(sources[i], func(a *chantal.Promise) {
			if a.Package != nil {
				had[replaced(a.Package)] = true
			}
		})
		if err != nil {
			return nil, err
		}
		sets[i-1] = make(map[namedPackage]bool, len(had))
		for k := range had {
			sets[i-1][k] = true
		}
	}
	return sets, nil
}

// artifacts calls yield for every artifact of a generation that is known.
func artifacts(c chantal.Contents, yield func(*chantal.Promise)) error {
	for _, p := range c.Listed() {
		if p.Kind == chantal.Artifact {
			yield(&p)
			continue
		}
		for a, err := range c.Promises(p) {
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err != nil {
				return err
			}
			if a.Kind == chantal.Artifact {
				yield(&a)
			}
		}
	}
	return nil
}
