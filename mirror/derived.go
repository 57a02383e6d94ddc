package mirror

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"

	"chantal"
	"chantal/internal/cas"
)

// linesVersion is part of every derived file's name: raise it when a parser or
// the form of the lines changes.
const linesVersion = "1"

// derivation is the making of one derived file.
type derivation struct {
	done chan struct{}
	err  error
}

// lines is a derived file: the promises of one index as sorted lines, read by
// binary search. Close it.
type lines struct {
	derivedFile
	size int64
}

type derivedFile interface {
	io.ReaderAt
	io.Closer
}

// lines returns the derived file of an index, made if need be.
func (r *Repo) lines(indexPath string, blob cas.Blob) (*lines, error) {
	sum := sha256.Sum256([]byte(path.Dir(indexPath) + "\n" + path.Base(indexPath)))
	key := r.Type + "-" + linesVersion + "-" + blob.Digest.Hex() + "-" + hex.EncodeToString(sum[:6])
	for range 2 {
		f, err := r.m.Store.Derived(key)
		if err == nil {
			st, err := f.Stat()
			if err != nil {
				f.Close()
				return nil, err
			}
			return &lines{f, st.Size()}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		d := r.m.derived.join(key, func() *derivation {
			d := &derivation{done: make(chan struct{})}
			go func() {
				defer r.m.derived.leave(key)
				defer close(d.done)
				d.err = r.derive(key, indexPath, blob)
				if d.err != nil {
					// Either upstream wrote nonsense or the disk did.
					if _, _, damage := r.m.Store.Check(r.m.ctx, blob.Digest, nil, nil); errors.Is(damage, fs.ErrNotExist) {
						d.err = damage
					}
				}
			}()
			return d
		})
		<-d.done
		if d.err != nil {
			return nil, fmt.Errorf("reading %s: %w", indexPath, d.err)
		}
	}
	return nil, fmt.Errorf("the derived form of %s does not stay", indexPath)
}

func (r *Repo) derive(key, indexPath string, blob cas.Blob) error {
	r.m.deriving <- struct{}{}
	defer func() { <-r.m.deriving }()
	f, _, err := r.m.Store.Open(blob.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := decompress(indexPath, f, blob.Size)
	if err != nil {
		return err
	}
	defer plain.Close()
	var buf []byte
	var ends []int
	for p, err := range r.Format.Parse(indexPath, plain) {
		if err != nil {
			return err
		}
		buf = appendLine(buf, &p)
		ends = append(ends, len(buf))
	}
	text := string(buf)
	sorted := make([]string, len(ends))
	start := 0
	for i, end := range ends {
		sorted[i] = text[start:end]
		start = end
	}
	slices.Sort(sorted)
	return r.m.Store.PutDerived(key, func(w io.Writer) error {
		b := bufio.NewWriterSize(w, 256<<10)
		for _, line := range slices.Compact(sorted) {
			b.WriteString(line)
		}
		return b.Flush()
	})
}

// find yields the promises for a path.
func (l *lines) find(p string) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		want := p + "\t"
		lo, hi := int64(0), l.size // the first line not below want begins in [lo, hi]
		for lo < hi {
			mid := lo + (hi-lo)/2
			start, line, err := l.lineAt(mid, lo)
			if err != nil {
				yield(chantal.Promise{}, err)
				return
			}
			if line != "" && line < want {
				lo = start + int64(len(line))
			} else {
				hi = min(start, mid)
			}
		}
		for line, err := range l.from(lo) {
			if err == nil && !strings.HasPrefix(line, want) {
				return
			}
			var promise chantal.Promise
			if err == nil {
				promise, err = parseLine(line)
			}
			if !yield(promise, err) || err != nil {
				return
			}
		}
	}
}

// lineAt returns the line that holds the byte at off, searching its start not
// before floor, which is the start of a line.
func (l *lines) lineAt(off, floor int64) (int64, string, error) {
	start := floor
	buf := make([]byte, 4096)
	for end := off; end > floor; {
		from := max(floor, end-int64(len(buf)))
		chunk := buf[:end-from]
		if _, err := l.ReadAt(chunk, from); err != nil {
			return 0, "", err
		}
		if i := strings.LastIndexByte(string(chunk), '\n'); i >= 0 {
			start = from + int64(i) + 1
			break
		}
		end = from
	}
	for line, err := range l.from(start) {
		return start, line, err
	}
	return start, "", nil
}

// from yields the lines from one that begins at off.
func (l *lines) from(off int64) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		r := bufio.NewReaderSize(io.NewSectionReader(l, off, l.size-off), 4096)
		for {
			line, err := r.ReadString('\n')
			if err == io.EOF {
				return
			}
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// each yields what counts of every promise: its digests as they are written,
// its size and its kind. The bytes are valid until the next one.
func (l *lines) each() iter.Seq2[brief, error] {
	return func(yield func(brief, error) bool) {
		for r := l.reader(); r.next(); {
			var b brief
			err := r.err
			if err == nil {
				_, rest, _ := bytes.Cut(r.line, tab)
				digests, rest, _ := bytes.Cut(rest, tab)
				size, rest, _ := bytes.Cut(rest, tab)
				b.digests = digests
				b.size, err = strconv.ParseInt(string(size), 10, 64)
				if len(rest) > 0 {
					b.kind = chantal.Kind(rest[0] - '0')
				}
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

// lineReader reads the lines of a derived file in their order.
type lineReader struct {
	r    *bufio.Reader
	line []byte // with its end; valid until next is called
	err  error  // why there is no line
}

func (l *lines) reader() *lineReader {
	return &lineReader{r: bufio.NewReaderSize(io.NewSectionReader(l, 0, l.size), 256<<10)}
}

// next reports whether there is a line, or an error, after the present one.
func (r *lineReader) next() bool {
	if r.err != nil {
		return false
	}
	r.line, r.err = r.r.ReadSlice('\n')
	return r.err != io.EOF
}

// failed returns why there is no line, but for the end.
func (r *lineReader) failed() error {
	if r.err == io.EOF {
		return nil
	}
	return r.err
}

// brief is a promise reduced to what is counted.
type brief struct {
	digests []byte // separated by spaces
	size    int64
	kind    chantal.Kind
}

var tab = []byte{'\t'}
