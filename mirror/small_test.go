package mirror

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/testenv"
)

func TestASmallFileIsAnsweredFromMemoryForAMinute(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 1000}, baseA)
	want := s.content(at)
	wantGet(t, live, at, want)
	if err := w.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantGet(t, live, at, want)

	// With the blob gone only a copy in memory can answer.
	hex := sha256Of(want).Hex()
	if err := os.Remove(filepath.Join(w.dir, "blobs", hex[:2], hex)); err != nil {
		t.Fatal(err)
	}
	asked := len(w.up.requests(at))
	f := wantGet(t, live, at, want)
	if f.Size != int64(len(want)) || f.Digest != sha256Of(want) {
		t.Errorf("got size %d and digest %s", f.Size, f.Digest)
	}
	if n := len(w.up.requests(at)); n != asked {
		t.Errorf("upstream was asked %d times for what is in memory", n-asked)
	}
	w.clock.advance(2 * time.Minute)
	wantGet(t, live, at, want)
	if n := len(w.up.requests(at)); n != asked+1 {
		t.Errorf("upstream was asked %d times for what the store has lost, want once", n-asked)
	}
}

func TestALargeFileIsNotKeptInMemory(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: smallSize}, baseA)
	wantGet(t, live, at, s.content(at))
	f, err := live.Open(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok := f.Content.(*os.File); !ok {
		t.Errorf("got a %T: what is not a file cannot be sent by sendfile", f.Content)
	}
}

func TestReadersOfOneCopyDoNotDisturbEachOther(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 1000}, baseA)
	want := s.content(at)
	wantGet(t, live, at, want)
	first, err := live.Open(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	half := make([]byte, len(want)/2)
	if _, err := first.Content.Read(half); err != nil {
		t.Fatal(err)
	}
	wantGet(t, live, at, want)
	rest := make([]byte, len(want)-len(half))
	if _, err := first.Content.Read(rest); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(half, rest...), want) {
		t.Error("the first reader got other bytes")
	}
}

func TestCopiesInMemoryStayWithinTheirLimit(t *testing.T) {
	s := newSmallBlobs()
	now := time.Now()
	keep := func(i int) chantal.Digest {
		content := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, smallSize/2)
		d := sha256Of(content)
		s.keep(&inMemory{*bytes.NewReader(content)}, cas.Blob{Digest: d, Size: smallSize}, now, 0)
		return d
	}
	first := keep(0)
	keep(0)
	if s.bytes != smallSize {
		t.Errorf("one blob kept twice takes %d bytes, want %d", s.bytes, smallSize)
	}
	var last chantal.Digest
	for i := range smallTotal/smallSize + 10 {
		last = keep(i + 1)
	}
	if s.bytes != smallTotal {
		t.Errorf("copies take %d bytes, want %d", s.bytes, smallTotal)
	}
	if content, _ := s.open(first, now, 0); content != nil {
		t.Error("the first copy is still there, though others needed its place")
	}
	if content, _ := s.open(last, now, 0); content == nil {
		t.Error("the last copy is gone")
	}
}

func TestCopiesInMemoryEndWhenABlobIsFoundDamaged(t *testing.T) {
	s, now, body := newSmallBlobs(), time.Now(), []byte("content")
	b := cas.Blob{Digest: sha256Of(body), Size: int64(len(body))}
	s.keep(&inMemory{*bytes.NewReader(body)}, b, now, 0)
	if c, _ := s.open(b.Digest, now, 0); c == nil {
		t.Fatal("the copy is not kept")
	}
	if c, _ := s.open(b.Digest, now, 1); c != nil {
		t.Error("a copy outlives the damage, and may be of it")
	}
}
