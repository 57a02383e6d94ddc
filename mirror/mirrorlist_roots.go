package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/fetch"
)

// vouch is what a list of mirrors says of a root, for one refresh.
type vouch struct {
	roots []chantal.ListedRoot // the present one first
	had   chantal.Digest       // the head's main root; "" for none
	older bool                 // older ones are taken, too

	stale   []place // met: mirrors with an older root
	unknown bool    // met: a root that the list does not know
}

// vouch returns what the list says of the root of t, nil where it says nothing;
// and the list's version, 0 where there is none yet.
func (l *mirrorList) vouch(t *tree, had state) (v *vouch, version int) {
	root, _ := l.lister.Lists()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.roots) == 0 || t.Roots[0] != root {
		return nil, l.version
	}
	v = &vouch{roots: l.roots}
	if !had.zero() {
		v.had = had.gen.Roots[0].Digest
	}
	return v, l.version
}

// check returns nil for a root from that place which may be taken. A nil vouch
// takes any.
func (v *vouch) check(from place, root chantal.RootFile, body []byte) error {
	if v == nil || promises(v.roots[0], body) {
		return nil
	}
	known := root.Digest == v.had || slices.ContainsFunc(v.roots[1:], func(r chantal.ListedRoot) bool { return promises(r, body) })
	switch {
	case known && v.older:
		return nil
	case known:
		v.stale = append(v.stale, from)
	default:
		v.unknown = true
	}
	return fmt.Errorf("mirror %s: %w", from.base.Redacted(), &chantal.MismatchError{
		Path: root.Path, Want: string(v.roots[0].Digests[0]) + " as the list of mirrors says", Got: string(root.Digest),
	})
}

// promises reports whether body is the listed root.
func promises(r chantal.ListedRoot, body []byte) bool {
	return cas.Want{Digests: r.Digests, Size: r.Size}.Check(body) == nil
}

// refreshListed is refreshRoots for a repository with a list of mirrors. A
// mirror that has the present root is preferred; where none has, one with an
// older root that the list knows will do. A root that it does not know may
// mean that the list is the older of the two: then that is asked for again.
func (t *tree) refreshListed(ctx context.Context, had state) (state, error) {
	r := t.repo
	missing := r.list.refresh(ctx, false)
	for again := false; ; again = true {
		if ctx.Err() != nil {
			return state{}, ctx.Err()
		}
		v, version := r.list.vouch(t, had)
		if missing != nil && version == 0 && (r.ListProves || len(r.bases) == 0) {
			return state{}, missing
		}
		next, err := t.refreshFirst(ctx, r.places(v), had)
		if err == nil || v == nil || ctx.Err() != nil {
			return next, err
		}
		if v.unknown && !again {
			missing = r.list.refresh(ctx, true)
			if _, now := r.list.vouch(t, had); now != version {
				continue
			}
		}
		return t.settle(ctx, v, had, err)
	}
}

// settle is what a refresh does when no mirror has the present root; failed
// says why.
func (t *tree) settle(ctx context.Context, v *vouch, had state, failed error) (state, error) {
	v.older = true
	if next, err := t.refreshFirst(ctx, v.stale, had); err == nil {
		return next, nil
	}
	if had.zero() || ctx.Err() != nil {
		return state{}, failed
	}
	body, err := t.repo.rootBody(&had.gen.Roots[0])
	if err != nil {
		return state{}, err
	}
	if promises(v.roots[0], body) {
		return had, nil // the mirrors are late, or away: the list says all the same that nothing is newer
	}
	return state{}, failed
}

// places returns where the roots of a tree may be, v checking what is there.
func (r *Repo) places(v *vouch) []place {
	bases := r.sources()
	places := make([]place, len(bases))
	for i, b := range bases {
		places[i] = place{base: b, last: i == len(bases)-1, vouch: v}
	}
	return places
}

// OwnList returns the form of list that Chantal makes itself at that path of
// the repository; false where none is.
func (r *Repo) OwnList(path string) (form string, ok bool) {
	lister, ok := r.Format.(chantal.MirrorLister)
	if !ok || !strings.HasPrefix(path, "+") {
		return "", false
	}
	_, forms := lister.Lists()
	return path[1:], slices.Contains(forms, path[1:])
}

// OwnLists returns the paths of the lists that Chantal makes of the
// repository, and the root that they lead to.
func (r *Repo) OwnLists() (root string, paths []string) {
	lister, ok := r.Format.(chantal.MirrorLister)
	if !ok {
		return "", nil
	}
	root, forms := lister.Lists()
	for _, form := range forms {
		paths = append(paths, "+"+form)
	}
	return root, paths
}

// alternates is how many older states of a root a list of ours names.
const alternates = 16

// ListedRoots returns what a list has to say of the root f, which a view of the
// line answered: f first, then the retained older states of its tree that had
// been observed by until; a zero until is no limit. An edition has no older
// states.
func (r *Repo) ListedRoots(f *chantal.File, line string, until time.Time) ([]chantal.ListedRoot, error) {
	listed := []chantal.ListedRoot{{}}
	for s, err := range r.retained(f.Tree) {
		if err != nil {
			return nil, err
		}
		if line != r.Name {
			break
		}
		root := s.gen.Root(f.Path)
		if root == nil || !until.IsZero() && s.Observed.After(until) {
			continue
		}
		entry := chantal.ListedRoot{Digests: []chantal.Digest{root.Digest}, Size: root.Size, Date: s.gen.Date}
		if entry.Date.IsZero() {
			entry.Date = s.Modified
		}
		switch {
		case root.Digest == f.Digest:
			listed[0] = entry
		case len(listed) <= alternates:
			listed = append(listed, entry)
		}
	}
	if listed[0].Digests == nil {
		// Older than what history retains; a frozen view has it all the same.
		g, err := r.m.Catalog.Generation(line, f.Tree, f.Generation)
		if err != nil {
			return nil, err
		}
		listed[0] = chantal.ListedRoot{Digests: []chantal.Digest{f.Digest}, Size: f.Size, Date: g.Date}
	}
	return listed, nil
}

// began returns the generation of the tree that lists lead to whose main root
// the client's request names; false where it names none, or nothing retained.
func (r *Repo) began(tree string, c Client) (state, bool) {
	if c.Began == "" {
		return state{}, false
	}
	for s, err := range r.retained(tree) {
		if err == nil && s.gen.Roots[0].Digest == c.Began {
			return s, true
		}
	}
	return state{}, false
}

// listKey is what a list's URL is found by, scheme left out.
func listKey(u *url.URL) string {
	return strings.TrimSuffix(baseKey(&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}), "/") + "?" + u.RawQuery
}

// FindList returns the known repository whose list of mirrors has that URL,
// and the path of our own list in it. As with repositories, a list that came
// by https answers for its http URL, never the other way round.
func (m *Mirror) FindList(u *url.URL) (*Repo, string) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if len(m.byList) == 0 {
		return nil, ""
	}
	for _, f := range m.Formats {
		lister, ok := f.(chantal.MirrorLister)
		if !ok {
			continue
		}
		canonical, _ := lister.ListURL(u)
		if r := m.byList[listKey(canonical)]; r != nil && (u.Scheme != "https" || r.list.url.Scheme == "https") {
			return r, "+" + r.ListForm
		}
	}
	return nil, ""
}

// discoverList recognises a repository by the URL of a list of its mirrors.
// fs.ErrNotExist: it is none.
func (m *Mirror) discoverList(ctx context.Context, u *url.URL) (*Repo, string, error) {
	for _, kind := range m.kinds() {
		lister, ok := m.Formats[kind].(chantal.MirrorLister)
		if !ok {
			continue
		}
		canonical, likely := lister.ListURL(u)
		if !likely {
			continue
		}
		r, err := m.probe(ctx, kind+" list "+canonical.String(), func(ctx context.Context) (*Repo, error) {
			return m.recogniseList(ctx, kind, lister, canonical)
		})
		if err != nil {
			return nil, "", err
		}
		return r, "+" + r.ListForm, nil
	}
	return nil, "", &unknownError{u.Redacted()}
}

// recogniseList makes a repository of a list: one that is a list by its
// content, and of which a mirror has a root that checks.
func (m *Mirror) recogniseList(ctx context.Context, kind string, lister chantal.MirrorLister, at *url.URL) (*Repo, error) {
	body, read, err := m.fetchList(ctx, &fetch.Request{URL: at.String()}, lister)
	var other *notListError
	if errors.As(err, &other) || errors.Is(err, fs.ErrNotExist) {
		m.Log.Debug("not a list of mirrors", "url", at.Redacted(), "error", err)
		return nil, &unknownError{at.Redacted()}
	}
	if err != nil {
		return nil, err
	}
	r, err := m.newRepo(Settings{
		Type: kind, Format: m.Formats[kind], List: at.String(), ListForm: read.Form, ListProves: len(read.Roots) > 0, Discovered: true,
	})
	if err != nil {
		return nil, err
	}
	r.list.mu.Lock()
	if err = r.list.take(read); err == nil {
		r.list.checked = m.Now()
		r.list.keep(body)
	}
	r.list.mu.Unlock()
	if err != nil {
		return nil, err
	}
	root, _ := lister.Lists()
	class, err := r.classify(root)
	if err != nil {
		return nil, err
	}
	if _, _, err := r.tree(class.Tree).current(ctx, false); err != nil {
		m.Log.Info("a list of mirrors leads to no repository", "url", at.Redacted(), "error", err)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &unknownError{at.Redacted()} // a list of something else
		}
		return nil, err
	}
	m.Log.Info("recognised a repository", "repo", r.Name, "type", kind, r.ListForm, at.Redacted())
	return r, nil
}
