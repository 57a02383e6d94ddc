package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

const (
	// assured is how long it is believed, without looking, that what a sync has
	// found complete still is.
	assured = 24 * time.Hour
	// saveEvery is how often a long sync writes down what it has completed.
	saveEvery = 10 * time.Second
)

// completions are the trees of a repository that a sync found complete. They
// hold as long as the store loses nothing (Store.Epoch), and are no more than a
// shortcut: without them everything is looked for in the store.
type completions struct {
	mu    sync.Mutex
	kept  completed
	epoch string // of the store when this sync began; "" while nothing may be remembered
	dirty bool
	saved time.Time
}

// completed is the form of completions on disk.
type completed struct {
	Epoch string            `json:"epoch"`
	Since time.Time         `json:"since"` // when the first of them was found complete
	Trees map[string]string `json:"trees"` // name → key
}

func (s *syncing) stateName() string { return "sync-" + s.repo.Name }

// load reads what earlier syncs have left.
func (c *completions) load(s *syncing) {
	now := s.m.Now()
	c.epoch, c.saved = s.m.Store.Epoch(), now
	err := s.m.Store.State(s.stateName(), &c.kept)
	if age := now.Sub(c.kept.Since); err != nil || c.kept.Epoch != c.epoch || c.epoch == "" || age < 0 || age > assured {
		c.kept = completed{Epoch: c.epoch, Since: now}
	}
	if c.kept.Trees == nil {
		c.kept.Trees = map[string]string{}
	}
}

// has reports whether the tree is known to be complete under that key.
func (c *completions) has(tree, key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept.Trees[tree] == key
}

// save makes durable what was stored, and then writes down the trees that are
// complete, unless the store has lost something meanwhile.
func (c *completions) save(ctx context.Context, s *syncing) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.m.Store.Sync(ctx); err != nil {
		return fmt.Errorf("storing what was fetched: %w", err)
	}
	c.saved = s.m.Now()
	if !c.dirty || c.epoch == "" || s.m.Store.Epoch() != c.epoch {
		return nil
	}
	if err := s.m.Store.SetState(s.stateName(), c.kept); err != nil {
		return err
	}
	c.dirty = false
	return nil
}

// complete notes that the pass left nothing undone. serial is what a list of
// trees says of the tree; 0 where there is none, or it is not that state.
func (p *pass) complete(serial int64) {
	if p.req.DryRun || p.unchanged {
		return
	}
	key := p.key(p.roots()...)
	if serial > 0 {
		key = p.key(serialText(serial))
	}
	c := &p.known
	c.mu.Lock()
	c.kept.Trees[p.live.Name], c.dirty = key, true
	due := p.m.Now().Sub(c.saved) > saveEvery
	c.mu.Unlock()
	if due {
		if err := c.save(p.m.ctx, p.syncing); err != nil {
			p.m.Log.Warn("writing down how far a sync is", "repo", p.repo.Name, "error", err)
		}
	}
}

// key names a state of a tree and what of it was selected.
func (s *syncing) key(state ...string) string {
	text, _ := json.Marshal(struct {
		Selection    any
		MetadataOnly bool
		State        []string
	}{s.req.Selection, s.req.MetadataOnly, state})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// roots names the generation's roots.
func (p *pass) roots() []string {
	var names []string
	for _, r := range p.generation.gen.Roots {
		names = append(names, r.Path, string(r.Digest))
	}
	return names
}
