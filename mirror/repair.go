package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
	"chantal/internal/fetch"
)

// lostError says that the store lacks a blob that it should have: that is
// damage, not an answer.
type lostError struct {
	digest   chantal.Digest
	err      error                  // what the store, or upstream, said of it
	upstream *chantal.UpstreamError // nil where trying again later does not help
}

func (e *lostError) Error() string {
	return fmt.Sprintf("the store lacks a blob that it should have: %v", e.err)
}

func (e *lostError) Unwrap() error {
	if e.upstream == nil {
		return nil // what the store lacks is not what upstream has not
	}
	return e.upstream
}

// whole makes sure that a stored blob which is not as long as it should be is
// told from a promise that is wrong: of a damaged blob nothing is left, and the
// error is a fs.ErrNotExist.
func (m *Mirror) whole(d chantal.Digest, have, want int64) error {
	if want < 0 || have == want {
		return nil
	}
	if n, ok := m.proven.Get(d); ok && n == have {
		return nil
	}
	b, _, err := m.Store.Check(m.ctx, d, nil, nil)
	if err != nil {
		return err
	}
	m.proven.Add(d, b.Size)
	return nil
}

// rootBody returns the bytes of a root file of an observed generation; from
// upstream where the store has lost them.
func (r *Repo) rootBody(root *chantal.RootFile) ([]byte, error) {
	body, err := r.m.readBlob(root.Digest, root.Size)
	if err == nil {
		return body, nil
	}
	if err := r.regain(root, err); err != nil {
		return nil, err
	}
	return r.m.readBlob(root.Digest, root.Size)
}

// regain fetches a root file again that could not be opened because of err,
// where it is lost. nil means that it is there now.
func (r *Repo) regain(root *chantal.RootFile, err error) error {
	if !lost(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(r.m.ctx, patience)
	defer cancel()
	failed := r.restoreRoot(ctx, root)
	if failed == nil {
		failed = r.m.Store.Sync(ctx) // a generation names it: as durable as it was
	}
	if failed == nil {
		r.m.Log.Info("a root that was lost has been fetched again", "repo", r.Name, "path", root.Path)
		return nil
	}
	again := &lostError{digest: root.Digest, err: fmt.Errorf("%w, and upstream does not give %s again: %w", err, root.Path, failed)}
	// Only of an upstream that cannot be asked there is hope.
	errors.As(failed, &again.upstream)
	return again
}

// lost reports whether err is about a blob that should be there.
func lost(err error) bool { return errors.As(err, new(*lostError)) }

// restoreRoot fetches a root file of an observed generation again, from every
// upstream and from where it was found. Its digest says whether it is the one.
func (r *Repo) restoreRoot(ctx context.Context, root *chantal.RootFile) error {
	if r.m.Offline {
		return &chantal.UpstreamError{URL: root.Path, Err: chantal.ErrOffline}
	}
	if ingest, ok := r.Format.(chantal.Ingester); ok && r.observedRoot(root.Path) {
		return r.restorePage(ctx, ingest, root)
	}
	p := chantal.Promise{Path: root.Path, Kind: chantal.Meta, Digests: []chantal.Digest{root.Digest}, Size: root.Size}
	err := r.ensure(ctx, p)
	if err != nil && root.URL != "" && !slices.Contains(r.upstream(root.Path), root.URL) && r.mayLink(root.URL) == nil {
		p.URL = root.URL
		if r.ensure(ctx, p) == nil {
			return nil
		}
	}
	return err
}

// observedRoot reports whether path is a root of the format, and not a file
// that stands for itself.
func (r *Repo) observedRoot(path string) bool {
	c, err := r.classify(path)
	return err == nil && c.Kind == chantal.Root
}

// restorePage is restoreRoot for roots that are not kept as upstream sends
// them.
func (r *Repo) restorePage(ctx context.Context, ingest chantal.Ingester, root *chantal.RootFile) error {
	var errs fetchErrors
	for _, u := range r.upstream(root.Path) {
		body, err := r.page(ctx, ingest, u, root)
		if err == nil {
			_, err = r.m.Store.Put(cas.Want{
				Repo: r.Name, Path: root.Path, Digests: []chantal.Digest{root.Digest}, Size: root.Size, Modified: root.Modified,
			}, body)
		}
		if err == nil {
			return nil
		}
		errs.add(err)
	}
	return errs.result(root.Path)
}

func (r *Repo) page(ctx context.Context, ingest chantal.Ingester, u string, root *chantal.RootFile) ([]byte, error) {
	resp, err := r.m.Source.Fetch(ctx, &fetch.Request{Repo: r.Name, URL: u, NoCache: true, Accept: ingest.Accept()})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := resp.Complete(); err != nil {
		return nil, err
	}
	body, err := readAll(resp, ingest.Limit(root.Path))
	if err == nil {
		body, err = ingest.Ingest(root.Path, resp.URL, resp.Type, body)
	}
	if err != nil {
		return nil, fetch.Unusable(redact(u), err)
	}
	sum := sha256.Sum256(body)
	if got := chantal.Digest("sha256:" + hex.EncodeToString(sum[:])); got != root.Digest {
		return nil, &chantal.MismatchError{Path: root.Path, Want: string(root.Digest), Got: string(got)}
	}
	return body, nil
}

// damagedIndex fetches an index again that was stored and found damaged since:
// what it lists is promised all the same. It reports whether there was one.
func (r *Repo) damagedIndex(index *chantal.Promise) (bool, error) {
	if d := index.SHA256(); d == "" || !r.m.Store.WasDamaged(d) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(r.m.ctx, patience)
	defer cancel()
	if err := r.ensure(ctx, *index); err != nil {
		gone := &lostError{digest: index.SHA256(), err: fmt.Errorf("%s was damaged on the disk, and upstream does not give it again: %w", index.Path, err)}
		errors.As(err, &gone.upstream)
		return true, gone
	}
	return true, nil
}

// Listing returns what the roots of a generation promise; nil for a file that
// stands for itself. Nothing is fetched: the error is a fs.ErrNotExist where
// the store lacks a root, and otherwise says that one cannot be read.
func (m *Mirror) Listing(g chantal.Generation) ([]chantal.Promise, error) {
	r := m.Repo(catalog.RepoOf(g.Repo))
	if r == nil {
		return nil, fmt.Errorf("there is no repository %s", g.Repo)
	}
	if g.Roots[0].Path == g.Tree {
		return nil, nil
	}
	body := map[string][]byte{}
	for _, root := range g.Roots {
		b, err := m.readBlob(root.Digest, root.Size)
		var gone *lostError
		if errors.As(err, &gone) {
			return nil, gone.err
		}
		if err != nil {
			return nil, err
		}
		body[root.Path] = b
	}
	l, err := parseListing(r.Format, g.Roots, body)
	if err != nil {
		return nil, err
	}
	return l.all, nil
}

// Index yields what an index promises, where the store has it. Nothing is
// fetched.
func (m *Mirror) Index(repo string, index chantal.Promise) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		r := m.Repo(catalog.RepoOf(repo))
		if r == nil || index.Kind != chantal.Meta || len(index.Digests) == 0 || !r.lists(index.Path) {
			return
		}
		blob, err := r.stored(&index)
		if errors.Is(err, fs.ErrNotExist) {
			// What was read of it before it was lost is still good.
			blob, err = cas.Blob{Digest: index.SHA256()}, nil
		}
		if err != nil || blob.Digest == "" {
			return
		}
		l, err := r.lines(index.Path, blob)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				yield(chantal.Promise{}, err)
			}
			return
		}
		defer l.Close()
		for line, err := range l.from(0) {
			var p chantal.Promise
			if err == nil {
				p, err = parseLine(line)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// Closure returns those of listed that a frozen generation of the repository
// always holds.
func (m *Mirror) Closure(repo string, listed []chantal.Promise) []chantal.Promise {
	if r := m.Repo(catalog.RepoOf(repo)); r != nil {
		if c, ok := r.Format.(chantal.Closer); ok {
			return c.Closure(listed)
		}
	}
	return nil
}

// Restore fetches what a repository promises, and what the store lacks of it,
// from any of its upstreams. A root is given as a promise of the kind Root. The
// errors are those of a View.
func (m *Mirror) Restore(ctx context.Context, repo string, p chantal.Promise) error {
	r := m.Repo(catalog.RepoOf(repo))
	if r == nil {
		return fmt.Errorf("there is no repository %s", repo)
	}
	if p.Kind != chantal.Root {
		return r.ensure(ctx, p)
	}
	if _, err := r.stored(&p); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.restoreRoot(ctx, &chantal.RootFile{Path: p.Path, Digest: p.SHA256(), Size: p.Size, URL: p.URL})
}
