package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"time"

	"chantal"
	"chantal/internal/catalog"
)

// Live is the view of a repository's newest consistent generations, for one
// client. What is missing is fetched.
func (r *Repo) Live(c Client) chantal.View { return &liveView{r, c} }

// At is the view of a repository as one of its lines was at an instant: its own
// name for what was observed of upstream, that of an edition (catalog.Frozen)
// for what was made of it. What is missing is fetched by its digest, as long as
// upstream has it. backdate lets trees that were first observed later be
// answered by upload time, where the format records that.
func (r *Repo) At(line string, at time.Time, backdate bool) chantal.View {
	return &frozenView{r, line, at.UTC(), backdate}
}

// NoInstantError says that a tree was first observed after the instant asked
// for, or that what it was then has been forgotten. It is a fs.ErrNotExist.
type NoInstantError struct {
	Repo, Tree string
	At, First  time.Time // First is the first instant that is known; zero where the tree was never observed
	Forgotten  bool
}

func (e *NoInstantError) Error() string {
	if e.First.IsZero() {
		return fmt.Sprintf("%s of repository %s was never observed", e.Tree, e.Repo)
	}
	if e.Forgotten {
		return fmt.Sprintf("what %s of repository %s was at %s has been forgotten, as history: says", e.Tree, e.Repo, instant(e.At))
	}
	return fmt.Sprintf("%s of repository %s was first observed at %s, after %s", e.Tree, e.Repo, instant(e.First), instant(e.At))
}

func (e *NoInstantError) Is(err error) bool { return err == fs.ErrNotExist }

// instant writes a time so that it may be used as a ref: the first whole second
// at or after it.
func instant(t time.Time) string {
	if up := t.Truncate(time.Second); up.Before(t) {
		t = up.Add(time.Second)
	}
	return t.UTC().Format(time.RFC3339)
}

type liveView struct {
	*Repo
	client Client
}

// Open finds path by what it is: a root brings its tree up to date and is
// answered from the head; what a generation promises is answered by digest;
// anything else stands for itself.
func (v *liveView) Open(ctx context.Context, path string) (*chantal.File, error) {
	class, err := v.classify(path)
	if err != nil {
		return nil, err
	}
	if class.Kind == chantal.Root {
		return v.openRoot(ctx, class)
	}
	hit, err := v.lookup(ctx, class)
	if err == nil && !hit.ok && class.Kind == chantal.Meta && v.meet(ctx, class) {
		hit, err = v.lookup(ctx, class)
	}
	if err == nil && !hit.ok && class.Kind == chantal.Artifact {
		var more bool
		if more, err = v.catchUp(ctx, class); more {
			hit, err = v.lookup(ctx, class)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case hit.ok && len(hit.promise.Digests) > 0:
		f, err := v.openPromised(ctx, hit, class)
		if err == nil && f.Cache == chantal.Miss {
			v.attest(hit.tree, hit.promise)
		}
		return f, err
	case hit.ok:
		return v.openLone(ctx, class.Path, hit.promise.URL)
	case foreign(class):
		return nil, fmt.Errorf("%s: no page of repository %s that was seen lists it: %w", class.Path, v.Name, fs.ErrNotExist)
	case class.Digest != "":
		f, err := v.openByDigest(class, v.retained)
		if errors.Is(err, fs.ErrNotExist) && class.Digest.Algo() == "sha256" {
			f, err = v.openNamed(ctx, class)
		}
		return f, err
	}
	return v.openLone(ctx, class.Path, "")
}

// openNamed opens a file that is named after its digest and that no generation
// lists: a client may have its root from before anything was observed. Upstream
// is asked for it by that name, and the name tells whether the bytes are right.
func (v *liveView) openNamed(ctx context.Context, class chantal.Class) (*chantal.File, error) {
	f, err := v.openLone(ctx, class.Path, "")
	if err != nil {
		return nil, err
	}
	if growing, ok := f.Content.(chantal.Growing); ok {
		err := growing.Wait(ctx)
		f.Close()
		if err != nil {
			return nil, err
		}
		if f, err = v.openLone(ctx, class.Path, ""); err != nil {
			return nil, err
		}
	}
	if f.Digest != class.Digest {
		f.Close()
		return nil, &chantal.MismatchError{Path: class.Path, Want: string(class.Digest), Got: string(f.Digest)}
	}
	f.ByDigest = true
	return f, nil
}

// classify is the format's Classify behind a check that the path stays inside
// the repository.
func (r *Repo) classify(path string) (chantal.Class, error) {
	if err := safe(path); err != nil {
		return chantal.Class{}, err
	}
	return r.Format.Classify(path), nil
}

// safe refuses paths that could lead out of a repository.
func safe(path string) error {
	bad := strings.HasPrefix(path, "/") || strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f })
	for seg := range strings.SplitSeq(path, "/") {
		bad = bad || seg == ".."
	}
	if bad {
		return &chantal.RefusedError{What: fmt.Sprintf("path %q", path), Why: "it would leave the repository"}
	}
	return nil
}

// foreign reports whether the path is one of Chantal's own for files on other
// hosts: these are only answered when a page lists them.
func foreign(c chantal.Class) bool { return strings.HasPrefix(c.Path, "+files/") }

func (v *liveView) openRoot(ctx context.Context, class chantal.Class) (*chantal.File, error) {
	if s, ok := v.began(class.Tree.Name, v.client); ok {
		return v.openRootOf(s, class, chantal.Hit)
	}
	t := v.tree(class.Tree)
	head, status, err := t.current(ctx, v.client.NoCache)
	if err != nil {
		return nil, err
	}
	if status == chantal.Revalidated {
		status = chantal.Hit
	}
	l, err := v.listing(head)
	if lost(err) {
		// Upstream does not have this state any more: the newest will do.
		if head, status, err = t.current(ctx, true); err == nil {
			l, err = v.listing(head)
		}
	}
	if err != nil {
		return nil, err
	}
	if class.Path != head.gen.Roots[0].Path {
		if s, ok := v.m.beside(v.Repo, head.Tree, v.client); ok {
			return v.openRootOf(s, class, status)
		}
	}
	return v.openRootOf(v.m.begin(v.Repo, head, v.client, l.plain), class, status)
}

// openRootOf opens one root file of a generation.
func (r *Repo) openRootOf(s state, class chantal.Class, status chantal.CacheStatus) (*chantal.File, error) {
	root := s.gen.Root(class.Path)
	if root == nil {
		return nil, fmt.Errorf("%s is not part of generation %d of %s: %w", class.Path, s.Generation, s.Tree, fs.ErrNotExist)
	}
	f, err := r.openBlob(root.Digest, root.Size)
	if err != nil {
		if err = r.regain(root, err); err == nil {
			f, err = r.openBlob(root.Digest, root.Size)
		}
	}
	if err != nil {
		return nil, err
	}
	f.Path, f.Kind, f.Modified, f.Type = class.Path, chantal.Root, s.Modified, root.Type
	f.Tree, f.Generation, f.Cache = s.Tree, s.Generation, status
	return f, nil
}

func (r *Repo) openBlob(d chantal.Digest, size int64) (*chantal.File, error) {
	damaged := r.m.Store.Damaged()
	content, blob := r.m.small.open(d, r.m.Now(), damaged)
	if content == nil {
		var err error
		if content, blob, err = r.m.openBlob(d, size); err != nil {
			return nil, err
		}
		content = r.m.small.keep(content, blob, r.m.Now(), damaged)
	}
	return &chantal.File{Digest: blob.Digest, Size: blob.Size, Modified: blob.Modified, Content: content}, nil
}

// openPromised opens what metadata promises: from the store, or while it is
// being fetched.
func (r *Repo) openPromised(ctx context.Context, hit found, class chantal.Class) (*chantal.File, error) {
	p := hit.promise
	index := hit.inRoot && hit.line == r.Name && p.Kind == chantal.Meta
	if index {
		r.m.wants.add(r.Name, hit.tree, wantName(r.Format, p.Path), r.m.Now())
	}
	f, err := r.openStored(&p)
	if errors.Is(err, fs.ErrNotExist) || lost(err) { // lost: it was freed between two looks
		f, err = r.openFetched(ctx, p, hit)
	}
	if err != nil {
		return nil, err
	}
	f.Path, f.Kind, f.Tree, f.Generation = class.Path, p.Kind, hit.tree, hit.number
	f.ByDigest = class.Digest != ""
	if index {
		if t := r.observed(hit.tree); t != nil {
			t.served(hit.number, wantName(r.Format, p.Path))
		}
	}
	return f, nil
}

// openStored opens what the store has of a promise; fs.ErrNotExist if nothing.
func (r *Repo) openStored(p *chantal.Promise) (*chantal.File, error) {
	if d := p.SHA256(); d != "" {
		// The usual case: nothing to look for before it is opened.
		f, err := r.openBlob(d, p.Size)
		if err == nil && (p.Size < 0 || f.Size == p.Size) {
			return f, nil
		}
		if err == nil {
			f.Close()
		}
	}
	blob, err := r.stored(p)
	if err != nil {
		return nil, err
	}
	return r.openBlob(blob.Digest, blob.Size)
}

func (r *Repo) openFetched(ctx context.Context, p chantal.Promise, hit found) (*chantal.File, error) {
	if r.m.Offline {
		return nil, &chantal.UpstreamError{URL: p.Path, Err: chantal.ErrOffline}
	}
	content, blob, err := r.fetching(p).open(ctx)
	for try := 1; try < swept && lost(err); try++ {
		content, blob, err = r.fetching(p).open(ctx)
	}
	if r.m.Now().Sub(hit.observed) < fresh {
		for pause := freshMin; atOdds(err) && pause <= freshMax; pause *= 2 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			content, blob, err = r.fetching(p).open(ctx)
		}
	}
	if errors.Is(err, chantal.ErrNotKept) && p.Kind == chantal.Artifact {
		content, blob, err = r.alone(p).open(ctx)
	}
	if err != nil {
		if hit.inRoot && hit.line == r.Name && atOdds(err) {
			r.m.work.Go(func() { r.suspect(hit.tree) })
		}
		return nil, err
	}
	if p.Kind == chantal.Meta {
		r.m.work.Go(func() { r.prepare(p) })
	}
	return &chantal.File{Digest: blob.Digest, Size: blob.Size, Modified: blob.Modified, Content: content, Cache: chantal.Miss}, nil
}

// swept is how often a file is fetched that was there when it was looked for,
// and gone when it was opened: nothing needed it until then.
const swept = 3

// Whoever publishes metadata before the files it names has them a moment
// later: within a while after a state was first seen a file that is not there,
// or not yet the right one, is asked for again, for a second and a half.
const (
	fresh    = 10 * time.Second
	freshMin = 100 * time.Millisecond
	freshMax = 800 * time.Millisecond
)

// atOdds reports whether upstream answered otherwise than its metadata says.
func atOdds(err error) bool {
	var wrong *chantal.MismatchError
	return errors.As(err, &wrong) || errors.Is(err, fs.ErrNotExist)
}

// suspect refreshes a tree whose root promises what upstream no longer has.
func (r *Repo) suspect(name string) {
	if t := r.observed(name); t != nil {
		_, _, _ = t.current(r.m.ctx, true)
	}
}

// prepare makes the derived form of an index before somebody has to wait for
// it.
func (r *Repo) prepare(p chantal.Promise) {
	if !r.lists(p.Path) {
		return
	}
	blob, err := r.stored(&p)
	if err != nil {
		return
	}
	if l, err := r.lines(p.Path, blob); err == nil {
		l.Close()
	}
}

// lists reports whether the format finds promises in files of that name.
func (r *Repo) lists(path string) bool { return r.Format.Parse(path, strings.NewReader("")) != nil }

// openByDigest opens a root that is asked for by its digest, from whatever
// generation of the likely trees has it.
func (r *Repo) openByDigest(class chantal.Class, states func(tree string) iter.Seq2[state, error]) (*chantal.File, error) {
	names, err := r.candidates(class)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		for s, err := range states(name) {
			if err != nil {
				return nil, err
			}
			for _, root := range s.gen.Roots {
				if root.Digest != class.Digest {
					continue
				}
				f, err := r.openRootOf(s, chantal.Class{Path: root.Path}, chantal.Hit)
				if err == nil {
					f.ByDigest = true
				}
				return f, err
			}
		}
	}
	return nil, fmt.Errorf("%s: no generation here lists that digest: %w", class.Path, fs.ErrNotExist)
}

type frozenView struct {
	*Repo
	line     string
	at       time.Time
	backdate bool
}

// Open is the live Open with every tree held at one instant and nothing
// refreshed.
func (v *frozenView) Open(ctx context.Context, path string) (*chantal.File, error) {
	class, err := v.classify(path)
	if err != nil {
		return nil, err
	}
	if class.Kind == chantal.Root {
		return v.openRoot(ctx, class)
	}
	hit, err := v.lookup(ctx, class)
	switch {
	case err != nil:
		return nil, err
	case hit.ok && len(hit.promise.Digests) > 0:
		return v.openPromised(ctx, hit, class)
	case class.Digest != "" && !foreign(class):
		return v.openByDigest(class, v.states)
	}
	s, err := v.stateOf(class.Path)
	if err != nil {
		return nil, err
	}
	return v.openLoneOf(s, chantal.Hit)
}

func (v *frozenView) openRoot(ctx context.Context, class chantal.Class) (*chantal.File, error) {
	s, err := v.stateOf(class.Tree.Name)
	if err == nil {
		return v.openRootOf(s, class, chantal.Hit)
	}
	_, dated := v.Format.(chantal.Renderer)
	if !v.backdate || !dated || !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	live := &liveView{v.Repo, Client{}}
	f, err := live.openRoot(ctx, class)
	if err == nil {
		f.Before, f.Generation = v.at, 0
	}
	return f, err
}

// states yields the one generation of a tree that the view shows, if any.
func (v *frozenView) states(tree string) iter.Seq2[state, error] {
	return func(yield func(state, error) bool) {
		if s, err := v.stateAt(v.line, tree, v.at); !errors.Is(err, fs.ErrNotExist) {
			yield(s, err)
		}
	}
}

// stateOf returns the generation of a tree at the view's instant.
func (v *frozenView) stateOf(name string) (state, error) {
	s, err := v.stateAt(v.line, name, v.at)
	if errors.Is(err, fs.ErrNotExist) {
		missing := &NoInstantError{Repo: v.line, Tree: name, At: v.at, Forgotten: errors.As(err, new(*catalog.ForgottenError))}
		missing.First, _ = v.m.Catalog.Since(v.line, name)
		return state{}, missing
	}
	return s, err
}
