package cas

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chantal"
)

// arrived returns what a follower could read now, without waiting.
func arrived(g *Growing) int64 {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n, _, _ := g.await(ctx, 0)
	return n
}

func TestTheEndIsHeldBack(t *testing.T) {
	const size = 300 << 10
	data := content(1, size)
	for name, c := range map[string]struct {
		size  int64
		steps map[int]int64 // written → readable
	}{
		"known":   {size, map[int]int64{1: 1, 100 << 10: 100 << 10, size - HoldBack: size - HoldBack, size - 1: size - HoldBack, size: size - HoldBack}},
		"unknown": {-1, map[int]int64{1: 0, HoldBack: 0, HoldBack + 1: 1, 100 << 10: 36 << 10, size: size - HoldBack}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), Options{})
			for written, want := range c.steps {
				g, err := s.Create(Want{Size: c.size, Digests: []chantal.Digest{sha(data)}})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := g.Write(data[:written]); err != nil {
					t.Fatal(err)
				}
				if got := arrived(g); got != want {
					t.Errorf("after %d bytes %d can be read, want %d", written, got, want)
				}
				if _, err := g.Write(data[written:]); err != nil {
					t.Fatal(err)
				}
				if _, err := g.Commit(); err != nil {
					t.Fatal(err)
				}
				if got := arrived(g); got != size {
					t.Errorf("after Commit %d can be read", got)
				}
			}
		})
	}
}

// A body without an end must not fill the disk.
func TestMoreThanPromisedIsNotTaken(t *testing.T) {
	data := content(3, 1000)
	g, err := open(t, t.TempDir(), Options{}).Create(Want{Path: "p", Digests: []chantal.Digest{sha(data)}, Size: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Write(data); err != nil {
		t.Fatal(err)
	}
	var wrong *chantal.MismatchError
	if _, err := g.Write([]byte("!")); !errors.As(err, &wrong) {
		t.Errorf("one byte more: %v", err)
	}
	if err := g.Err(); !errors.As(err, &wrong) {
		t.Errorf("followers get %v", err)
	}
}

func TestTheAnnouncedSizeCounts(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	g, err := s.Create(Want{Path: "p", Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	f, err := g.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(0, io.SeekEnd); err == nil {
		t.Error("Seek knows the end of a file without size")
	}
	g.SetSize(100 << 10)
	if n, err := f.Seek(-1, io.SeekEnd); err != nil || n != 100<<10-1 {
		t.Errorf("Seek: %d %v", n, err)
	}
	if _, err := g.Write(content(1, 50<<10)); err != nil {
		t.Fatal(err)
	}
	if got := arrived(g); got != 36<<10 {
		t.Errorf("%d bytes can be read", got)
	}
	var mm *chantal.MismatchError
	if _, err := g.Commit(); !errors.As(err, &mm) {
		t.Errorf("a file that is too short: %v", err)
	}

	promised, err := s.Create(Want{Path: "p", Size: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer promised.Abort(nil)
	promised.SetSize(20)
	if promised.Size() != 10 {
		t.Error("upstream overrules the promised size")
	}
}

func TestFiftyFollowersAndOneThatNeverReads(t *testing.T) {
	s := open(t, t.TempDir(), Options{SyncEvery: time.Millisecond, SyncFiles: 1})
	data := content(1, 1<<20+17)
	g, err := s.Create(Want{Size: -1, Digests: []chantal.Digest{sha(data)}})
	if err != nil {
		t.Fatal(err)
	}
	lazy, err := g.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lazy.Close()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			f, err := g.Follow(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			var got bytes.Buffer
			if i%2 == 0 {
				_, err = f.WriteTo(&got)
			} else {
				_, err = io.Copy(&got, struct{ io.Reader }{f})
			}
			if err != nil || !bytes.Equal(got.Bytes(), data) {
				t.Errorf("follower %d: %d bytes, %v", i, got.Len(), err)
			}
		})
	}
	for i := 0; i < len(data); i += 100_000 {
		if _, err := g.Write(data[i:min(i+100_000, len(data))]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(lazy)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("reading after all was done: %d bytes, %v", len(got), err)
	}
	late, err := g.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if n, err := late.Seek(1<<19, io.SeekStart); n != 1<<19 || err != nil {
		t.Fatal(n, err)
	}
	if got, err := io.ReadAll(late); err != nil || !bytes.Equal(got, data[1<<19:]) {
		t.Errorf("following after the rename: %d bytes, %v", len(got), err)
	}
}

func TestAbortReachesFollowers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	g, err := s.Create(Want{Path: "pool/x.deb", Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Write(content(1, 600<<10)); err != nil {
		t.Fatal(err)
	}
	f, err := g.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cause := errors.New("connection reset")
	got := make(chan error, 2)
	go func() { _, err := f.WriteTo(io.Discard); got <- err }()
	go func() { got <- f.Wait(context.Background()) }()
	g.Abort(cause)
	for range 2 {
		if err := <-got; !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
	}
	<-g.Done()
	if err := g.Ready(t.Context()); !errors.Is(err, cause) {
		t.Errorf("Ready: %v", err)
	}
	if _, err := g.Write([]byte("x")); !errors.Is(err, cause) {
		t.Errorf("Write: %v", err)
	}
	if _, err := g.Commit(); !errors.Is(err, cause) {
		t.Errorf("Commit: %v", err)
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAbortAfterCommitDoesNothing(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	g, err := s.Create(Want{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	b, err := g.Commit()
	if err != nil {
		t.Fatal(err)
	}
	g.Abort(errors.New("late"))
	if g.Err() != nil || g.Blob() != b || g.Size() != 3 || g.Written() != 3 {
		t.Errorf("%v %v %d %d", g.Err(), g.Blob(), g.Size(), g.Written())
	}
	if string(read(t, s, b.Digest)) != "abc" {
		t.Error("other bytes")
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	g, err := s.Create(Want{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Abort(nil)
	ctx, cancel := context.WithCancel(context.Background())
	f, err := g.Follow(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 3)
	go func() { _, err := f.Read(make([]byte, 1)); got <- err }()
	go func() { got <- f.Wait(context.Background()) }()
	go func() { got <- g.Ready(ctx) }()
	cancel()
	for range 3 {
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	f.Close()

	f, err = g.Follow(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, err := f.Read(make([]byte, 1)); got <- err }()
	f.Close()
	if err := <-got; !errors.Is(err, os.ErrClosed) {
		t.Errorf("reading while Close is called: %v", err)
	}
}

// spyConn counts how much reaches the connection through a form that the
// kernel can send by itself.
type spyConn struct {
	*net.TCPConn
	files, other atomic.Int64
}

func (c *spyConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			c.files.Add(n)
			return n, err
		}
	}
	c.other.Add(n)
	return n, err
}

func (c *spyConn) Write(p []byte) (int, error) {
	c.other.Add(int64(len(p)))
	return c.TCPConn.Write(p)
}

func TestWriteToLetsTheKernelSend(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			received <- nil
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		received <- b
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	spy := &spyConn{TCPConn: c.(*net.TCPConn)}

	s := open(t, t.TempDir(), Options{})
	data := content(1, 2<<20)
	g, err := s.Create(Want{Size: int64(len(data)), Digests: []chantal.Digest{sha(data)}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := g.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := f.WriteTo(spy)
		sent <- errors.Join(err, spy.Close())
	}()
	for i := 0; i < len(data); i += chunk {
		if _, err := g.Write(data[i : i+chunk]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-received, data) {
		t.Error("other bytes arrived")
	}
	if spy.files.Load() != int64(len(data)) || spy.other.Load() != 0 {
		t.Errorf("%d bytes by sendfile, %d otherwise", spy.files.Load(), spy.other.Load())
	}
}
