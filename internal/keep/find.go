package keep

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"chantal"
	"chantal/internal/catalog"
)

const (
	restorers = 8 // files fetched side by side
	rounds    = 5 // a root, its indexes, what they list, and again for what came late
	places    = 8 // promises that are tried for one file
)

// needs calls use for every file that generations promise: their roots, what
// these list, and with deep what the indexes list. must says that a generation
// cannot be served without it, and cannot lack it by what was freed. problem is told what cannot be read.
func (v *verification) needs(ctx context.Context, groups []*group, deep bool, problem func(string), use func(g *group, p chantal.Promise, must bool) error) error {
	for _, g := range groups {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, root := range g.Roots {
			p := chantal.Promise{Path: root.Path, Kind: chantal.Root, Digests: []chantal.Digest{root.Digest}, Size: root.Size, URL: root.URL}
			// A file that stands for itself may have been evicted.
			if err := use(g, p, g.frozen || !lone(g.Generation)); err != nil {
				return err
			}
		}
		listed, err := v.Promises.Listing(g.Generation)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the root is a finding of its own
		}
		if err != nil {
			problem(g.title() + " cannot be read: " + err.Error())
			continue
		}
		must := map[string]bool{}
		if g.frozen {
			for _, p := range v.Promises.Closure(g.Repo, listed) {
				must[p.Path] = !g.lacks[p.Path]
			}
		}
		for _, p := range listed {
			if err := use(g, p, must[p.Path] || g.sealed && p.Kind == chantal.Artifact); err != nil {
				return err
			}
			if !deep && !g.sealed {
				continue
			}
			for q, err := range v.Promises.Index(g.Repo, p) {
				if err != nil {
					problem(p.Path + " of " + g.title() + " cannot be read: " + err.Error())
					break
				}
				if err := use(g, q, g.sealed && q.Kind == chantal.Artifact); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (v *verification) problem(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.Contains(v.report.Problems, text) {
		v.report.Problems = append(v.report.Problems, text)
	}
}

// sum returns the SHA-256 of what a repository promises; fs.ErrNotExist where
// it is promised with other digests and was never stored.
func (v *verification) sum(repo string, p chantal.Promise) (chantal.Digest, error) {
	if d := p.SHA256(); d != "" {
		return d, nil
	}
	err := error(fs.ErrNotExist)
	for _, d := range p.Digests {
		var to chantal.Digest
		if to, err = v.Store.Resolve(repo, d); err == nil {
			return to, nil
		}
	}
	return "", err
}

// find compares what is needed with what is there.
func (v *verification) find(ctx context.Context) error {
	lost, err := v.Store.Lost()
	if err != nil {
		return err
	}
	for d, aliases := range v.aliases {
		// Whatever has an alias was stored.
		if _, known := lost[d]; !known && len(aliases) > 0 {
			if _, err := v.Store.Find("", d); errors.Is(err, fs.ErrNotExist) {
				lost[d] = false
			}
		}
	}
	v.mu.Lock()
	for d := range v.damaged {
		if d.Algo() != "sha256" {
			lost[d] = true // an alias: the file cannot be found by that digest
		}
	}
	v.mu.Unlock()
	v.found = map[chantal.Digest]*finding{}
	err = v.needs(ctx, v.groups, len(lost) > 0, v.problem, func(g *group, p chantal.Promise, must bool) error {
		d, gone, corrupt := v.gone(catalog.RepoOf(g.Repo), p, must, lost)
		if gone {
			f := v.note(d, corrupt)
			if f.Repo == "" {
				f.Repo, f.Path = g.Repo, p.Path
			}
			for _, ref := range g.refs {
				if !slices.Contains(f.Refs, ref) {
					f.Refs = append(f.Refs, ref)
				}
			}
			slices.Sort(f.Refs)
			f.offer(g.Repo, p)
		}
		return nil
	})
	// Damage that costs nobody anything is damage all the same.
	for _, d := range slices.Sorted(maps.Keys(v.damaged)) {
		if _, err := v.Store.Find("", d); d.Algo() != "sha256" || errors.Is(err, fs.ErrNotExist) {
			v.note(d, true)
		}
	}
	return err
}

// gone reports whether what p promises was there once, or has to be, and is not
// there. d is the digest that it is told by.
func (v *verification) gone(repo string, p chantal.Promise, must bool, lost map[chantal.Digest]bool) (d chantal.Digest, gone, corrupt bool) {
	if len(p.Digests) == 0 {
		return "", false, false
	}
	d, err := v.sum(repo, p)
	if err != nil {
		for _, other := range p.Digests {
			if corrupt, was := lost[other]; was {
				return other, true, corrupt
			}
		}
		return p.Digests[0], must, false
	}
	corrupt, was := lost[d]
	if !was && !must {
		return d, false, false
	}
	_, err = v.Store.Find("", d)
	return d, errors.Is(err, fs.ErrNotExist), corrupt
}

func (v *verification) note(d chantal.Digest, corrupt bool) *finding {
	f := v.found[d]
	if f == nil {
		f = &finding{Finding: Finding{Digest: d, Refs: []string{}}, corrupt: corrupt}
		v.found[d] = f
	}
	return f
}

// offer adds a promise that may bring the file back.
func (f *finding) offer(repo string, p chantal.Promise) {
	same := func(s source) bool { return s.repo == repo && s.promise.Path == p.Path && s.promise.URL == p.URL }
	if len(f.sources) < places && !slices.ContainsFunc(f.sources, same) {
		f.sources = append(f.sources, source{repo, p})
	}
}

// repair fetches what was found again. What a root or an index lists is known
// only when that is back, so it takes rounds.
func (v *verification) repair(ctx context.Context) error {
	all := map[chantal.Digest]*finding{}
	for range rounds {
		if err := v.search(ctx); err != nil {
			return err
		}
		again, err := v.restore(ctx)
		if err != nil {
			return err
		}
		maps.Copy(all, v.found) // by now it may be known who needs a file
		if !again {
			break
		}
		if !v.Blobs {
			if err := v.read(ctx); err != nil {
				return err
			}
		}
		if err := v.find(ctx); err != nil {
			return err
		}
		maps.DeleteFunc(v.found, func(d chantal.Digest, _ *finding) bool { return v.repaired[d] })
		if len(v.found) == 0 {
			break
		}
	}
	v.found = all
	return v.Store.Sync(ctx)
}

// search looks for other promises of what was found: any repository that
// promises the same digest will do.
func (v *verification) search(ctx context.Context) error {
	if len(v.found) == 0 {
		return nil
	}
	return v.needs(ctx, grouped(v.Everything), true, v.problem, func(g *group, p chantal.Promise, _ bool) error {
		for _, d := range p.Digests {
			if f := v.found[d]; f != nil && (d.Strong() || catalog.RepoOf(g.Repo) == catalog.RepoOf(f.Repo)) {
				f.offer(g.Repo, p)
			}
		}
		return nil
	})
}

// restore fetches everything found from one source after the other. again
// reports whether more may be known now.
func (v *verification) restore(ctx context.Context) (again bool, err error) {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(restorers)
	for _, d := range slices.Sorted(maps.Keys(v.found)) {
		f := v.found[d]
		work.Go(func() error {
			why, lists := v.fetch(ctx, f)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			f.Reason = why
			if why == "" {
				v.repaired[d] = true
				again = again || lists
			}
			return nil
		})
	}
	return again, work.Wait()
}

// fetch brings one file back, or says why that is not possible. lists reports
// that it may list others.
func (v *verification) fetch(ctx context.Context, f *finding) (why string, lists bool) {
	why = "nothing that is kept promises it"
	for _, s := range f.sources {
		err := v.Promises.Restore(ctx, s.repo, s.promise)
		if err == nil {
			return "", s.promise.Kind != chantal.Artifact
		}
		why = err.Error()
	}
	return why, false
}
