package keep

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
)

// Stored is how much is stored of something.
type Stored struct {
	Blobs   int
	Bytes   int64 // each blob counted once
	Logical int64 // each blob counted for live and for every snapshot that names it
}

// Stats is what is stored: in all, and of each repository, live and frozen.
type Stats struct {
	Stored
	Repos map[string]Stored
}

// Stats counts what is stored. kept is as for Collect. It reads the indexes of
// everything that live answers and snapshots hold.
func (k *Keeper) Stats(ctx context.Context, kept func(use func(by string, d chantal.Digest) error) error) (Stats, error) {
	census, err := k.Store.Census(ctx)
	if err != nil {
		return Stats{}, err
	}
	c := counting{Keeper: k, ctx: ctx, census: census, stamps: make([]uint32, census.Len()), repos: map[string]*tally{}, known: map[string]int64{}}
	err = k.eachKept(time.Time{}, func(g chantal.Generation, by hold, _ string) error {
		if by != byHead && by != bySnapshot {
			return ctx.Err()
		}
		return c.generation(g)
	})
	if err == nil && kept != nil {
		err = kept(func(_ string, d chantal.Digest) error {
			if i := census.NumberOf("", d); i >= 0 {
				c.logical += census.Size(i)
			}
			return ctx.Err()
		})
	}
	if err != nil {
		return Stats{}, fmt.Errorf("counting what is stored: %w", err)
	}
	s := Stats{Repos: map[string]Stored{}}
	s.Blobs, s.Logical = census.Len(), c.logical
	for i := range census.Len() {
		s.Bytes += census.Size(i)
	}
	for repo, t := range c.repos {
		s.Repos[repo] = t.stored(census)
		s.Logical += t.logical
	}
	return s, nil
}

// Of adds up what is stored of some repositories; a blob that two of them have
// counts twice.
func (s *Stats) Of(repos []string) Stored {
	var sum Stored
	for _, name := range slices.Compact(slices.Sorted(slices.Values(repos))) {
		one := s.Repos[name]
		sum.Blobs += one.Blobs
		sum.Bytes += one.Bytes
		sum.Logical += one.Logical
	}
	return sum
}

// counting adds up what generations name.
type counting struct {
	*Keeper
	ctx     context.Context
	census  *cas.Census
	logical int64
	repos   map[string]*tally

	stamps []uint32         // by blob: the last generation that named it
	stamp  uint32           // of this generation
	known  map[string]int64 // bytes of generations, by line, tree and number
}

// tally is what is stored of one repository.
type tally struct {
	logical int64
	there   []uint64 // a bit for each blob
}

func (t *tally) stored(c *cas.Census) Stored {
	s := Stored{Logical: t.logical}
	for i := range c.Len() {
		if t.there[i/64]&(1<<(i%64)) != 0 {
			s.Blobs++
			s.Bytes += c.Size(i)
		}
	}
	return s
}

// generation counts what a generation names, once more for each call.
func (c *counting) generation(g chantal.Generation) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	repo := catalog.RepoOf(g.Repo)
	t := c.repos[repo]
	if t == nil {
		t = &tally{there: make([]uint64, (c.census.Len()+63)/64)}
		c.repos[repo] = t
	}
	key := fmt.Sprintf("%s\x00%s\x00%d", g.Repo, g.Tree, g.Number)
	bytes, done := c.known[key]
	if !done {
		c.stamp++
		err := c.named(g, func(i int) {
			if i < 0 || c.stamps[i] == c.stamp {
				return
			}
			c.stamps[i] = c.stamp
			bytes += c.census.Size(i)
			t.there[i/64] |= 1 << (i % 64)
		})
		if err != nil {
			return err
		}
		c.known[key] = bytes
	}
	t.logical += bytes
	return nil
}

// named calls use with the number of everything that a generation names; -1 for
// what is not stored. What cannot be read names nothing.
func (c *counting) named(g chantal.Generation, use func(i int)) error {
	repo := catalog.RepoOf(g.Repo)
	for _, root := range g.Roots {
		use(c.census.NumberOf(repo, root.Digest))
	}
	listed, err := c.Promises.Listing(g)
	if err != nil {
		return c.ctx.Err()
	}
	for _, p := range listed {
		for _, d := range p.Digests {
			if sha := p.SHA256(); sha == "" || d == sha {
				use(c.census.NumberOf(repo, d))
			}
		}
		err := c.Needs.Promised(g.Repo, p, func(digests []byte, _ int64, _ chantal.Kind) {
			if sum, ok := promisedSum(digests); ok {
				use(c.census.Number(sum))
				return
			}
			for d := range strings.FieldsSeq(string(digests)) {
				use(c.census.NumberOf(repo, chantal.Digest(d)))
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) && c.ctx.Err() != nil {
			return c.ctx.Err()
		}
	}
	return nil
}

// promisedSum returns the SHA-256 among digests that are separated by spaces, if
// there is one.
func promisedSum(digests []byte) (sum [32]byte, ok bool) {
	const algo = "sha256:"
	for rest := string(digests); rest != ""; {
		var d string
		d, rest, _ = strings.Cut(rest, " ")
		if text, is := strings.CutPrefix(d, algo); is && len(text) == 2*len(sum) {
			_, err := hex.Decode(sum[:], []byte(text))
			return sum, err == nil
		}
	}
	return sum, false
}
