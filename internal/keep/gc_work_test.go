package keep

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
	"chantal/internal/disk"
)

// Beside refreshes, snapshots and repairs nothing that is needed is lost.
func TestCollectingBesideWork(t *testing.T) {
	w, _ := collecting(t)
	var work, others sync.WaitGroup
	fail := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	for n := range 3 {
		work.Go(func() {
			for i := range 25 {
				fail(w.refresh(fmt.Sprint("r", n), i))
			}
		})
	}
	work.Go(func() {
		for i := range 25 {
			name := fmt.Sprint("s", i)
			err := w.snapshotOfAll(name)
			if err == nil && i%3 > 0 {
				err = w.catalog.DeleteSnapshot(name)
			}
			fail(err)
		}
	})
	done := make(chan struct{})
	others.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			since := time.Now().Add(time.Duration(1-i%3) * time.Hour)
			_, err := w.keeper.Collect(t.Context(), CollectRequest{Since: since, Gently: true})
			fail(err)
		}
	})
	work.Wait()
	close(done)
	others.Wait()
	w.collect(CollectRequest{Since: time.Now().Add(time.Hour)})
	// All that a head or a snapshot promises was stored before it was named.
	states := w.everything()
	for i := range states {
		states[i].Sealed = states[i].Ref == "live" || states[i].Frozen
	}
	if r := w.verifyStates(states, true, false); !r.OK {
		t.Errorf("verify finds %+v", r)
	}
}

// refresh stores a state with its packages, and then makes it the head.
func (w *world) refresh(repo string, n int) error {
	release := w.store.Hold()
	defer release()
	put := func(path, content string) (chantal.Promise, error) {
		p := promise(path, chantal.Artifact, content)
		if _, err := w.store.Find("", p.SHA256()); err == nil {
			return p, nil
		}
		_, err := w.store.Put(cas.Want{Size: -1}, []byte(content))
		return p, err
	}
	var packages []chantal.Promise
	for i := range 8 {
		p, err := put(fmt.Sprint("pool/", i), fmt.Sprint("package ", i, " ", (n+i)%7)) // some come again
		if err != nil {
			return err
		}
		packages = append(packages, p)
	}
	index, err := put("suite/Packages", fmt.Sprint("index ", n%7))
	if err != nil {
		return err
	}
	index.Kind = chantal.Meta
	root := fmt.Sprint("root of ", repo, " ", n%7)
	w.mu.Lock()
	w.listed[index.SHA256()] = packages
	w.listed[shaOf([]byte(root))] = []chantal.Promise{index}
	w.mu.Unlock()
	return w.observeAnother(repo, root)
}

// snapshotOfAll freezes what there is.
func (w *world) snapshotOfAll(name string) error {
	at, err := w.catalog.Clock()
	if err != nil {
		return err
	}
	repos, err := w.catalog.Repos()
	if err != nil {
		return err
	}
	s := catalog.Snapshot{Name: name}
	for _, r := range repos {
		s.Repos = append(s.Repos, catalog.Frozen{Repo: r.Name, At: at})
	}
	// History may have been forgotten since: then nothing is frozen.
	if err := w.catalog.PutSnapshot(s, false); err != nil && !errors.As(err, new(*catalog.ForgottenError)) {
		return err
	}
	return nil
}

// Who has a full disk collects to make room, and has none to begin with.
func TestAFullDiskIsCollected(t *testing.T) {
	var full atomic.Bool
	w, _ := collectingOn(t, disk.Disk{Around: func(op *disk.Op, do func() error) error {
		switch op.Kind {
		case disk.Create, disk.Append, disk.Write, disk.Update:
			if full.Load() {
				return &os.PathError{Op: string(op.Kind), Path: op.Path, Err: syscall.ENOSPC}
			}
		case disk.Remove:
			if strings.Contains(op.Path, "/blobs/") {
				full.Store(false)
			}
		}
		return do()
	}})
	w.release("r", "suite", "1", "both", "old", strings.Repeat("large", 1<<20))
	w.release("r", "suite", "2", "both", "new")
	full.Store(true)
	// Of history it cannot be written down that it is forgotten: it stays.
	done := w.collect(CollectRequest{Since: time.Now().Add(time.Hour)})
	if full.Load() || done.BlobsFreed < 1 || done.Forgotten != 0 {
		t.Errorf("%+v", done)
	}
	if err := w.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	done = w.collect(CollectRequest{Since: time.Now().Add(time.Hour)})
	if d := cmp.Diff([]string{"both", "new"}, w.has("both", "old", "new")); d != "" || done.Forgotten != 1 {
		t.Errorf("%+v; there is (-want +got)\n%s", done, d)
	}
	if r := w.verify(false); !r.OK {
		t.Errorf("verify finds %+v", r)
	}
}
