package mirror

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// TestAnIndexIsWantedUnderItsNextNameToo: a unique name has the digest in it,
// and is another one in every generation.
func TestAnIndexIsWantedUnderItsNextNameToo(t *testing.T) {
	w := newWorld(t)
	first, second := rpmStates(t)
	w.up.publish(baseA, first)
	live := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseA}}).Live(Client{})
	wantGet(t, live, repomdPath, first[repomdPath].Content)
	for at, f := range first {
		if strings.HasSuffix(at, "-filelists.xml.gz") {
			wantGet(t, live, at, f.Content)
		}
	}
	w.up.publish(baseA, second)
	w.up.fail(unavailable, "-filelists.xml.gz", -1)
	w.due()
	wantGet(t, live, repomdPath, first[repomdPath].Content)
	w.up.heal()
	w.due()
	wantGet(t, live, repomdPath, second[repomdPath].Content)
}

// TestATornStateOfAnUpstreamThatGoesOnIsNeverTaken: every look sees another
// repomd.xml beside the signature of the one before.
func TestATornStateOfAnUpstreamThatGoesOnIsNeverTaken(t *testing.T) {
	w := newWorld(t)
	key, err := testenv.NewKey("vendor", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	rpms := testenv.NewRPM(key, time.Now())
	publish := func(n int) testenv.Files {
		if err := rpms.Add(testenv.Package{Name: fmt.Sprint("p", n), Version: "1"}); err != nil {
			t.Error(err)
		}
		files, err := rpms.Publish()
		if err != nil {
			t.Error(err)
		}
		return files
	}
	was := publish(0)
	w.up.publish(baseA, was)
	live := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseA}}).Live(Client{})
	first := was
	wantGet(t, live, repomdPath, first[repomdPath].Content)
	wantGet(t, live, repomdASC, first[repomdASC].Content)
	n, all := 0, maps.Clone(first)
	var next func()
	next = func() {
		n++
		files := publish(n)
		maps.Copy(all, files)
		all[repomdASC] = was[repomdASC]
		w.up.publish(baseA, all)
		was = files
		w.up.then(repomdASC, next)
	}
	next()
	w.due()
	wantGet(t, live, repomdPath, first[repomdPath].Content)
	wantGet(t, live, repomdASC, first[repomdASC].Content)
	if n < looks {
		t.Errorf("upstream published %d times, want once for each of %d looks", n, looks)
	}
}

// TestWhatASnapshotNeedsIsDurableWhenItIsComplete: a record that names it is
// written next, and may be all that is left of this moment.
func TestWhatASnapshotNeedsIsDurableWhenItIsComplete(t *testing.T) {
	w := newWorld(t)
	first, _ := rpmStates(t)
	w.up.publish(baseA, first)
	live := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseA}}).Live(Client{})
	wantGet(t, live, repomdPath, first[repomdPath].Content)
	if missing, err := w.m.Complete(t.Context(), "epel", w.clock.now(), func(string) {}); err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	for at, f := range first {
		if !strings.HasSuffix(at, ".xml.gz") {
			continue
		}
		hex := sha256Of(f.Content).Hex()
		if _, err := os.Stat(filepath.Join(w.dir, "blobs", hex[:2], hex)); err != nil {
			t.Errorf("%s is not in its place: %v", at, err)
		}
	}
}
