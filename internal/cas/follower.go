package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"chantal"
	"chantal/internal/disk"
)

// Follower reads a file that is arriving, at its own pace. It never returns
// one of the last 64 KiB (of the file, or of what has arrived while its size
// is unknown) before the whole has been verified. It is for one goroutine;
// only Close may be called from another.
type Follower struct {
	g      *Growing
	f      *disk.File // nil where the bytes are in memory
	mem    *memory    // where they are else, and those to come; guarded by Growing.mu
	off    int64
	ctx    context.Context // ends waiting reads
	cancel context.CancelCauseFunc
}

var _ chantal.Growing = (*Follower)(nil)

// Follow returns a reader of the file from its start, which stays usable after
// Commit. Reads that wait end with ctx. The caller closes it. The error is the
// reason why the file failed, where it has; chantal.ErrNotKept where its start is no
// longer there.
func (g *Growing) Follow(ctx context.Context) (*Follower, error) {
	f := &Follower{g: g}
	if err := g.follow(f); err != nil {
		return nil, err
	}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	return f, nil
}

// Read waits for bytes. At the end of the verified file the error is io.EOF.
func (f *Follower) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, end, err := f.g.await(f.ctx, f.off)
	if err != nil {
		return 0, err
	}
	if end {
		return 0, io.EOF
	}
	from, inMemory, n := f.g.source(f, f.off, min(int64(len(p)), n))
	if f.f == nil && !inMemory && from == io.ReaderAt(f.f) {
		return 0, fs.ErrClosed
	}
	read, err := from.ReadAt(p[:n], f.off)
	if inMemory {
		if gone := f.g.valid(f.off); gone != nil {
			return 0, gone
		}
	}
	f.off += int64(read)
	f.g.read(f, f.off)
	if err == io.EOF { // no longer as long as it was
		err = io.ErrUnexpectedEOF
	}
	return read, err
}

// WriteTo writes the rest of the file to w as it arrives. It hands w an
// *io.LimitedReader over the *os.File, so that sendfile is used where w can.
func (f *Follower) WriteTo(w io.Writer) (int64, error) {
	var sum int64
	for {
		n, end, err := f.g.await(f.ctx, f.off)
		if err != nil || end {
			return sum, err
		}
		from, _, n := f.g.source(f, f.off, n)
		if from != io.ReaderAt(f.f) {
			c, err := f.copyMemory(w, n)
			sum += c
			if err != nil {
				return sum, err
			}
			continue
		}
		if _, err := f.f.Seek(f.off, io.SeekStart); err != nil {
			return sum, err
		}
		c, err := io.CopyN(w, f.f, n)
		sum += c
		f.off += c
		f.g.read(f, f.off)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return sum, err
		}
	}
}

// copyMemory writes at most n bytes to w. What is in memory may be forgotten
// while it is read, so each piece is looked at again before it goes out.
func (f *Follower) copyMemory(w io.Writer, n int64) (int64, error) {
	p := chunks.Get().(*[]byte)
	defer chunks.Put(p)
	read, err := f.Read((*p)[:min(n, chunk)])
	if err != nil {
		return 0, err
	}
	out, err := w.Write((*p)[:read])
	return int64(out), err
}

// Seek sets the position of the next Read or WriteTo. It never waits; relative
// to the end it fails while the size is unknown.
func (f *Follower) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.off
	case io.SeekEnd:
		size := f.g.Size()
		if size < 0 {
			return f.off, errors.New("seeking from the end of a file whose size is not known yet")
		}
		offset += size
	default:
		return f.off, fmt.Errorf("seek: whence %d: %w", whence, fs.ErrInvalid)
	}
	if offset < 0 {
		return f.off, fmt.Errorf("seek to %d: %w", offset, fs.ErrInvalid)
	}
	f.off = offset
	f.g.read(f, offset)
	return offset, nil
}

// Wait returns when the file is complete and verified, or with the reason why
// it never will be, or when ctx or the follower's own context ends.
func (f *Follower) Wait(ctx context.Context) error {
	select {
	case <-f.g.done:
		return f.g.Err()
	default:
	}
	select {
	case <-f.g.done:
		return f.g.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

// Passing reports whether the file is forgotten while it is read, so that there
// will be nothing to open when it is complete.
func (f *Follower) Passing() bool {
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	return f.g.spilled.passing
}

// Close ends waiting reads and frees the file. The arriving file goes on.
func (f *Follower) Close() error {
	f.cancel(fs.ErrClosed)
	f.g.leave(f)
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}
