package cas

import (
	"context"
	"io/fs"
	"sync"

	"chantal"
)

// usage is how much lies in each folder of blobs. A folder is counted when
// somebody asks; from then on every change is.
type usage struct {
	mu     sync.Mutex
	shards [256]struct {
		known   bool
		changes int
		blobs   int
		bytes   int64
	}
}

// add notes that a blob came (n is 1) or went (-1).
func (u *usage) add(d chantal.Digest, n int, bytes int64) {
	sum, ok := parseSum([]byte(d.Hex()))
	if !ok {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	at := &u.shards[sum[0]]
	at.changes++
	at.blobs += n
	at.bytes += bytes
}

// Usage returns how many durable blobs there are, and how many bytes they have
// together. The first call looks at every file.
func (s *Store) Usage(ctx context.Context) (blobs int, bytes int64, err error) {
	for i := range 256 {
		for tries := 0; !s.counted(i, tries == 4); tries++ {
			if err := ctx.Err(); err != nil {
				return 0, 0, err
			}
			if err := s.count(i); err != nil {
				return 0, 0, err
			}
		}
		s.usage.mu.Lock()
		blobs += s.usage.shards[i].blobs
		bytes += s.usage.shards[i].bytes
		s.usage.mu.Unlock()
	}
	return blobs, bytes, nil
}

// counted reports whether a folder has been counted; with enough a count that
// was overtaken by changes is good enough.
func (s *Store) counted(i int, enough bool) bool {
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	at := &s.usage.shards[i]
	at.known = at.known || enough
	return at.known
}

// count looks at the files of a folder.
func (s *Store) count(i int) error {
	s.usage.mu.Lock()
	before := s.usage.shards[i].changes
	s.usage.mu.Unlock()
	blobs, bytes := 0, int64(0)
	err := s.walkShard(i, func(_ Blob, fi fs.FileInfo) error {
		blobs++
		bytes += fi.Size()
		return nil
	})
	if err != nil {
		return err
	}
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	at := &s.usage.shards[i]
	at.blobs, at.bytes, at.known = blobs, bytes, at.changes == before
	return nil
}
