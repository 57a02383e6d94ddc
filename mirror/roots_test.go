package mirror

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chantal"
	"chantal/internal/testenv"
)

// due lets trees be old enough to be asked for again, once what clients have
// got is observed: the clock moves faster than the disk.
func (w *world) due() {
	w.t.Helper()
	if err := w.m.Settle(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.clock.advance(2 * time.Minute)
}

// started returns a suite with the package hello 1, of which a client has the
// root and one index.
func started(t *testing.T, w *world, bases ...string) (*suite, *Repo, chantal.View) {
	t.Helper()
	s := newSuite(t)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, bases...)
	r := w.add(Settings{Name: "debian", Type: "apt", Upstream: bases, Keyring: s.keyring()})
	live := r.Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
	return s, r, live
}

func TestTheFirstGenerationIsServedAtOnce(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.publish(w.up, baseA)
	w.up.fail(silent, "Packages", -1) // whatever else happens meanwhile
	f := wantGet(t, w.debian(baseA).Live(Client{}), inRelease, s.content(inRelease))
	if f.Generation != 1 || f.Tree != "dists/bookworm" || f.Cache != chantal.Miss {
		t.Errorf("got generation %d of %q, %v", f.Generation, f.Tree, f.Cache)
	}
}

func TestClientsOfOneTreeAreOneRefresh(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.publish(w.up, baseA)
	w.up.fail(silent, inRelease, -1)
	live := w.debian(baseA).Live(Client{})
	gone, leave := context.WithCancel(t.Context())
	leave()
	for range 20 {
		if _, err := live.Open(gone, inRelease); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that has left got %v", err)
		}
	}
	w.up.heal()
	wantGet(t, live, inRelease, s.content(inRelease))
	if n := len(w.up.requests(inRelease)); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
}

func TestTheHeadMovesWhenWantedIndexesAreStored(t *testing.T) {
	w := newWorld(t)
	s, _, live := started(t, w, baseA)
	old := s.content(inRelease)
	s.add(testenv.Package{Name: "hello", Version: "2"})
	s.publish(w.up, baseA)
	w.due()
	w.up.fail(unavailable, packagesXZ, -1)
	f := wantGet(t, live, inRelease, old)
	if f.Cache != chantal.Stale || f.Generation != 1 {
		t.Errorf("while its index cannot be had: generation %d, %v", f.Generation, f.Cache)
	}
	w.up.heal()
	w.up.forget()
	w.due()
	f = wantGet(t, live, inRelease, s.content(inRelease))
	if f.Generation != 2 {
		t.Errorf("got generation %d", f.Generation)
	}
	if len(w.up.requests(packagesXZ)) == 0 || len(w.up.requests(packagesGZ)) != 0 {
		t.Errorf("not exactly the wanted index was fetched: %d and %d requests", len(w.up.requests(packagesXZ)), len(w.up.requests(packagesGZ)))
	}
	w.up.fail(down, "", -1)
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
}

func TestAWantIsRememberedOverARestart(t *testing.T) {
	w := newWorld(t)
	s, _, _ := started(t, w, baseA)
	w.restart(false)
	live := w.debian(baseA).Live(Client{})
	s.add(testenv.Package{Name: "hello", Version: "2"})
	s.publish(w.up, baseA)
	w.due()
	wantGet(t, live, inRelease, s.content(inRelease))
	w.up.fail(down, "", -1)
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
}

func TestAWantedIndexThatUpstreamLacksIsNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	s, _, live := started(t, w, baseA)
	s.add(testenv.Package{Name: "hello", Version: "2"})
	s.publish(w.up, baseA)
	w.up.fail(missing, packagesXZ, -1)
	w.due()
	if _, f := mustGet(t, live, inRelease); f.Generation != 1 || f.Cache != chantal.Stale {
		t.Errorf("it may be on its way: got generation %d, %v", f.Generation, f.Cache)
	}
	w.due()
	if f := wantGet(t, live, inRelease, s.content(inRelease)); f.Generation != 2 {
		t.Errorf("got generation %d", f.Generation)
	}
	// The first one and the newest are answered alike: honestly.
	if _, _, err := get(t, live, packagesXZ); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the index that upstream lacks: got %v", err)
	}
}

func TestUpstreamThatChangesDuringARefreshIsReadAgain(t *testing.T) {
	w := newWorld(t)
	s, _, live := started(t, w, baseA)
	s.add(testenv.Package{Name: "hello", Version: "2"})
	second := s.publish(w.up, baseA)[inRelease].Content
	s.add(testenv.Package{Name: "hello", Version: "3"})
	third, err := s.Publish()
	if err != nil {
		t.Fatal(err)
	}
	s.files = third
	// The new state comes after the root was read and before its index is.
	w.up.then("dists/bookworm/Release.gpg", func() { w.up.publish(baseA, third) })
	w.due()
	got, f := mustGet(t, live, inRelease)
	if bytes.Equal(got, second) {
		t.Fatal("the root of a state is served of which upstream no longer has the indexes")
	}
	if !bytes.Equal(got, third[inRelease].Content) || f.Generation != 2 {
		t.Errorf("got generation %d", f.Generation)
	}
	wantGet(t, live, packagesXZ, third[packagesXZ].Content)
}

func TestUpstreamThatChangesUnderAWantedIndexIsReadAgain(t *testing.T) {
	w := newWorld(t)
	s, _, live := started(t, w, baseA)
	s.add(testenv.Package{Name: "hello", Version: "2"})
	s.publish(w.up, baseA)
	s.add(testenv.Package{Name: "hello", Version: "3"})
	third, err := s.Publish()
	if err != nil {
		t.Fatal(err)
	}
	s.files = third
	w.up.fail(missing, packagesXZ, 1)
	w.up.then(packagesXZ, func() { w.up.publish(baseA, third) })
	w.due()
	wantGet(t, live, inRelease, third[inRelease].Content)
	wantGet(t, live, packagesXZ, third[packagesXZ].Content)
}

func TestAnOlderDateDoesNotMoveTheHead(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	old := s.files
	s.add(testenv.Package{Name: "hello", Version: "2"})
	s.publish(w.up, baseA)
	w.due()
	wantGet(t, live, inRelease, s.content(inRelease))
	w.up.publish(baseA, old)
	w.due()
	if f := wantGet(t, live, inRelease, s.content(inRelease)); f.Cache != chantal.Stale {
		t.Errorf("the status is %v", f.Cache)
	}
	if all, err := w.catalog.Observations("debian", "dists/bookworm"); err != nil || len(all) != 2 {
		t.Errorf("%d observations, %v", len(all), err)
	}
	wantError(t, r, "stale mirror")
	s.publish(w.up, baseA)
	w.due()
	wantGet(t, live, inRelease, s.content(inRelease))
}

func TestADateAheadOfAllClocksHoldsNothingBack(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.SetDate(time.Now().Add(400 * 24 * time.Hour))
	s.publish(w.up, baseA)
	live := w.debian(baseA).Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	s.SetDate(time.Now())
	s.add(testenv.Package{Name: "hello", Version: "2"})
	s.publish(w.up, baseA)
	w.due()
	wantGet(t, live, inRelease, s.content(inRelease))
}

// wantError ends the test where the status does not say why.
func wantError(t *testing.T, r *Repo, part string) {
	t.Helper()
	st, err := r.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(st.Errors, "\n"), part) {
		t.Errorf("the status does not say %q: %q", part, st.Errors)
	}
}

func TestGarbageInPlaceOfARootKeepsTheLastGeneration(t *testing.T) {
	for name, garbage := range map[string][]byte{
		"captive portal": []byte("<html>Please accept our terms.</html>"),
		"empty":          {},
		"huge":           bytes.Repeat([]byte("x"), maxRoot+1),
		"unsigned":       []byte("Origin: Example\nSuite: bookworm\n"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s, r, live := started(t, w, baseA)
			w.up.put(baseA+inRelease, garbage)
			w.due()
			if f := wantGet(t, live, inRelease, s.content(inRelease)); f.Cache != chantal.Stale {
				t.Errorf("the status is %v", f.Cache)
			}
			wantError(t, r, "dists/bookworm")
			s.publish(w.up, baseA)
			w.due()
			wantGet(t, live, inRelease, s.content(inRelease))
			if st, err := r.Status(t.Context()); err != nil || len(st.Errors) != 0 {
				t.Errorf("in the end: %q, %v", st.Errors, err)
			}
		})
	}
}

func TestARootThatTheKeyringDidNotSignIsRefused(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	good := s.content(inRelease)
	forger, err := testenv.NewKey("forger", time.Now().Add(-time.Hour*48))
	if err != nil {
		t.Fatal(err)
	}
	s.Key = forger
	s.publish(w.up, baseA)
	w.due()
	wantGet(t, live, inRelease, good)
	wantError(t, r, inRelease)
	state, err := r.observed("dists/bookworm").peek()
	if err != nil || state.gen.Signer == nil {
		t.Errorf("who signed the generation that is served is not kept: %+v, %v", state.gen.Signer, err)
	}
}

func TestARootThatDisagreesIsLeftOutAndReported(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.publish(w.up, baseA)
	w.up.put(baseA+releasePath, []byte("Origin: Somebody\nSuite: else\n"))
	r := w.debian(baseA)
	live := r.Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	for _, p := range []string{releasePath, releasePath + ".gpg"} {
		if _, _, err := get(t, live, p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", p, err)
		}
	}
	wantError(t, r, releasePath)
}

func TestARootThatCannotBeAskedForAMomentStays(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	wantGet(t, live, releasePath, s.content(releasePath))
	w.up.fail(unavailable, releasePath, -1)
	w.due()
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, releasePath, s.content(releasePath))
	if st, err := r.Status(t.Context()); err != nil || st.Generations != 1 {
		t.Errorf("%d generations, %v", st.Generations, err)
	}
}

func TestWhyARootWasLeftOutIsNotForgotten(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.publish(w.up, baseA)
	w.up.fail(unavailable, releasePath+".gpg", -1)
	r := w.debian(baseA)
	wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
	wantError(t, r, releasePath+".gpg")
}

func TestARequestWaitsForARefreshOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: t.TempDir(), up: newUpstream()}
		w.start(time.Now, false)
		defer w.stop()
		s, _, live := started(t, w, baseA)
		old := s.content(inRelease)
		s.publish(w.up, baseA)
		time.Sleep(2 * time.Minute)
		w.up.fail(silent, inRelease, -1)
		begin := time.Now()
		f := wantGet(t, live, inRelease, old)
		if took := time.Since(begin); took != patience || f.Cache != chantal.Stale {
			t.Errorf("after %v: %v", took, f.Cache)
		}
		w.up.heal()
		synctest.Wait()
		wantGet(t, live, inRelease, s.content(inRelease)) // the refresh went on
	})
}

func TestAfterEveryFaultTheNewestStateComesWithinTwoRefreshes(t *testing.T) {
	kinds := []trouble{missing, unavailable, down, truncated, short, corrupt, long, lying, portal}
	for _, part := range []string{inRelease, releasePath, packagesXZ, "dists/"} {
		t.Run(part, func(t *testing.T) {
			w := newWorld(t)
			s, _, live := started(t, w, baseA)
			for _, kind := range kinds {
				old := s.content(inRelease)
				s.add(testenv.Package{Name: string(kind), Version: "2"})
				s.publish(w.up, baseA)
				w.up.fail(kind, part, -1)
				w.due()
				oneOfTwo(t, s, live, old, kind)
				w.up.heal()
				w.due()
				_, _, _ = get(t, live, inRelease)
				w.due()
				wantGet(t, live, inRelease, s.content(inRelease))
				wantGet(t, live, releasePath, s.content(releasePath))
				wantGet(t, live, packagesXZ, s.content(packagesXZ))
			}
		})
	}
}

// oneOfTwo fails the test where a root is served that upstream has not had, or
// an index that is not the root's.
func oneOfTwo(t *testing.T, s *suite, live chantal.View, old []byte, kind trouble) {
	t.Helper()
	root, _, err := get(t, live, inRelease)
	if kind == missing && errors.Is(err, fs.ErrNotExist) {
		root, err = old, nil // a suite can do with Release alone
	}
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	index, _, err := get(t, live, packagesXZ)
	fresh := bytes.Equal(root, s.content(inRelease))
	if !fresh && !bytes.Equal(root, old) {
		t.Fatalf("%s: the root is neither of the two that upstream has had", kind)
	}
	if err == nil && fresh && !bytes.Equal(index, s.content(packagesXZ)) {
		t.Errorf("%s: the index is not the root's", kind)
	}
}

func TestAnUnchangedUpstreamIsTheSameGeneration(t *testing.T) {
	w := newWorld(t)
	s, _, live := started(t, w, baseA)
	for range 3 {
		w.due()
		if f := wantGet(t, live, inRelease, s.content(inRelease)); f.Generation != 1 {
			t.Fatalf("got generation %d", f.Generation)
		}
	}
	if all, err := w.catalog.Observations("debian", "dists/bookworm"); err != nil || len(all) != 1 {
		t.Errorf("%d observations, %v", len(all), err)
	}
	asked := w.up.requests(inRelease)
	if last := asked[len(asked)-1]; last.ETag == "" {
		t.Error("upstream was not asked conditionally")
	}
}
