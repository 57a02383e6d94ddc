package mirror

import (
	"bufio"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
	"github.com/ulikunitz/xz/lzma"
)

// Limits on what a compressed index may become, so that a few bytes cannot
// fill the memory or keep a processor busy.
const (
	maxIndex  = 4 << 30  // bytes, decompressed
	maxRatio  = 200      // decompressed to compressed…
	freeRatio = 16 << 20 // …beyond these bytes
	maxWindow = 64 << 20 // bytes of dictionary or window
)

var errBomb = errors.New("decompresses to more than an index may have")

// decompress returns the content of an index of size compressed bytes, by the
// suffix of its name. Closing it does not close r.
func decompress(name string, r io.Reader, size int64) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 256<<10)
	var out io.Reader
	var err error
	closer := func() {}
	switch path.Ext(name) {
	case ".gz":
		out, err = gzip.NewReader(in)
	case ".bz2":
		out = bzip2.NewReader(in)
	case ".xz":
		out, err = xz.NewReader(in, maxWindow)
	case ".zst":
		var d *zstd.Decoder
		d, err = zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxIndex), zstd.WithDecoderConcurrency(1))
		if err == nil {
			out, closer = d, d.Close
		}
	case ".lzma":
		out, err = newLZMA(in)
	default:
		return io.NopCloser(&capped{r: in, left: maxIndex}), nil
	}
	if err != nil {
		return nil, fmt.Errorf("decompressing %s: %w", name, err)
	}
	limit := min(int64(maxIndex), max(freeRatio, size*maxRatio))
	return &decompressed{capped{r: out, left: limit}, closer}, nil
}

// newLZMA checks the dictionary size in the header (.lzma: one byte of
// properties, then four of dictionary size, little-endian) before anything is
// allocated for it.
func newLZMA(in *bufio.Reader) (io.Reader, error) {
	head, err := in.Peek(5)
	if err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if n := binary.LittleEndian.Uint32(head[1:]); n > maxWindow {
		return nil, fmt.Errorf("dictionary of %d bytes", n)
	}
	return lzma.NewReader(in)
}

type decompressed struct {
	capped
	close func()
}

func (d *decompressed) Close() error { d.close(); return nil }

// capped fails once more than left bytes have been read.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, errBomb
	}
	return n, err
}
