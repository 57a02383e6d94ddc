package mirror

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"chantal"
	"chantal/internal/cas"
)

// publishedFrom is a generation that an edition is made of. What is read of it
// is compared with its digest, for a new signature will vouch for it.
type publishedFrom struct {
	*contents
	ctx    context.Context
	lost   func() (map[chantal.Digest]bool, error)
	bodies map[string][]byte // of the roots
}

func (p *publishing) contents(s state) (*publishedFrom, error) {
	c, err := p.repo.contents(s)
	if err != nil {
		return nil, err
	}
	from := &publishedFrom{c, p.ctx, p.lost, map[string][]byte{}}
	for _, root := range s.gen.Roots {
		body, err := p.repo.rootBody(&root)
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != root.Digest.Hex() {
			p.repo.m.setAside(root.Digest)
			return nil, damagedError(root.Path)
		}
		from.bodies[root.Path] = body
	}
	return from, nil
}

func (f *publishedFrom) Root(path string) []byte { return f.bodies[path] }

// Open opens an index. One that was stored and is lost is fetched again; it is
// never taken for one that nobody wanted.
func (f *publishedFrom) Open(index chantal.Promise) (io.ReadCloser, error) {
	r, err := f.open(index)
	if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	lost, failed := f.lost()
	if failed != nil {
		return nil, failed
	}
	if d := index.SHA256(); d == "" || !lost[d] && !f.repo.m.Store.WasDamaged(d) {
		return nil, err
	}
	if err := f.repo.ensure(f.ctx, index); err != nil {
		return nil, fmt.Errorf("%s was stored and is lost, and upstream does not give it again: %v", index.Path, err)
	}
	return f.open(index)
}

func (f *publishedFrom) open(index chantal.Promise) (io.ReadCloser, error) {
	blob, err := f.repo.stored(&index)
	if err != nil {
		return nil, err
	}
	file, _, err := f.repo.m.Store.Open(blob.Digest)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	raw := io.TeeReader(file, sum)
	plain, err := decompress(index.Path, raw, blob.Size)
	if err != nil {
		file.Close()
		return nil, err
	}
	done := func() error {
		if _, err := io.Copy(io.Discard, raw); err != nil {
			return err
		}
		if hex.EncodeToString(sum.Sum(nil)) != blob.Digest.Hex() {
			f.repo.m.setAside(blob.Digest)
			return damagedError(index.Path)
		}
		return nil
	}
	return &proving{opened{plain, file}, done}, nil
}

// setAside has a blob read again that is not what its name says, so that it is
// fetched anew.
func (m *Mirror) setAside(d chantal.Digest) { _, _, _ = m.Store.Check(m.ctx, d, nil, nil) }

func damagedError(path string) error {
	return fmt.Errorf("%s was damaged on the disk and has been set aside: try again, it is fetched anew as long as upstream has it", path)
}

// proving ends well only if done says so.
type proving struct {
	opened
	done func() error
}

func (p *proving) Read(b []byte) (int, error) {
	n, err := p.opened.Read(b)
	if err == io.EOF {
		if wrong := p.done(); wrong != nil {
			err = wrong
		}
	}
	return n, err
}

// publication stores what a chantal.Publisher writes.
type publication struct {
	chantal.Signer
	store      *cas.Store
	repo, tree string
	date       time.Time
}

func (p *publication) Date() time.Time { return p.date }

// Write implements chantal.Publication.
func (p *publication) Write(suffix string, algos []string, fill func(io.Writer) error) (w chantal.Written, err error) {
	what := "an index of " + p.tree
	g, err := p.store.Create(cas.Want{Repo: p.repo, Path: what, Size: -1, Modified: p.date})
	if err != nil {
		return w, err
	}
	defer func() {
		if err != nil {
			g.Abort(err)
		}
	}()
	stored, err := newHashing(g, algos)
	if err != nil {
		return w, err
	}
	packer, err := compressor(suffix, stored)
	if err != nil {
		return w, err
	}
	plain := stored
	if suffix != "" {
		if plain, err = newHashing(packer, algos); err != nil {
			return w, err
		}
	}
	b := bufio.NewWriterSize(plain, 256<<10)
	if err := fill(b); err != nil {
		return w, err
	}
	if err := errors.Join(b.Flush(), packer.Close()); err != nil {
		return w, err
	}
	// Roots promise the index with one of these alone, perhaps.
	if err := g.Alias(stored.digests()...); err != nil {
		return w, err
	}
	if _, err := g.Commit(); err != nil {
		return w, err
	}
	return chantal.Written{Digests: stored.digests(), Size: stored.n, PlainDigests: plain.digests(), PlainSize: plain.n}, nil
}

// compressor compresses into w as suffix says; the same bytes every time.
func compressor(suffix string, w io.Writer) (io.WriteCloser, error) {
	switch suffix {
	case "":
		return nopCloser{w}, nil
	case ".gz":
		return gzip.NewWriterLevel(w, gzip.DefaultCompression)
	case ".zst":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	case ".xz":
		return xz.NewWriter(w)
	}
	return nil, fmt.Errorf("nothing here compresses as %s", suffix)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// hashing passes bytes on and computes their digests.
type hashing struct {
	to     io.Writer
	n      int64
	algos  []string
	hashes []hash.Hash
}

func newHashing(to io.Writer, algos []string) (*hashing, error) {
	known := map[string]func() hash.Hash{
		"sha512": sha512.New, "sha384": sha512.New384, "sha256": sha256.New, "sha224": sha256.New224, "sha1": sha1.New, "md5": md5.New,
	}
	h := &hashing{to: to, algos: algos}
	for _, algo := range algos {
		if known[algo] == nil {
			return nil, fmt.Errorf("nothing here computes %s", algo)
		}
		h.hashes = append(h.hashes, known[algo]())
	}
	return h, nil
}

func (h *hashing) Write(b []byte) (int, error) {
	for _, one := range h.hashes {
		one.Write(b)
	}
	n, err := h.to.Write(b)
	h.n += int64(n)
	return n, err
}

func (h *hashing) digests() []chantal.Digest {
	var all []chantal.Digest
	for i, one := range h.hashes {
		all = append(all, chantal.Digest(h.algos[i]+":"+hex.EncodeToString(one.Sum(nil))))
	}
	return all
}
