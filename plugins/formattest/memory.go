package formattest

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
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
	"iter"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
	xzwriter "github.com/ulikunitz/xz"

	"chantal"
)

// Memory is a generation in memory; it implements chantal.Contents.
type Memory struct {
	Format chantal.Format
	Of     chantal.Tree
	Files  map[string][]byte // roots and indexes by path, as upstream has them
}

var _ chantal.Contents = (*Memory)(nil)

// Tree implements chantal.Contents: with those roots that there are.
func (m *Memory) Tree() chantal.Tree {
	t := chantal.Tree{Name: m.Of.Name}
	for _, root := range m.Of.Roots {
		if m.Files[root] != nil {
			t.Roots = append(t.Roots, root)
		}
	}
	return t
}

// Root implements chantal.Contents.
func (m *Memory) Root(name string) []byte {
	if m.Format.Classify(name).Kind != chantal.Root {
		return nil
	}
	return m.Files[name]
}

// Listed implements chantal.Contents. It panics where a root is damaged, for
// no such generation exists.
func (m *Memory) Listed() []chantal.Promise {
	var listed []chantal.Promise
	for _, root := range m.Of.Roots {
		body, ok := m.Files[root]
		if !ok {
			continue
		}
		seq := m.Format.Parse(root, bytes.NewReader(body))
		if seq == nil {
			continue
		}
		for p, err := range seq {
			if err != nil {
				panic(err)
			}
			listed = append(listed, p)
		}
	}
	return listed
}

// Promises implements chantal.Contents.
func (m *Memory) Promises(index chantal.Promise) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		r, err := m.Open(index)
		if err != nil {
			yield(chantal.Promise{}, err)
			return
		}
		defer r.Close()
		seq := m.Format.Parse(index.Path, r)
		if seq == nil {
			return
		}
		seq(yield)
	}
}

// Open implements chantal.Contents. A file that is not what index promises is
// an error.
func (m *Memory) Open(index chantal.Promise) (io.ReadCloser, error) {
	body, ok := m.Files[index.Path]
	if !ok {
		return nil, fmt.Errorf("%s: %w", index.Path, fs.ErrNotExist)
	}
	if err := Holds(index, body); err != nil {
		return nil, err
	}
	var r io.Reader = bytes.NewReader(body)
	var err error
	switch path.Ext(index.Path) {
	case ".gz":
		r, err = gzip.NewReader(r)
	case ".bz2":
		r = bzip2.NewReader(r)
	case ".xz":
		r, err = xz.NewReader(r, 0)
	case ".zst":
		r, err = zstd.NewReader(r)
	}
	return io.NopCloser(r), err
}

// Holds reports in what body is not what p promises.
func Holds(p chantal.Promise, body []byte) error {
	if p.Size >= 0 && p.Size != int64(len(body)) {
		return fmt.Errorf("%s has %d bytes, not %d", p.Path, len(body), p.Size)
	}
	for _, d := range p.Digests {
		if got := Digest(d.Algo(), body); got != d {
			return fmt.Errorf("%s has the digest %s, not %s", p.Path, got, d)
		}
	}
	return nil
}

// Digest returns the digest of body with an algorithm of the standard library.
// It panics for others.
func Digest(algo string, body []byte) chantal.Digest {
	var h hash.Hash
	switch algo {
	case "sha512":
		h = sha512.New()
	case "sha384":
		h = sha512.New384()
	case "sha256":
		h = sha256.New()
	case "sha224":
		h = sha256.New224()
	case "sha1":
		h = sha1.New()
	case "md5":
		h = md5.New()
	default:
		panic("no such algorithm: " + algo)
	}
	h.Write(body)
	return chantal.Digest(algo + ":" + hex.EncodeToString(h.Sum(nil)))
}

// Publication takes in memory what a chantal.Publisher writes.
type Publication struct {
	chantal.Signer // nil for signatures that only look like some
	When           time.Time
	Written        [][]byte // as stored
	Fails          error    // what Write returns, once Allowed writes were good
	Allowed        int

	mu sync.Mutex
}

var _ chantal.Publication = (*Publication)(nil)

// Date implements chantal.Publication.
func (p *Publication) Date() time.Time { return p.When }

// ClearSign implements chantal.Signer.
func (p *Publication) ClearSign(text []byte, at time.Time) ([]byte, error) {
	if p.Signer != nil {
		return p.Signer.ClearSign(text, at)
	}
	return fmt.Appendf(nil, "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n%s\n%s", bytes.TrimSuffix(text, []byte("\n")), looks(text)), nil
}

// DetachSign implements chantal.Signer.
func (p *Publication) DetachSign(body []byte, at time.Time) ([]byte, error) {
	if p.Signer != nil {
		return p.Signer.DetachSign(body, at)
	}
	return looks(body), nil
}

func looks(body []byte) []byte {
	return fmt.Appendf(nil, "-----BEGIN PGP SIGNATURE-----\n\n%s\n-----END PGP SIGNATURE-----\n", Digest("sha256", body).Hex())
}

// PublicKey implements chantal.Signer.
func (p *Publication) PublicKey() []byte {
	if p.Signer != nil {
		return p.Signer.PublicKey()
	}
	return []byte("a key\n")
}

// Write implements chantal.Publication.
func (p *Publication) Write(suffix string, algos []string, fill func(io.Writer) error) (w chantal.Written, err error) {
	var plain bytes.Buffer
	if err := fill(&plain); err != nil {
		return w, err
	}
	stored, err := Pack(suffix, plain.Bytes())
	if err != nil {
		return w, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Fails != nil && len(p.Written) >= p.Allowed {
		return w, p.Fails
	}
	p.Written = append(p.Written, stored)
	w.Size, w.PlainSize = int64(len(stored)), int64(plain.Len())
	for _, algo := range algos {
		w.Digests = append(w.Digests, Digest(algo, stored))
		w.PlainDigests = append(w.PlainDigests, Digest(algo, plain.Bytes()))
	}
	return w, nil
}

// Pack compresses as a suffix says: "", ".gz", ".xz", ".zst".
func Pack(suffix string, plain []byte) ([]byte, error) {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case "":
		return plain, nil
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	case ".xz":
		w, err = xzwriter.NewWriter(&b)
	default:
		err = fmt.Errorf("nobody writes %q", suffix)
	}
	if err != nil {
		return nil, err
	}
	_, err = w.Write(plain)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}

// Of returns what was published as the generation that clients get: roots, and
// of the indexes that they list those that were written, else those of the
// sources under the same path, where these have them. The error names one that
// is neither written nor promised by a source.
func (p *Publication) Of(f chantal.Format, t chantal.Tree, roots map[string][]byte, sources ...chantal.Contents) (*Memory, error) {
	m := &Memory{Format: f, Of: t, Files: map[string][]byte{}}
	for name, body := range roots {
		m.Files[name] = body
	}
next:
	for _, listed := range m.Listed() {
		if listed.Kind != chantal.Meta {
			continue
		}
		for _, body := range p.Written {
			if len(listed.Digests) > 0 && Holds(listed, body) == nil {
				m.Files[listed.Path] = body
				continue next
			}
		}
		for _, s := range sources {
			same := func(p chantal.Promise) bool { return p.Path == listed.Path && slices.Equal(p.Digests, listed.Digests) }
			if !slices.ContainsFunc(s.Listed(), same) {
				continue
			}
			if s, ok := s.(*Memory); ok && s.Files[listed.Path] != nil {
				m.Files[listed.Path] = s.Files[listed.Path]
			}
			continue next
		}
		return nil, fmt.Errorf("%s is listed, and neither written nor that of a source", listed.Path)
	}
	return m, nil
}
