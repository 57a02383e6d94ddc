package mirror

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"chantal/internal/disk"
	"chantal/internal/disk/disktest"
	"chantal/internal/testenv"
)

// file returns where the blob with that content lies.
func (w *world) file(content []byte) string {
	hex := sha256Of(content).Hex()
	return filepath.Join(w.dir, "blobs", hex[:2], hex)
}

// Whoever finds a file that is freed before it is opened gets it from upstream.
func TestAFileThatIsFreedBetweenTwoLooksIsFetchedAgain(t *testing.T) {
	for _, looks := range []int{1, 2, 3, 4} {
		t.Run(fmt.Sprint(looks), func(t *testing.T) { freedBetween(t, looks) })
	}
}

func freedBetween(t *testing.T, looks int) {
	w, s := newWorld(t), newSuite(t)
	pool := s.add(testenv.Package{Name: "hello", Version: "1", Size: 300 << 10})
	s.publish(w.up, baseA)
	v := w.debian(baseA).Live(Client{})
	wantGet(t, v, inRelease, s.content(inRelease))
	wantGet(t, v, packagesXZ, s.content(packagesXZ))
	wantGet(t, v, pool, s.content(pool))
	if err := w.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// So many times it is there when it is looked for, and gone when it is
	// opened; then it is gone.
	path := w.file(s.content(pool))
	w.faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Open}, Path: path, Times: looks, Err: &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT}})
	f, err := v.Open(t.Context(), pool)
	if err != nil {
		t.Fatalf("gone %d times: %v", looks, err)
	}
	f.Close()
	if w.faults.Failed() != looks {
		t.Errorf("it was opened %d times, not %d", w.faults.Failed(), looks)
	}
}

// A file that nothing promises may be evicted: it comes back from upstream, and
// where that has another one by now, that one does.
func TestALoneFileThatWasEvictedComesBack(t *testing.T) {
	for _, changed := range []bool{false, true} {
		t.Run(fmt.Sprint("changed ", changed), func(t *testing.T) { evictedLone(t, changed) })
	}
}

func evictedLone(t *testing.T, changed bool) {
	w := newWorld(t)
	w.up.put(baseA+"key.asc", []byte("a key"))
	v := w.debian(baseA).Live(Client{})
	wantGet(t, v, "key.asc", []byte("a key"))
	if err := w.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(w.file([]byte("a key"))); err != nil {
		t.Fatal(err)
	}
	w.restart(false)
	v = w.debian(baseA).Live(Client{})
	want := []byte("a key")
	if changed {
		want = []byte("another key")
		w.up.put(baseA+"key.asc", want)
	}
	wantGet(t, v, "key.asc", want)
}

// Only a client whose connection is open is in the middle of something.
func TestWhatAClientHasBegunIsKnown(t *testing.T) {
	w, s := newWorld(t), newSuite(t)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	conn := &Conn{}
	r := w.debian(baseA)
	wantGet(t, r.Live(Client{Conn: conn, Name: "apt"}), inRelease, s.content(inRelease))
	if all := w.m.Begun(); len(all) != 1 || all[0].Number != 1 || all[0].Repo != "debian" {
		t.Errorf("begun is %+v", all)
	}
	w.clock.advance(2 * time.Minute)
	if all := w.m.Begun(); len(all) != 0 {
		t.Errorf("two minutes later it is still %+v", all)
	}
	wantGet(t, r.Live(Client{Conn: conn, Name: "apt"}), inRelease, s.content(inRelease))
	conn.Close()
	if all := w.m.Begun(); len(all) != 0 {
		t.Errorf("after the connection has ended it is still %+v", all)
	}
}

// What an instant was is asked of the catalog again once that has forgotten it.
func TestAForgottenInstantIsToldAsOne(t *testing.T) {
	w, s := newWorld(t), newSuite(t)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	r := w.debian(baseA)
	wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
	at := w.clock.now().Add(time.Second)
	w.clock.advance(time.Hour)
	wantGet(t, r.At("debian", at, false), inRelease, s.content(inRelease))
	for i := range 2 {
		s.add(testenv.Package{Name: "hello", Version: string(rune('2' + i))})
		s.publish(w.up, baseA)
		w.clock.advance(time.Hour)
		wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
	}
	if _, err := w.catalog.Forget(w.clock.now(), true); err != nil {
		t.Fatal(err)
	}
	w.m.Forgot()
	var none *NoInstantError
	if _, _, err := get(t, r.At("debian", at, false), inRelease); !errors.As(err, &none) || !none.Forgotten || !none.First.After(at) {
		t.Errorf("a forgotten instant is answered %v", err)
	}
	// The tree is what it was, though its first generation is gone.
	w.restart(false)
	wantGet(t, w.debian(baseA).Live(Client{}), inRelease, s.content(inRelease))
}
