package mirror

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"chantal"
)

// Status is what there is to say of a repository.
type Status struct {
	Reachable   bool                // upstream answered when it was asked last
	Asked       bool                // upstream was asked since the start
	Refreshed   time.Time           // when upstream last confirmed a tree; zero if not since the start
	Newest      chantal.Observation // of all trees; zero if none
	Trees       int                 // observed trees, files that stand for themselves included
	Generations int                 // of all trees
	Known       int                 // artifacts that the newest generations promise
	Cached      int                 // those of them that are stored
	Bytes       int64               // of metadata and artifacts of the newest generations that are stored
	Errors      []string            // what went wrong last, per tree
}

// Status counts what the newest generations of the repository hold. It reads
// every stored index.
func (r *Repo) Status(ctx context.Context) (Status, error) {
	names, err := r.m.Catalog.Trees(r.Name)
	if err != nil {
		return Status{}, err
	}
	s := Status{Trees: len(names), Reachable: true}
	count, err := r.counter(&s)
	if err != nil {
		return s, err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return s, ctx.Err()
		}
		t := r.observed(name)
		if t == nil {
			continue
		}
		head, err := t.peek()
		if err != nil {
			return s, err
		}
		if head.Observed.After(s.Newest.Observed) {
			s.Newest = head.Observation
		}
		all, err := r.m.Catalog.Observations(r.Name, name)
		if err != nil {
			return s, err
		}
		for _, o := range all {
			if o.Generation > 0 && firstOf(all, o) {
				s.Generations++
			}
		}
		count.head(head, t.opaque)
	}
	r.health(&s)
	return s, nil
}

// firstOf reports whether o is the first observation of its generation.
func firstOf(all []chantal.Observation, o chantal.Observation) bool {
	i := slices.IndexFunc(all, func(x chantal.Observation) bool { return x.Generation == o.Generation })
	return all[i].Observed.Equal(o.Observed)
}

// health adds what the trees in memory say of upstream.
func (r *Repo) health(s *Status) {
	for _, t := range r.trees.Values() {
		t.mu.Lock()
		if t.checked.After(s.Refreshed) {
			s.Refreshed = t.checked
		}
		s.Asked = s.Asked || !t.checked.IsZero() || !t.failed.IsZero()
		if !t.failed.IsZero() && !errors.Is(t.err, fs.ErrNotExist) {
			s.Errors = append(s.Errors, t.Name+": "+t.err.Error())
			var up *chantal.UpstreamError
			if errors.As(t.err, &up) && up.Status == 0 {
				s.Reachable = false
			}
		}
		for p, why := range t.notes {
			s.Errors = append(s.Errors, p+": "+why)
		}
		t.mu.Unlock()
	}
	if wrong := r.list.trouble(); wrong != "" {
		s.Errors = append(s.Errors, wrong)
	}
	slices.Sort(s.Errors)
}

// counter adds up what is stored, each blob once.
type counter struct {
	repo   *Repo
	status *Status
	stored map[chantal.Digest]struct{}
	seen   map[chantal.Digest]bool
}

func (r *Repo) counter(s *Status) (*counter, error) {
	stored, err := r.m.Store.Digests()
	return &counter{r, s, stored, map[chantal.Digest]bool{}}, err
}

func (c *counter) head(s state, lone bool) {
	for _, root := range s.gen.Roots {
		c.blob(root.Digest, root.Size)
	}
	if lone {
		return
	}
	l, err := c.repo.listing(s)
	if err != nil {
		c.status.Errors = append(c.status.Errors, s.Tree+": "+err.Error())
		return
	}
	for _, p := range l.all {
		c.promise(p.Digests, p.Size, p.Kind)
	}
	for _, i := range l.indexes {
		if err := c.index(&l.all[i]); err != nil {
			c.status.Errors = append(c.status.Errors, err.Error())
		}
	}
}

func (c *counter) index(p *chantal.Promise) error {
	blob, err := c.repo.stored(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines, err := c.repo.lines(p.Path, blob)
	if err != nil {
		return err
	}
	defer lines.Close()
	var digests []chantal.Digest
	for b, err := range lines.each() {
		if err != nil {
			return err
		}
		digests = digests[:0]
		for d := range bytes.FieldsSeq(b.digests) {
			digests = append(digests, chantal.Digest(d))
		}
		c.promise(digests, b.size, b.kind)
	}
	return nil
}

func (c *counter) promise(digests []chantal.Digest, size int64, kind chantal.Kind) {
	if len(digests) == 0 || c.seen[digests[0]] {
		return
	}
	c.seen[digests[0]] = true
	if kind == chantal.Artifact {
		c.status.Known++
	}
	p := chantal.Promise{Digests: digests, Size: size}
	if d := p.SHA256(); d == "" {
		blob, err := c.repo.stored(&p)
		if err != nil {
			return
		}
		size = blob.Size
	} else if _, ok := c.stored[d]; !ok {
		return
	}
	if kind == chantal.Artifact {
		c.status.Cached++
	}
	c.status.Bytes += max(size, 0)
}

func (c *counter) blob(d chantal.Digest, size int64) {
	if !c.seen[d] {
		c.seen[d] = true
		c.status.Bytes += size
	}
}

// Frozen counts what the generations of one of the repository's lines promise
// at an instant, and how much of it is stored.
func (r *Repo) Frozen(ctx context.Context, line string, at time.Time) (trees, known, present int, err error) {
	names, err := r.m.Catalog.TreesAt(line, at)
	if err != nil {
		return 0, 0, 0, err
	}
	s := Status{}
	count, err := r.counter(&s)
	if err != nil {
		return 0, 0, 0, err
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return 0, 0, 0, ctx.Err()
		}
		st, err := r.stateAt(line, name, at)
		if err != nil {
			return 0, 0, 0, err
		}
		count.head(st, st.gen.Roots[0].Path == name)
	}
	return len(names), s.Known, s.Cached, nil
}

// Explanation says what a path resolves to.
type Explanation struct {
	Kind       string           `json:"kind"`
	Tree       string           `json:"tree,omitempty"`
	Generation int              `json:"generation,omitempty"`
	Digests    []chantal.Digest `json:"digests,omitempty"`
	Size       int64            `json:"size,omitempty"`
	Observed   time.Time        `json:"observed,omitzero"`
	Stored     bool             `json:"stored"`
	Upstream   []string         `json:"upstream,omitempty"`
	Verdict    string           `json:"verdict"`
}

// Explain says what the path resolves to live, or on one of the repository's
// lines at an instant where at is not zero, without fetching anything.
func (r *Repo) Explain(ctx context.Context, path, line string, at time.Time) (Explanation, error) {
	class, err := r.classify(path)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Kind: class.Kind.String()}
	if class.Kind == chantal.Root {
		return r.explainTree(e, class.Tree.Name, class.Path, line, at)
	}
	var hit found
	if at.IsZero() {
		hit, err = (&liveView{r, Client{}}).lookup(ctx, class)
	} else {
		hit, err = (&frozenView{r, line, at, false}).lookup(ctx, class)
	}
	if err != nil {
		return e, err
	}
	if !hit.ok {
		return r.explainTree(e, class.Path, class.Path, line, at)
	}
	p := hit.promise
	e.Kind, e.Tree, e.Generation, e.Digests, e.Size = p.Kind.String(), hit.tree, hit.number, p.Digests, p.Size
	e.Observed = hit.observed
	places, err := (&flight{repo: r, promise: p}).places(r.sources())
	for _, u := range places {
		e.Upstream = append(e.Upstream, redact(u))
	}
	if _, missing := r.stored(&p); missing == nil {
		e.Stored, e.Verdict = true, "promised by "+hit.tree+" and stored"
	} else if err != nil {
		e.Verdict = "promised by " + hit.tree + ", but it cannot be fetched: " + err.Error()
	} else {
		e.Verdict = "promised by " + hit.tree + ", not stored yet: the first request fetches it"
	}
	return e, nil
}

func (r *Repo) explainTree(e Explanation, tree, path, line string, at time.Time) (Explanation, error) {
	e.Tree = tree
	for _, u := range r.upstream(path) {
		e.Upstream = append(e.Upstream, redact(u))
	}
	var s state
	var err error
	if !at.IsZero() {
		s, err = (&frozenView{r, line, at, false}).stateOf(tree)
	} else if t := r.observed(tree); t != nil {
		s, err = t.peek()
	}
	var none *NoInstantError
	switch {
	case errors.As(err, &none):
		e.Verdict = none.Error()
		return e, nil
	case err != nil:
		return e, err
	case s.zero():
		e.Verdict = "not observed yet, and no metadata that was seen promises it: the first request asks upstream"
		return e, nil
	}
	root := s.gen.Root(path)
	if root == nil {
		e.Verdict = "not part of the generation"
		return e, nil
	}
	e.Observed = s.Observed
	e.Generation, e.Stored, e.Size, e.Digests = s.Generation, true, root.Size, []chantal.Digest{root.Digest}
	e.Verdict = "observed " + instant(s.Observed) + " and stored"
	return e, nil
}

// Canonical returns the one spelling of a root's path, and path itself for
// everything else.
func (r *Repo) Canonical(path string) string {
	if c, err := r.classify(path); err == nil && c.Kind == chantal.Root {
		return c.Path
	}
	return path
}

// Shaped reports whether the path of a URL looks like that of a package.
func (m *Mirror) Shaped(path string) bool {
	for _, f := range m.Formats {
		if c := f.Classify(clean(path)); c.Kind == chantal.Artifact {
			return true
		}
	}
	return false
}

// MainRoot is the main root of a tree's newest generation.
type MainRoot struct {
	Tree    string
	Content []byte
}

// MainRoots returns the main roots of all observed trees that have real roots.
func (r *Repo) MainRoots() ([]MainRoot, error) {
	names, err := r.rootedTrees()
	if err != nil {
		return nil, err
	}
	var roots []MainRoot
	for _, name := range names {
		head, err := r.observed(name).peek()
		if err != nil {
			return nil, err
		}
		body, err := r.rootBody(&head.gen.Roots[0])
		if err != nil {
			return nil, err
		}
		roots = append(roots, MainRoot{name, body})
	}
	return roots, nil
}

// MainRootsAt returns the main roots of the trees that a line has at an
// instant.
func (r *Repo) MainRootsAt(line string, at time.Time) ([]MainRoot, error) {
	names, err := r.m.Catalog.TreesAt(line, at)
	if err != nil {
		return nil, err
	}
	var roots []MainRoot
	for _, name := range names {
		s, err := r.stateAt(line, name, at)
		if err != nil {
			return nil, err
		}
		if s.gen.Roots[0].Path == name {
			continue
		}
		body, err := r.rootBody(&s.gen.Roots[0])
		if err != nil {
			return nil, err
		}
		roots = append(roots, MainRoot{name, body})
	}
	return roots, nil
}

// Addresses returns the upstream URLs without passwords.
func (r *Repo) Addresses() []string {
	list := make([]string, 0, len(r.bases))
	for _, b := range r.bases {
		list = append(list, b.Redacted())
	}
	return list
}
