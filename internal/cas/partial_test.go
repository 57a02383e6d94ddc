package cas

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chantal"
)

// begin writes the first n bytes of a large file and gives it up.
func begin(t *testing.T, s *Store, data []byte, n int, why error) {
	t.Helper()
	g, err := s.Create(wantOf(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Write(data[:n]); err != nil {
		t.Fatal(err)
	}
	g.Abort(why)
}

func wantOf(data []byte) Want {
	return Want{Repo: "debian", Path: "large", Digests: []chantal.Digest{sha(data)}, Size: int64(len(data))}
}

func TestTheBeginningOfALargeFileStays(t *testing.T) {
	const size = 3 << 20
	data := content(1, size)
	for name, c := range map[string]struct {
		written int
		why     error
		stays   bool
	}{
		"broken off":         {2 << 20, errors.New("connection reset"), true},
		"given up":           {2 << 20, nil, true},
		"too little":         {100 << 10, errors.New("connection reset"), false},
		"of the wrong bytes": {2 << 20, &chantal.MismatchError{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{})
			begin(t, s, data, c.written, c.why)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, Options{})
			<-s.tidied
			g, err := s.Resume(wantOf(data))
			if !c.stays {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("got %v, want nothing to go on with", err)
				}
				if left := names(t, filepath.Join(dir, "blobs")); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := g.Written(); n != int64(c.written) {
				t.Errorf("%d bytes are there, want %d", n, c.written)
			}
			if _, err := g.Write(data[c.written:]); err != nil {
				t.Fatal(err)
			}
			if _, err := g.Commit(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(read(t, s, sha(data)), data) {
				t.Error("other bytes")
			}
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if left := names(t, filepath.Join(dir, "blobs")); len(left) != 1 {
				t.Errorf("got %v, want the blob alone", left)
			}
		})
	}
}

func TestOneWriterGoesOnWithABeginning(t *testing.T) {
	data := content(2, 2<<20)
	s := open(t, t.TempDir(), Options{})
	begin(t, s, data, 1<<20, nil)
	first, err := s.Resume(wantOf(data))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(wantOf(data)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the second got %v, want nothing", err)
	}
	second, err := s.Create(wantOf(data))
	if err != nil {
		t.Fatal(err)
	}
	for g, from := range map[*Growing]int{first: 1 << 20, second: 0} {
		if _, err := g.Write(data[from:]); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range []*Growing{first, second} {
		if _, err := g.Commit(); err != nil {
			t.Error(err)
		}
	}
	// Stored, and not yet durable: nobody takes its file away.
	third, err := s.Create(wantOf(data))
	if err != nil {
		t.Fatal(err)
	}
	third.Abort(nil)
	if !bytes.Equal(read(t, s, sha(data)), data) {
		t.Error("other bytes")
	}
}

func TestBeginningsAreNotKeptForEver(t *testing.T) {
	data, other := content(3, 2<<20), content(4, 2<<20)
	dir := t.TempDir()
	s := open(t, dir, Options{})
	begin(t, s, data, 1<<20, nil)
	begin(t, s, other, 1<<20, nil)
	long := time.Now().Add(-partialKept)
	if err := os.Chtimes(s.partialPath(sha(data)), long, long); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	<-s.tidied
	busy, err := s.Resume(wantOf(other))
	if err != nil {
		t.Fatal(err)
	}
	s.dropPartials(time.Now())
	if _, err := s.Resume(wantOf(data)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an old beginning: got %v, want it to be gone", err)
	}
	s.dropPartials(time.Now().Add(2 * partialKept))
	if _, err := busy.Write(other[1<<20:]); err != nil {
		t.Fatal(err)
	}
	if _, err := busy.Commit(); err != nil {
		t.Errorf("one that is gone on with: %v", err)
	}
	if !bytes.Equal(read(t, s, sha(other)), other) {
		t.Error("other bytes")
	}
}

func TestTheEpochEndsWhenBlobsMayGo(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	first := s.Epoch()
	if first == "" || s.Epoch() != first {
		t.Fatalf("got %q and then %q", first, s.Epoch())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if got := s.Epoch(); got != first {
		t.Errorf("after a restart: got %q, want %q", got, first)
	}
	why := errors.New("why")
	err := s.Shrink(func() error {
		if got := s.Epoch(); got != "" {
			t.Errorf("meanwhile: got %q", got)
		}
		if _, err := os.Stat(filepath.Join(dir, "epoch")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a process that is killed now would leave the epoch behind: %v", err)
		}
		return why
	})
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if got := s.Epoch(); got == "" || got == first {
		t.Errorf("afterwards: got %q", got)
	}
}
