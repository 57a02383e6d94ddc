package catalog

import "chantal"

// Named is what has come to be named: states of trees, and snapshots.
type Named struct {
	Observed  []chantal.Observation
	Snapshots []Snapshot
}

// Empty reports whether there is nothing.
func (n *Named) Empty() bool { return len(n.Observed)+len(n.Snapshots) == 0 }

// Watch notes what is named from its beginning on. Close it.
type Watch struct {
	c     *Catalog
	named Named // guarded by Catalog.mu
}

// Watch returns one that begins now.
func (c *Catalog) Watch() *Watch {
	w := &Watch{c: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watches == nil {
		c.watches = map[*Watch]struct{}{}
	}
	c.watches[w] = struct{}{}
	return w
}

// Close ends the watch.
func (w *Watch) Close() {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	delete(w.c.watches, w)
}

// Still calls f while nobody commits, provided that nothing has been named
// since the last call of it. Otherwise it returns what has been, and f was not
// called.
func (w *Watch) Still(f func() error) (n Named, err error) {
	err = w.c.change(func() error {
		n, w.named = w.named, Named{}
		if !n.Empty() {
			return nil
		}
		return f()
	})
	return n, err
}

// add notes what a record names. Catalog.mu is held.
func (w *Watch) add(r *record) {
	switch {
	case r.Observation != nil:
		w.named.Observed = append(w.named.Observed, *r.Observation)
	case r.Snapshot != nil:
		w.named.Snapshots = append(w.named.Snapshots, *r.Snapshot)
	}
}
