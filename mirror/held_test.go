package mirror

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"
	"time"

	"chantal"
	"chantal/internal/testenv"
)

// refreshed makes the head due once, with no pause that a test would wait for.
func (w *world) refreshed(live chantal.View, root string) *chantal.File {
	w.t.Helper()
	w.due()
	_, f := mustGet(w.t, live, root)
	return f
}

func TestAnIndexThatNeverComesRightDoesNotHoldTheHeadForEver(t *testing.T) {
	for _, kind := range []trouble{corrupt, unavailable, down} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t)
			s, r, live := started(t, w, baseA)
			s.add(testenv.Package{Name: "hello", Version: "2"})
			s.publish(w.up, baseA)
			w.up.fail(kind, packagesXZ, -1)
			for range heldRefreshes / 2 { // the clock makes two minutes of each
				if f := w.refreshed(live, inRelease); f.Generation != 1 || f.Cache != chantal.Stale {
					t.Fatalf("the first refreshes: generation %d, %v", f.Generation, f.Cache)
				}
				wantError(t, r, "held back for "+packagesXZ)
			}
			w.refreshed(live, inRelease)
			if f := w.refreshed(live, inRelease); f.Generation != 2 {
				t.Fatalf("in the end: generation %d", f.Generation)
			}
			wantError(t, r, packagesXZ)
			if _, _, err := get(t, live, packagesXZ); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the index that does not come: %v", err)
			}

			// Nor does it hold the next state back, once more for so long.
			s.add(testenv.Package{Name: "hello", Version: "3"})
			s.publish(w.up, baseA)
			if f := w.refreshed(live, inRelease); f.Generation != 3 {
				t.Fatalf("the next state: generation %d", f.Generation)
			}

			// What has come again is waited for again.
			w.up.heal()
			for range 100 { // a fetch from before may still go on
				if _, _, err := get(t, live, packagesXZ); err == nil {
					break
				}
			}
			wantGet(t, live, packagesXZ, s.content(packagesXZ))
			w.refreshed(live, inRelease)
			if st, err := r.Status(t.Context()); err != nil || len(st.Errors) != 0 {
				t.Errorf("the index has come, and the status says %q, %v", st.Errors, err)
			}
			s.add(testenv.Package{Name: "hello", Version: "4"})
			s.publish(w.up, baseA)
			w.refreshed(live, inRelease)
			s.add(testenv.Package{Name: "hello", Version: "5"})
			s.publish(w.up, baseA)
			w.up.fail(kind, packagesXZ, -1)
			if f := w.refreshed(live, inRelease); f.Generation != 4 {
				t.Errorf("after it had come: generation %d", f.Generation)
			}
		})
	}
}

// TestAStateThatIsHalfPublishedIsLookedAtAgain: indexes before the root, and
// the root before the indexes.
func TestAStateThatIsHalfPublishedIsLookedAtAgain(t *testing.T) {
	roots := []string{inRelease, releasePath, releasePath + ".gpg"}
	t.Run("root first", func(t *testing.T) {
		w := newWorld(t)
		s, _, live := started(t, w, baseA)
		s.add(testenv.Package{Name: "hello", Version: "2"})
		next := s.publish(w.up)
		for _, p := range roots {
			w.up.put(baseA+p, next[p].Content)
		}
		w.up.then(packagesXZ, func() { w.up.then(packagesXZ, func() { w.up.publish(baseA, next) }) })
		w.due()
		wantGet(t, live, inRelease, next[inRelease].Content)
		wantGet(t, live, packagesXZ, next[packagesXZ].Content)
	})
	t.Run("index first", func(t *testing.T) {
		w := newWorld(t)
		s, _, live := started(t, w, baseA)
		s.add(testenv.Package{Name: "hello", Version: "2"})
		s.publish(w.up, baseA)
		s.add(testenv.Package{Name: "hello", Version: "3"})
		next := s.publish(w.up)
		w.up.put(baseA+packagesXZ, next[packagesXZ].Content)
		w.up.then(packagesXZ, func() { w.up.then(packagesXZ, func() { w.up.publish(baseA, next) }) })
		w.due()
		wantGet(t, live, inRelease, next[inRelease].Content)
		wantGet(t, live, packagesXZ, next[packagesXZ].Content)
	})
}

// TestAWholeStateIsTakenAlthoughUpstreamMovesOn: once everything wanted is
// there and checks, it does not matter what upstream has by now.
func TestAWholeStateIsTakenAlthoughUpstreamMovesOn(t *testing.T) {
	w := newWorld(t)
	s, _, live := started(t, w, baseA)
	s.add(testenv.Package{Name: "hello", Version: "2"})
	second := s.publish(w.up, baseA)
	s.add(testenv.Package{Name: "hello", Version: "3"})
	third, err := s.Publish()
	if err != nil {
		t.Fatal(err)
	}
	w.up.then(packagesXZ, func() { w.up.publish(baseA, third) })
	w.due()
	if f := wantGet(t, live, inRelease, second[inRelease].Content); f.Generation != 2 {
		t.Errorf("got generation %d", f.Generation)
	}
	wantGet(t, live, packagesXZ, second[packagesXZ].Content)
}

const (
	repomdPath = "repodata/repomd.xml"
	repomdASC  = repomdPath + ".asc"
)

// rpmStates returns two states of a signed rpm repository.
func rpmStates(t *testing.T) (first, second testenv.Files) {
	t.Helper()
	key, err := testenv.NewKey("vendor", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	rpms := testenv.NewRPM(key, time.Now())
	for _, files := range []*testenv.Files{&first, &second} {
		if err := rpms.Add(testenv.Package{Name: "hello", Version: "1"}); err != nil {
			t.Fatal(err)
		}
		if *files, err = rpms.Publish(); err != nil {
			t.Fatal(err)
		}
		if err := rpms.Add(testenv.Package{Name: "world", Version: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	return first, second
}

// TestASignatureOfAnotherStateIsNotTakenWithoutAKeyring: repomd.xml is
// published before its signature, or after it.
func TestASignatureOfAnotherStateIsNotTakenWithoutAKeyring(t *testing.T) {
	for name, early := range map[string]string{"root first": repomdPath, "signature first": repomdASC, "signature missing": ""} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first, second := rpmStates(t)
			w.up.publish(baseA, first)
			r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseA}})
			live := r.Live(Client{})
			wantGet(t, live, repomdPath, first[repomdPath].Content)
			wantGet(t, live, repomdASC, first[repomdASC].Content)

			for p, f := range second {
				if p != repomdPath && p != repomdASC {
					w.up.put(baseA+p, f.Content)
				}
			}
			if early != "" {
				w.up.put(baseA+early, second[early].Content)
			} else {
				w.up.put(baseA+repomdASC, nil)
				w.up.put(baseA+repomdPath, second[repomdPath].Content)
			}
			w.up.then(repomdASC, func() { w.up.then(repomdASC, func() { w.up.publish(baseA, second) }) })
			w.due()
			root, f := mustGet(t, live, repomdPath)
			signature, _ := mustGet(t, live, repomdASC)
			want := second
			if f.Generation == 1 {
				want = first
			}
			if !bytes.Equal(root, want[repomdPath].Content) || !bytes.Equal(signature, want[repomdASC].Content) {
				t.Fatalf("generation %d has a root and a signature of two states", f.Generation)
			}
			w.due()
			wantGet(t, live, repomdPath, second[repomdPath].Content)
			wantGet(t, live, repomdASC, second[repomdASC].Content)
		})
	}
}

func TestASignatureThatNeverFitsIsPassedOn(t *testing.T) {
	w := newWorld(t)
	first, second := rpmStates(t)
	w.up.publish(baseA, second)
	w.up.put(baseA+repomdASC, first[repomdASC].Content)
	r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseA}})
	wantGet(t, r.Live(Client{}), repomdPath, second[repomdPath].Content)
	wantGet(t, r.Live(Client{}), repomdASC, first[repomdASC].Content) // clients judge for themselves
	wantError(t, r, "over other bytes")
}

func TestASignatureThatCannotBeHadHoldsTheStateBack(t *testing.T) {
	w := newWorld(t)
	first, second := rpmStates(t)
	w.up.publish(baseA, first)
	r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseA}})
	live := r.Live(Client{})
	wantGet(t, live, repomdPath, first[repomdPath].Content)
	w.up.publish(baseA, second)
	w.up.fail(unavailable, repomdASC, -1)
	w.due()
	wantGet(t, live, repomdPath, first[repomdPath].Content)
	wantError(t, r, "held back for "+repomdASC)
	w.up.heal()
	w.due()
	wantGet(t, live, repomdPath, second[repomdPath].Content)
	wantGet(t, live, repomdASC, second[repomdASC].Content)
}

// TestAFileThatIsPublishedAfterItsMetadataIsAskedForAgain, as long as the
// metadata is new.
func TestAFileThatIsPublishedAfterItsMetadataIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	deb := s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	late := baseA + deb
	w.up.put(late, nil)
	live := w.debian(baseA).Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
	w.up.then(deb, func() { w.up.put(late, s.content(deb)) })
	wantGet(t, live, deb, s.content(deb))

	old := s.add(testenv.Package{Name: "old", Version: "1"})
	s.publish(w.up, baseA)
	w.up.put(baseA+old, nil)
	w.due()
	wantGet(t, live, inRelease, s.content(inRelease))
	w.clock.advance(fresh)
	w.up.forget()
	if _, _, err := get(t, live, old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if n := len(w.up.requests(old)); n != 1 {
		t.Errorf("upstream was asked %d times for what it has not had for long", n)
	}
}

func TestAFailedRefreshIsTriedAgainAfterGrowingPauses(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	w.due()
	w.up.fail(unavailable, inRelease, -1)
	w.up.forget()
	var tried []int
	for range 16 { // four seconds
		wantGet(t, live, inRelease, s.content(inRelease))
		tried = append(tried, len(w.up.requests(inRelease)))
		w.clock.advance(backoffMin)
	}
	// At once, then after 0.25, 0.5, 1 and 2 seconds.
	if got := tried[len(tried)-1]; got != 5 {
		t.Errorf("upstream was asked %d times: %v", got, tried)
	}
	r.Refresh = time.Second // which is the most that a pause can become
	w.clock.advance(time.Second)
	wantGet(t, live, inRelease, s.content(inRelease))
	w.clock.advance(time.Second)
	wantGet(t, live, inRelease, s.content(inRelease))
	if got := len(w.up.requests(inRelease)); got != 7 {
		t.Errorf("with a refresh of a second upstream was asked %d times", got)
	}
}
