package mirror

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"chantal"
	"chantal/internal/disk"
	"chantal/internal/disk/disktest"
	"chantal/internal/testenv"
)

// visit does what an apt client does. Whatever the disk does it gets what
// upstream has, or was; only a root may be refused, and then for the disk.
func visit(t *testing.T, r *Repo, pool string, states ...*suite) (refused bool) {
	t.Helper()
	c := &Conn{}
	defer c.Close()
	v := r.Live(Client{Conn: c, Name: "apt " + rand.Text()})
	root, _, err := get(t, v, inRelease)
	if d := (*chantal.DiskError)(nil); err != nil && errors.As(err, &d) {
		return true
	}
	if err != nil {
		t.Fatalf("the root: %v", err)
	}
	for _, s := range states {
		if !bytes.Equal(root, s.content(inRelease)) {
			continue
		}
		wantGet(t, v, s.byHash(packagesXZ), s.content(packagesXZ))
		wantGet(t, v, pool, s.content(pool))
		wantGet(t, v, pool, s.content(pool)) // from wherever it is now
		return false
	}
	t.Fatal("the root is that of no state")
	return false
}

// published returns what s has published last, to be compared with later.
func (s *suite) published() *suite { return &suite{t: s.t, files: s.files} }

func TestAFullDiskKeepsTheLastStateAndGivesOutItsFiles(t *testing.T) {
	w, s := newWorld(t), newSuite(t)
	s.ByHash = true
	first := s.add(testenv.Package{Name: "first", Version: "1", Size: 300 << 10})
	s.publish(w.up, baseA)
	r := w.debian(baseA)
	w.faults.Set(disktest.Fault{Err: syscall.ENOSPC})
	if !visit(t, r, first, s) {
		t.Fatal("a first state was taken though nothing can be written")
	}
	w.faults.Set()
	w.clock.advance(time.Minute)
	before := s.published()
	if visit(t, r, first, before) {
		t.Fatal("refused")
	}

	second := s.add(testenv.Package{Name: "second", Version: "1", Size: 300 << 10})
	s.publish(w.up, baseA)
	w.faults.Set(disktest.Fault{Err: syscall.ENOSPC})
	w.clock.advance(time.Hour)
	v := r.Live(Client{})
	if f := wantGet(t, v, inRelease, before.content(inRelease)); f.Cache != chantal.Stale {
		t.Errorf("the last state is %v", f.Cache)
	}
	if visit(t, r, first, before) {
		t.Error("refused")
	}
	w.up.put(baseA+"key.asc", []byte("a key"))
	var unkept *UnkeptError
	for range 3 { // followed, or sent to upstream; never refused
		if body, _, err := get(t, v, "key.asc"); string(body) != "a key" && !errors.As(err, &unkept) {
			t.Errorf("a lone file: %q, %v", body, err)
		}
	}

	w.faults.Set()
	w.clock.advance(time.Hour)
	if err := w.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantGet(t, v, inRelease, s.content(inRelease))
	if visit(t, r, second, s) {
		t.Error("refused")
	}
	for range 100 { // what the disk refused may still be going on, and holds for a while
		if _, _, err := get(t, v, "key.asc"); !errors.As(err, &unkept) {
			break
		}
		w.clock.advance(negative)
	}
	wantGet(t, v, "key.asc", []byte("a key"))
	w.restart(true)
	if visit(t, w.debian(baseA), second, s) {
		t.Error("refused by what was stored")
	}
}

// What a head names has to be there after a crash, too.
func TestTheHeadWaitsUntilWhatItNamesIsDurable(t *testing.T) {
	w, s := newWorld(t), newSuite(t)
	s.publish(w.up, baseA)
	live := w.debian(baseA).Live(Client{})
	old := s.published()
	wantGet(t, live, inRelease, old.content(inRelease))
	if err := w.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Sync}, Path: "/blobs/", Err: syscall.EIO})
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	w.clock.advance(time.Hour)
	wantGet(t, live, inRelease, old.content(inRelease))
	w.faults.Set()
	if err := w.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(time.Hour)
	wantGet(t, live, inRelease, s.content(inRelease))
}

// One operation after the other fails, from each on for a while.
func TestAnyWriteMayFail(t *testing.T) {
	const step = 5
	for _, fault := range []disktest.Fault{
		{Err: syscall.EIO, Times: 1},
		{Err: syscall.ENOSPC, Times: 4, Short: true},
	} {
		for skip := 0; ; skip += step {
			failed := false
			t.Run(fmt.Sprintf("%v %d %d", fault.Err, fault.Times, skip), func(t *testing.T) {
				failed = anyWrite(t, fault, skip)
			})
			if !failed || t.Failed() {
				break
			}
			if testing.Short() && skip >= 4*step {
				break
			}
		}
	}
}

func anyWrite(t *testing.T, fault disktest.Fault, skip int) (failed bool) {
	w := &world{t: t, dir: t.TempDir(), up: newUpstream(), clock: &clock{at: time.Now()}}
	w.start(w.clock.now, false)
	defer w.stop()
	s := newSuite(t)
	s.ByHash = true // what a state lists stays there when the next one comes
	pool := s.add(testenv.Package{Name: "first", Version: "1", Size: 300 << 10})
	s.publish(w.up, baseA)
	r := w.debian(baseA)
	one := s.published()
	fault.Skip = skip
	w.faults.Set(fault)
	visit(t, r, pool, one)
	s.add(testenv.Package{Name: "second", Version: "1", Size: 1000})
	s.publish(w.up, baseA)
	w.clock.advance(time.Hour)
	visit(t, r, pool, one, s)
	failed = w.faults.Failed() > 0
	w.faults.Set()
	if err := w.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one look at upstream takes it in, or finds that it was
		w.clock.advance(time.Hour)
		get(t, r.Live(Client{}), inRelease)
	}
	if visit(t, r, pool, s) {
		t.Error("refused by a disk that is whole again")
	}
	wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
	if findings, err := w.catalog.Check(); err != nil || len(findings) > 0 {
		t.Errorf("the catalog: %v %v", findings, err)
	}
	return failed
}
