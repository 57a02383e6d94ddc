package mirror

import (
	"errors"
	"io/fs"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
)

// Promised calls use for everything that an index of a repository, or of an
// edition of one, promises: with its digests, separated by spaces and valid
// during the call, its size and its kind. Nothing is fetched, and nothing is
// promised by what is no index. The error is a fs.ErrNotExist where nothing is
// known of the index because the store lacks it, and otherwise says why it
// cannot be read.
func (m *Mirror) Promised(line string, index chantal.Promise, use func(digests []byte, size int64, kind chantal.Kind)) error {
	r := m.Repo(catalog.RepoOf(line))
	if r == nil || index.Kind != chantal.Meta || len(index.Digests) == 0 || !r.lists(index.Path) {
		return nil
	}
	blob, err := r.stored(&index)
	if errors.Is(err, fs.ErrNotExist) && index.SHA256() != "" {
		// What was read of it before it was lost is still good.
		blob, err = cas.Blob{Digest: index.SHA256()}, nil
	}
	if err != nil {
		return err
	}
	l, err := r.lines(index.Path, blob)
	if err != nil {
		return err
	}
	defer l.Close()
	for b, err := range l.each() {
		if err != nil {
			return err
		}
		use(b.digests, b.size, b.kind)
	}
	return nil
}

// Begun returns the generations that clients are in the middle of: whoever has
// the root of one, and its connection still open, is to get what it names.
func (m *Mirror) Begun() []chantal.Generation {
	var all []chantal.Generation
	now := m.Now()
	seen := map[stateKey]bool{}
	for _, p := range m.bindings.Values() {
		p.mu.Lock()
		for _, b := range p.bindings {
			key := stateKey{b.state.Repo, b.state.Tree, int64(b.state.Generation)}
			if !b.conn.closed.Load() && now.Sub(b.used) <= bindingHold && !seen[key] {
				seen[key] = true
				all = append(all, b.state.gen)
			}
		}
		p.mu.Unlock()
	}
	return all
}

// Forgot tells that the catalog has forgotten history: what is remembered of
// past instants is looked up again.
func (m *Mirror) Forgot() {
	m.states.Purge()
	m.lookups.Purge()
}
