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
	"sync"
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
	lost   func() (map[chantal.Digest]bool, error) // indexes that were stored once, of those that are not
	bodies map[string][]byte                       // of the roots
}

func (p *publishing) contents(s state) (*publishedFrom, error) {
	c, err := p.repo.contents(s)
	if err != nil {
		return nil, err
	}
	from := &publishedFrom{contents: c, ctx: p.ctx, bodies: map[string][]byte{}}
	from.lost = sync.OnceValues(from.findLost)
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

func (f *publishedFrom) findLost() (map[chantal.Digest]bool, error) {
	var missing []chantal.Digest
	for _, p := range f.Listed() {
		if d := p.SHA256(); d != "" && p.Kind == chantal.Meta {
			if _, err := f.repo.m.Store.Find("", d); errors.Is(err, fs.ErrNotExist) {
				missing = append(missing, d)
			}
		}
	}
	return f.repo.m.Store.OnceStored(missing)
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
	if !lost[index.SHA256()] && !f.repo.m.Store.WasDamaged(index.SHA256()) {
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
	// judge returns err as it is where the file is what its name says.
	judge := func(err error) error {
		if _, failed := io.Copy(io.Discard, raw); failed != nil {
			return fmt.Errorf("reading %s: %w", index.Path, failed)
		}
		if hex.EncodeToString(sum.Sum(nil)) != blob.Digest.Hex() {
			f.repo.m.setAside(blob.Digest)
			return damagedError(index.Path)
		}
		return err
	}
	plain, err := decompress(index.Path, raw, blob.Size)
	if err != nil {
		err = judge(err)
		file.Close()
		return nil, err
	}
	return &proving{opened{plain, file}, f.ctx, judge}, nil
}

// setAside has a blob read again that is not what its name says, so that it is
// fetched anew.
func (m *Mirror) setAside(d chantal.Digest) { _, _, _ = m.Store.Check(m.ctx, d, nil, nil) }

func damagedError(path string) error {
	return fmt.Errorf("%s was damaged on the disk and has been set aside: try again, it is fetched anew as long as upstream has it", path)
}

// proving lets the end of a file, or what goes wrong before it, be judged. It
// ends when nobody waits any longer.
type proving struct {
	opened
	ctx   context.Context
	judge func(error) error
}

func (p *proving) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.opened.Read(b)
	if err != nil {
		err = p.judge(err)
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
	plain := stored
	if suffix == "" {
		err = buffered(stored, fill)
	} else {
		plain, err = packed(suffix, stored, algos, fill)
	}
	if err != nil {
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

func buffered(w io.Writer, fill func(io.Writer) error) error {
	b := bufio.NewWriterSize(w, chunk)
	if err := fill(b); err != nil {
		return err
	}
	return b.Flush()
}

// chunk is how many bytes are made, hashed and compressed at a time.
const chunk = 256 << 10

// packed compresses what fill writes into w, while fill goes on, and returns
// what is known of the plain content.
func packed(suffix string, w io.Writer, algos []string, fill func(io.Writer) error) (*hashing, error) {
	packer, err := compressor(suffix, w)
	if err != nil {
		return nil, err
	}
	r, pipe := io.Pipe()
	plain, err := newHashing(pipe, algos)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(packer, r, make([]byte, chunk))
		err = errors.Join(err, packer.Close())
		r.CloseWithError(err)
		done <- err
	}()
	err = buffered(plain, fill)
	pipe.CloseWithError(err) // nil is the end
	if failed := <-done; err == nil {
		err = failed
	}
	return plain, err
}

// compressor compresses into w as suffix says; the same bytes every time.
func compressor(suffix string, w io.Writer) (io.WriteCloser, error) {
	switch suffix {
	case ".gz":
		return gzip.NewWriterLevel(w, gzip.DefaultCompression)
	case ".zst":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	case ".xz":
		return xz.NewWriter(w)
	}
	return nil, fmt.Errorf("nothing here compresses as %s", suffix)
}

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
