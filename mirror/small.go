package mirror

import (
	"bytes"
	"io"
	"sync"
	"time"

	"chantal"
	"chantal/internal/cas"

	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	smallSize  = 128 << 10   // bytes up to which a copy in memory costs less than opening the file again
	smallTotal = 64 << 20    // bytes that all copies may take together
	smallLife  = time.Minute // after which the store is asked again: it notes uses, and may have lost the blob
)

// smallBlobs keeps copies of small blobs in memory, those that were used last.
// It is safe for concurrent use.
type smallBlobs struct {
	mu      sync.Mutex
	cache   *lru.Cache[chantal.Digest, *smallBlob]
	bytes   int
	damaged int64 // how many blobs of the store had been found damaged when the copies were made
}

type smallBlob struct {
	cas.Blob
	content []byte // never changed
	read    time.Time
}

func newSmallBlobs() *smallBlobs {
	s := &smallBlobs{}
	s.cache, _ = lru.NewWithEvict(100_000, func(_ chantal.Digest, gone *smallBlob) { s.bytes -= len(gone.content) })
	return s
}

// open returns the content of a blob that is kept; nil if it is not. damaged is
// how many blobs the store has found damaged by now: when that rises all copies
// are dropped, for one of them may be of a damaged blob.
func (s *smallBlobs) open(d chantal.Digest, now time.Time, damaged int64) (io.ReadSeekCloser, cas.Blob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.damaged != damaged {
		s.cache.Purge()
		s.damaged = damaged
	}
	b, ok := s.cache.Get(d)
	if !ok {
		return nil, cas.Blob{}
	}
	if now.Sub(b.read) > smallLife {
		s.cache.Remove(d)
		return nil, cas.Blob{}
	}
	return &inMemory{*bytes.NewReader(b.content)}, b.Blob
}

// keep returns content, which it closes and keeps if the blob is small. What
// cannot be read is left for the client to find out. damaged is what it was
// before the blob was opened.
func (s *smallBlobs) keep(content io.ReadSeekCloser, blob cas.Blob, now time.Time, damaged int64) io.ReadSeekCloser {
	if blob.Size > smallSize {
		return content
	}
	body := make([]byte, blob.Size)
	if _, err := io.ReadFull(content, body); err != nil {
		_, _ = content.Seek(0, io.SeekStart)
		return content
	}
	content.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.damaged != damaged {
		return &inMemory{*bytes.NewReader(body)}
	}
	s.cache.Remove(blob.Digest)
	s.cache.Add(blob.Digest, &smallBlob{blob, body, now})
	s.bytes += len(body)
	for s.bytes > smallTotal {
		s.cache.RemoveOldest()
	}
	return &inMemory{*bytes.NewReader(body)}
}

// inMemory is the content of a small file.
type inMemory struct{ bytes.Reader }

// Close does nothing.
func (*inMemory) Close() error { return nil }
