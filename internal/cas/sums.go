package cas

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strconv"
	"sync"

	"golang.org/x/crypto/blake2b"

	"chantal"
)

// newHash returns a hash for every algorithm that chantal.NewDigest knows, and
// nil for others.
func newHash(algo string) hash.Hash {
	switch algo {
	case "sha512":
		return sha512.New()
	case "sha384":
		return sha512.New384()
	case "sha256":
		return sha256.New()
	case "sha224":
		return sha256.New224()
	case "sha1":
		return sha1.New()
	case "md5":
		return md5.New()
	case "blake2b":
		h, _ := blake2b.New512(nil) // fails for long keys only
		return h
	case "blake2b-256":
		h, _ := blake2b.New256(nil)
		return h
	}
	return nil
}

// sums computes the SHA-256 and whatever else is promised.
type sums struct {
	algos  []string // sha256 first
	hashes []hash.Hash
}

func newSums(promised []chantal.Digest) *sums {
	s := &sums{algos: []string{"sha256"}, hashes: []hash.Hash{sha256.New()}}
next:
	for _, d := range promised {
		for _, a := range s.algos {
			if a == d.Algo() {
				continue next
			}
		}
		if h := newHash(d.Algo()); h != nil {
			s.algos, s.hashes = append(s.algos, d.Algo()), append(s.hashes, h)
		}
	}
	return s
}

func (s *sums) write(p []byte) {
	for _, h := range s.hashes {
		h.Write(p)
	}
}

// check returns the SHA-256 of what was written, or a *chantal.MismatchError
// when one of the promised digests or the size (-1: any) differs.
func (s *sums) check(w Want, size, got int64) (chantal.Digest, error) {
	if size >= 0 && size != got {
		return "", sizeMismatch(w.Path, size, got)
	}
	have := make(map[string]chantal.Digest, len(s.algos))
	for i, algo := range s.algos {
		have[algo] = chantal.Digest(algo + ":" + hex.EncodeToString(s.hashes[i].Sum(nil)))
	}
	for _, d := range w.Digests {
		if h, ok := have[d.Algo()]; ok && h != d {
			return "", &chantal.MismatchError{Path: w.Path, Want: string(d), Got: string(h)}
		}
	}
	return have["sha256"], nil
}

// Check returns nil for content that is what w promises, else a
// *chantal.MismatchError.
func (w Want) Check(content []byte) error {
	s := newSums(w.Digests)
	s.write(content)
	_, err := s.check(w, w.Size, int64(len(content)))
	return err
}

func sizeMismatch(path string, want, got int64) error {
	return &chantal.MismatchError{
		Path: path, Want: strconv.FormatInt(want, 10) + " bytes", Got: strconv.FormatInt(got, 10) + " bytes",
	}
}

// chunk is how much is handed to the hashing goroutine at once; files that are
// not longer are hashed on the spot.
const chunk = 256 << 10

var chunks = sync.Pool{New: func() any { b := make([]byte, 0, chunk); return &b }}

// pipeline hashes in a goroutine of its own, so that disk and hash overlap.
// The goroutine starts with the second chunk.
type pipeline struct {
	sums *sums
	n    int64
	work chan *[]byte // nil until the goroutine runs
	done chan struct{}
}

func (p *pipeline) write(b []byte) {
	if p.work == nil && p.n+int64(len(b)) <= chunk {
		p.n += int64(len(b))
		p.sums.write(b)
		return
	}
	if p.work == nil {
		p.work, p.done = make(chan *[]byte, 4), make(chan struct{})
		go p.run(p.work, p.done)
	}
	for len(b) > 0 {
		c := chunks.Get().(*[]byte)
		n := min(len(b), chunk)
		*c = append((*c)[:0], b[:n]...)
		p.work <- c
		b = b[n:]
	}
}

func (p *pipeline) run(work <-chan *[]byte, done chan<- struct{}) {
	defer close(done)
	for c := range work {
		p.sums.write(*c)
		chunks.Put(c)
	}
}

// finish waits until everything written has been hashed. Nothing may be
// written afterwards.
func (p *pipeline) finish() *sums {
	if p.work != nil {
		close(p.work)
		<-p.done
		p.work = nil
	}
	return p.sums
}
