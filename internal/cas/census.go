package cas

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"slices"

	"chantal"
)

// sortedSums are names of blobs, to be found quickly and in little memory.
type sortedSums struct {
	sums  []sum
	first []uint32 // where in sums those with the same first two bytes begin
}

func (l *sortedSums) sort() {
	slices.SortFunc(l.sums, compareSums)
	l.first = make([]uint32, 1<<16+1)
	for _, d := range l.sums {
		l.first[prefix(d)+1]++
	}
	for i := range 1 << 16 {
		l.first[i+1] += l.first[i]
	}
}

func compareSums(a, b sum) int { return bytes.Compare(a[:], b[:]) }

func prefix(d sum) int { return int(d[0])<<8 | int(d[1]) }

// index returns where a blob is; -1 where it is not there.
func (l *sortedSums) index(d sum) int {
	from, to := l.first[prefix(d)], l.first[prefix(d)+1]
	if i, ok := slices.BinarySearchFunc(l.sums[from:to], d, compareSums); ok {
		return int(from) + i
	}
	return -1
}

// eachName calls use with the name of every durable blob.
func (s *Store) eachName(use func(sum)) error {
	for i := range 256 {
		files, err := s.disk.List(s.shard(i))
		if err != nil {
			return fmt.Errorf("listing blobs: %w", cause(err))
		}
		for _, f := range files {
			if d, ok := parseSum([]byte(f.Name())); ok && int(d[0]) == i {
				use(d)
			}
		}
	}
	return nil
}

// Census is which blobs there were at a moment, and how large they were. It is
// safe for concurrent use.
type Census struct {
	s *Store
	sortedSums
	sizes []int64 // by sums
}

// Census looks at all durable blobs. It takes 40 bytes of memory per blob.
func (s *Store) Census(ctx context.Context) (*Census, error) {
	c := &Census{s: s}
	for i := range 256 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := s.walkShard(i, func(b Blob, fi fs.FileInfo) error {
			if d, ok := parseSum([]byte(b.Digest.Hex())); ok && int(d[0]) == i {
				c.sums, c.sizes = append(c.sums, d), append(c.sizes, fi.Size())
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	c.sort() // they are in that order already, and so are the sizes
	return c, nil
}

// Len returns how many blobs there were.
func (c *Census) Len() int { return len(c.sums) }

// Size returns how large the blob with that number is, in bytes.
func (c *Census) Size(i int) int64 { return c.sizes[i] }

// Number returns which number below Len a blob has; -1 where there was none.
func (c *Census) Number(d [32]byte) int { return c.index(d) }

// NumberOf is Number for any digest that a repository promises.
func (c *Census) NumberOf(repo string, d chantal.Digest) int {
	if d.Algo() != "sha256" {
		d, _ = c.s.Resolve(repo, d)
	}
	if sum, ok := parseSum([]byte(d.Hex())); ok {
		return c.index(sum)
	}
	return -1
}
