package keep

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"chantal"
	"chantal/internal/catalog"
)

// Why is what keeps a blob.
type Why struct {
	Digest chantal.Digest `json:"digest"` // sha256
	Stored bool           `json:"stored"`
	Size   int64          `json:"size,omitempty"`
	Kept   []Reason       `json:"kept_by"`   // never nil
	Freed  bool           `json:"freed"`     // the next chantal gc frees it
	Evict  bool           `json:"evictable"` // it goes when cache.max_size is exceeded
}

// Reason is one thing that keeps a blob.
type Reason struct {
	By         string `json:"by"`            // live, snapshot, history, client, cache (an HTTP answer that is kept), work
	Ref        string `json:"ref,omitempty"` // the name of the snapshot, an instant
	Repo       string `json:"repo,omitempty"`
	Tree       string `json:"tree,omitempty"`
	Generation int    `json:"generation,omitempty"`
	Path       string `json:"path,omitempty"` // what the generation calls it, or the URL of an HTTP answer
	Kind       string `json:"kind,omitempty"` // root, index, artifact, opaque
	Weak       bool   `json:"weak,omitempty"` // only what runs by itself spares it for this: chantal gc does not
}

// Why finds out what keeps the blob with the SHA-256 d. since and kept are as
// for Collect. It reads the indexes of everything that is kept.
func (k *Keeper) Why(ctx context.Context, d chantal.Digest, since time.Time, kept func(use func(by string, d chantal.Digest) error) error) (Why, error) {
	w := Why{Digest: d, Kept: []Reason{}}
	used := k.Store.InUse(d) // before it is looked for here
	if b, err := k.Store.Find("", d); err == nil {
		w.Stored, w.Size = true, b.Size
	}
	s := search{Keeper: k, ctx: ctx, d: d, indexes: map[string]*chantal.Promise{}}
	firm := false
	err := k.eachKept(since, func(g chantal.Generation, by hold, ref string) error {
		p, err := s.generation(g)
		if err != nil || p == nil {
			return err
		}
		r := Reason{By: by.String(), Repo: g.Repo, Tree: g.Tree, Generation: g.Number, Path: p.Path, Kind: p.Kind.String()}
		if by == bySnapshot || by == byHistory {
			r.Ref = ref
		}
		r.Weak = by == byHistory && p.Kind == chantal.Artifact
		firm = firm || by == bySnapshot || by == byClient || p.Kind == chantal.Meta || p.Kind == chantal.Root && !lone(g)
		w.Kept = append(w.Kept, r)
		return nil
	})
	if err == nil && kept != nil {
		err = kept(func(by string, have chantal.Digest) error {
			if have == d {
				w.Kept = append(w.Kept, Reason{By: "cache", Path: by})
			}
			return ctx.Err()
		})
	}
	if err != nil {
		return w, fmt.Errorf("looking for what keeps %s: %w", d, err)
	}
	if used {
		w.Kept = append(w.Kept, Reason{By: "work"})
		firm = true
	}
	slices.SortStableFunc(w.Kept, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(a.By, b.By), cmp.Compare(a.Repo, b.Repo), cmp.Compare(a.Tree, b.Tree), cmp.Compare(a.Generation, b.Generation))
	})
	w.Freed = w.Stored && !slices.ContainsFunc(w.Kept, func(r Reason) bool { return !r.Weak })
	w.Evict = w.Stored && !firm
	return w, nil
}

// search looks for one blob in what generations promise.
type search struct {
	*Keeper
	ctx     context.Context
	d       chantal.Digest
	indexes map[string]*chantal.Promise // by repository, path and digest: what of it is the blob
}

// generation returns what in a generation is the blob; nil for nothing.
func (s *search) generation(g chantal.Generation) (*chantal.Promise, error) {
	if s.ctx.Err() != nil {
		return nil, s.ctx.Err()
	}
	for _, root := range g.Roots {
		if root.Digest == s.d {
			kind := chantal.Root
			if lone(g) {
				kind = chantal.Opaque
			}
			return &chantal.Promise{Path: root.Path, Kind: kind}, nil
		}
	}
	listed, err := s.Promises.Listing(g)
	if err != nil {
		return nil, nil // it promises nothing to anybody
	}
	for i := range listed {
		if s.is(g.Repo, &listed[i]) {
			return &listed[i], nil
		}
	}
	for _, index := range listed {
		if index.Kind != chantal.Meta || len(index.Digests) == 0 {
			continue
		}
		key := catalog.RepoOf(g.Repo) + "\x00" + index.Path + "\x00" + string(index.Digests[0])
		p, known := s.indexes[key]
		if !known {
			if p, err = s.index(g.Repo, index); err != nil {
				return nil, err
			}
			s.indexes[key] = p
		}
		if p != nil {
			return p, nil
		}
	}
	return nil, nil
}

// index returns what an index calls the blob; nil where it does not.
func (s *search) index(line string, index chantal.Promise) (*chantal.Promise, error) {
	text, weak, found := []byte(s.d), []byte("sha256:"), false
	err := s.Needs.Promised(line, index, func(digests []byte, _ int64, _ chantal.Kind) {
		found = found || bytes.Contains(digests, text) || !bytes.Contains(digests, weak)
	})
	if errors.Is(err, fs.ErrNotExist) || err != nil && s.ctx.Err() == nil {
		return nil, nil
	}
	if err != nil || !found {
		return nil, err
	}
	for p, err := range s.Promises.Index(line, index) {
		if err != nil {
			return nil, nil
		}
		if s.is(line, &p) {
			return &p, nil
		}
	}
	return nil, nil
}

// is reports whether the blob is what p promises.
func (s *search) is(line string, p *chantal.Promise) bool {
	if d := p.SHA256(); d != "" {
		return d == s.d
	}
	return slices.ContainsFunc(p.Digests, func(d chantal.Digest) bool {
		to, err := s.Store.Resolve(catalog.RepoOf(line), d)
		return err == nil && to == s.d
	})
}
