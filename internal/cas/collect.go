package cas

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"chantal"
)

// ErrCollecting means that another Collection is open.
var ErrCollecting = errors.New("another collection of what is no longer needed is under way")

// Mark says why a blob stays.
type Mark uint8

const (
	Keep Mark = 1 << iota // something needs it
	Pin                   // it is not to be evicted for want of room either
)

// Collection is one run over all blobs that were there when it began: whoever
// knows what is needed marks it, and the rest can be swept. It is for one
// goroutine at a time.
type Collection struct {
	s       *Store
	release func()
	sortedSums
	marks []Mark // by sums
	aside map[sum]bool
}

// Victim is a blob that can go.
type Victim struct {
	Size int64 // in bytes
	Disk int64 // bytes that it takes on the disk
	Used int64 // when it was last opened, or stored: seconds since 1970
	at   uint32
	Mark Mark // as it was when this was found out

	Damaged bool // a copy that was set aside
}

// Freed is what a Sweep took away.
type Freed struct {
	Blobs int
	Bytes int64 // of these, their aliases and all that was noted of them or derived from them
	Disk  int64 // the same as the disk counts it, without what was noted
}

// Collect begins a collection: it lists all durable blobs, and those that were
// set aside as damaged, without looking at them. What anybody stores, finds or
// opens until End is not swept. It takes 33 bytes of memory per blob. The error
// is ErrCollecting, or of the disk.
func (s *Store) Collect() (*Collection, error) {
	if !s.sweeping.CompareAndSwap(false, true) {
		return nil, ErrCollecting
	}
	c := &Collection{s: s, release: s.Hold(), aside: map[sum]bool{}}
	if err := c.list(); err != nil {
		c.End()
		return nil, err
	}
	return c, nil
}

// End ends the collection. Calling it again does nothing.
func (c *Collection) End() {
	if c.s != nil {
		c.release()
		c.s.sweeping.Store(false)
		c.s = nil
	}
}

func (c *Collection) list() error {
	if err := c.s.eachName(func(d sum) { c.sums = append(c.sums, d) }); err != nil {
		return err
	}
	slices.SortFunc(c.sums, compareSums)
	c.s.mu.RLock()
	for d := range c.s.aside {
		sum, ok := parseSum([]byte(d.Hex()))
		// One that could not be moved away, or has been stored again, is listed.
		if _, listed := slices.BinarySearchFunc(c.sums, sum, compareSums); ok && !listed {
			c.aside[sum] = true
		}
	}
	c.s.mu.RUnlock()
	c.sums = slices.AppendSeq(c.sums, maps.Keys(c.aside))
	c.sortedSums.sort()
	c.marks = make([]Mark, len(c.sums))
	return nil
}

// Len returns how many blobs there were, without those set aside.
func (c *Collection) Len() int { return len(c.sums) - len(c.aside) }

// Mark marks the blob with that SHA-256, if there is one.
func (c *Collection) Mark(d [32]byte, m Mark) {
	if i := c.index(d); i >= 0 {
		c.marks[i] |= m
	}
}

// MarkDigest is Mark for any digest that a repository promises.
func (c *Collection) MarkDigest(repo string, d chantal.Digest, m Mark) {
	if d.Algo() != "sha256" {
		d, _ = c.s.Resolve(repo, d)
	}
	if sum, ok := parseSum([]byte(d.Hex())); ok {
		c.Mark(sum, m)
	}
}

// Victims looks at the blobs whose mark fits.
func (c *Collection) Victims(ctx context.Context, fits func(Mark) bool) ([]Victim, error) {
	c.s.flushUses()
	var all []Victim
	for i, m := range c.marks {
		if !fits(m) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		fi, err := c.s.disk.Stat(c.path(uint32(i)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking at blob %s: %w", sumDigest(c.sums[i]), cause(err))
		}
		all = append(all, Victim{fi.Size(), allocated(fi), lastUse(fi).Unix(), uint32(i), m, c.aside[c.sums[i]]})
	}
	return all, nil
}

// path returns where a blob lies.
func (c *Collection) path(i uint32) string {
	d := sumDigest(c.sums[i])
	if c.aside[c.sums[i]] {
		return filepath.Join(c.s.dir, damagedDir, d.Hex())
	}
	return c.s.blobPath(d)
}

// sweepBatch is how many blobs go at a time while nothing is committed.
const sweepBatch = 256

// bigBlob is the size in bytes from which on removing a file takes so long that
// nobody may wait for it: it is renamed first.
const bigBlob = 1 << 20

// Sweep removes the victims, but for those that somebody has begun to use or
// that have another mark by now, and all that was noted of them: their aliases before them, so that nothing leads
// to a blob that is gone. still is called for some victims at a time; it calls
// what it is given at most once, when all that is named has been marked, and sees to it that nothing is meanwhile. gently leaves the disk to others half of
// the time. With an error, what had gone until then is returned, too.
func (c *Collection) Sweep(ctx context.Context, victims []Victim, still func(remove func() error) error, gently bool) (Freed, error) {
	if len(victims) == 0 {
		return Freed{}, nil
	}
	aliases, err := c.aliasesOf(victims)
	if err != nil {
		return Freed{}, err
	}
	freed := Freed{Bytes: c.s.epochSize()}
	err = c.s.Shrink(func() error { return c.sweep(ctx, victims, aliases, still, gently, &freed) })
	return freed, err
}

// sweep is Sweep once everybody knows that blobs go.
func (c *Collection) sweep(ctx context.Context, victims []Victim, aliases map[uint32][]aliasFile, still func(remove func() error) error, gently bool, freed *Freed) error {
	gone := make([]bool, len(c.sums))
	for _, v := range victims {
		gone[v.at] = true
	}
	// The list goes first: of a blob that it does not have nobody says that it
	// is lost, whenever the process ends.
	listed := c.among(slices.Clone(gone))
	clear(gone)
	n, err := c.s.unlist(listed, true)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		if err = c.makeRoom(victims, aliases, still, gone, freed); err == nil {
			n, err = c.s.unlist(listed, true)
		}
	}
	if err != nil {
		return err
	}
	freed.Bytes += n
	for batch := range slices.Chunk(victims, sweepBatch) {
		if err = ctx.Err(); err != nil {
			break
		}
		began := time.Now()
		if err = still(func() error { return c.remove(batch, aliases, gone, freed) }); err != nil {
			break
		}
		if gently {
			err = sleep(ctx, time.Since(began))
		}
	}
	b, d := c.s.dropDerived(func(f fs.DirEntry) bool { return named(f.Name(), c.among(gone)) }, true)
	freed.Bytes, freed.Disk = freed.Bytes+b, freed.Disk+d
	var spared []chantal.Digest
	for _, v := range victims {
		if !gone[v.at] && !c.aside[c.sums[v.at]] {
			spared = append(spared, sumDigest(c.sums[v.at]))
		}
	}
	c.s.note(spared)
	freed.Bytes -= int64(len(spared)) * inventoryLine
	return err
}

// makeRoom removes the largest victims, until there is room for another list.
func (c *Collection) makeRoom(victims []Victim, aliases map[uint32][]aliasFile, still func(remove func() error) error, gone []bool, freed *Freed) error {
	need := int64(bigBlob)
	if fi, err := c.s.disk.Stat(filepath.Join(c.s.dir, inventoryName)); err == nil {
		need += fi.Size()
	}
	large := slices.SortedFunc(slices.Values(victims), func(a, b Victim) int { return cmp.Compare(b.Disk, a.Disk) })
	for batch := range slices.Chunk(large, sweepBatch) {
		if freed.Disk >= need {
			break
		}
		if err := still(func() error { return c.remove(batch, aliases, gone, freed) }); err != nil {
			return err
		}
	}
	return nil
}

// Weigh returns what Sweep would free.
func (c *Collection) Weigh(victims []Victim) (freed Freed, err error) {
	gone := make([]bool, len(c.sums))
	for _, v := range victims {
		gone[v.at] = true
		freed.Blobs++
		freed.Bytes += v.Size
		freed.Disk += v.Disk
	}
	aliases, err := c.aliasesOf(victims)
	if err != nil {
		return freed, err
	}
	for _, all := range aliases {
		for _, a := range all {
			freed.Bytes += a.size
			freed.Disk += a.disk
		}
	}
	if len(victims) > 0 {
		freed.Bytes += c.s.epochSize()
	}
	n, err := c.s.unlist(c.among(gone), false)
	b, d := c.s.dropDerived(func(f fs.DirEntry) bool { return named(f.Name(), c.among(gone)) }, false)
	freed.Bytes, freed.Disk = freed.Bytes+n+b, freed.Disk+d
	return freed, err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// among returns what tells whether a SHA-256 is one of those chosen.
func (c *Collection) among(chosen []bool) func(sum) bool {
	return func(d sum) bool { i := c.index(d); return i >= 0 && chosen[i] }
}

// named reports whether a derived file is named after one of those blobs.
func named(key string, among func(sum) bool) bool {
	for part := range strings.SplitSeq(key, "-") {
		if d, ok := parseSum([]byte(part)); ok && among(d) {
			return true
		}
	}
	return false
}

// aliasFile is a file that leads to a victim.
type aliasFile struct {
	rel        string
	size, disk int64
}

// aliasesOf finds what leads to the victims.
func (c *Collection) aliasesOf(victims []Victim) (map[uint32][]aliasFile, error) {
	all := map[uint32][]aliasFile{}
	if len(victims) == 0 {
		return all, nil
	}
	for _, v := range victims {
		if !c.aside[c.sums[v.at]] {
			all[v.at] = nil
		}
	}
	err := c.s.Aliases(func(a Alias) error {
		sum, ok := parseSum([]byte(a.Blob.Hex()))
		if !ok {
			return nil
		}
		i := uint32(c.index(sum))
		if _, victim := all[i]; !victim {
			return nil
		}
		if fi, err := c.s.disk.Stat(filepath.Join(c.s.dir, a.rel)); err == nil {
			all[i] = append(all[i], aliasFile{a.rel, fi.Size(), allocated(fi)})
		}
		return nil
	})
	return all, err
}

// remove takes away those of a batch that nobody uses.
func (c *Collection) remove(batch []Victim, aliases map[uint32][]aliasFile, gone []bool, freed *Freed) error {
	s := c.s
	dirs := map[string]bool{}
	for _, v := range batch {
		for _, a := range aliases[v.at] {
			if c.marks[v.at] != v.Mark || s.inUse(c.sums[v.at]) {
				break
			}
			path := filepath.Join(s.dir, a.rel)
			if err := s.disk.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("removing alias %s: %w", a.rel, cause(err))
			}
			freed.Bytes, freed.Disk = freed.Bytes+a.size, freed.Disk+a.disk
			dirs[filepath.Dir(path)] = true
		}
	}
	for dir := range dirs {
		if err := s.disk.Sync(dir); err != nil {
			return fmt.Errorf("removing aliases: %w", cause(err))
		}
	}
	var big []string
	for _, v := range batch {
		if gone[v.at] {
			continue
		}
		temp, ok, err := c.removeOne(v)
		if err != nil {
			return fmt.Errorf("removing blob %s: %w", sumDigest(c.sums[v.at]), cause(err))
		}
		if !ok {
			continue
		}
		gone[v.at] = true
		freed.Blobs++
		freed.Bytes, freed.Disk = freed.Bytes+v.Size, freed.Disk+v.Disk
		if temp != "" {
			big = append(big, temp)
		}
	}
	for _, temp := range big {
		if err := s.disk.Remove(temp); err != nil {
			return fmt.Errorf("removing a blob: %w", cause(err)) // the next start does
		}
	}
	return nil
}

// removeOne takes a blob's name away, unless somebody uses it. Of a big one the
// file is still there, as temp.
func (c *Collection) removeOne(v Victim) (temp string, ok bool, err error) {
	s, path, sum := c.s, c.path(v.at), c.sums[v.at]
	d := sumDigest(sum)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Whoever looks for the blob is noted before; so the look comes either
	// before what follows, or finds nothing.
	s.holds.mu.Lock()
	defer s.holds.mu.Unlock()
	if c.marks[v.at] != v.Mark || s.inUseLocked(sum) {
		return "", false, nil
	}
	if v.Size >= bigBlob {
		temp = s.temp(s.shard(int(sum[0])))
		err = s.disk.Rename(path, temp)
	} else {
		err = s.disk.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	if c.aside[sum] {
		delete(s.aside, d)
	} else {
		s.usage.add(d, -1, -v.Size)
	}
	if s.refused[d] {
		delete(s.refused, d)
		delete(s.aside, d)
	}
	return temp, true, nil
}
