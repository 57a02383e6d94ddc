package mirror

import (
	"bytes"
	"errors"
	"testing"

	"chantal"
	"chantal/internal/testenv"
)

const keyPath = "keys/archive.gpg"

// lonely returns a live view of a repository of which the upstreams have a file
// that nothing promises, and that file's content.
func lonely(t *testing.T, w *world, bases ...string) (chantal.View, []byte) {
	t.Helper()
	body := bytes.Repeat([]byte("what nobody promised\n"), 10_000)
	for _, base := range bases {
		w.up.put(base+keyPath, body)
	}
	return w.debian(bases...).Live(Client{}), body
}

func TestALoneFileGoesOnWhereItBrokeOff(t *testing.T) {
	w := newWorld(t)
	live, body := lonely(t, w, baseA)
	w.up.fail(truncated, keyPath, 1)
	wantGet(t, live, keyPath, body)
	if asked := w.up.requests(keyPath); len(asked) != 2 || asked[1].Offset == 0 || asked[1].IfRange == "" {
		t.Errorf("upstream was asked %+v, not once more, for the rest of the same state", asked)
	}
}

func TestALoneFileIsNeverOfTwoStates(t *testing.T) {
	w := newWorld(t)
	live, body := lonely(t, w, baseA)
	w.up.fail(truncated, keyPath, 1)
	// This upstream answers a range with the rest of whatever it has by then.
	w.up.then(keyPath, func() { w.up.put(baseA+keyPath, bytes.ToUpper(body)) })
	if got, _, err := get(t, live, keyPath); err == nil && !bytes.Equal(got, body) && !bytes.Equal(got, bytes.ToUpper(body)) {
		t.Error("the file is spliced of two states")
	}
	w.due()
	wantGet(t, live, keyPath, bytes.ToUpper(body))
}

func TestALoneFileComesFromTheNextMirror(t *testing.T) {
	for _, kind := range []trouble{missing, unavailable, down, truncated, lying} {
		t.Run(string(kind), func(t *testing.T) {
			w := newWorld(t)
			live, _ := lonely(t, w, baseA, baseB)
			short := []byte("a short one, of which nothing has reached the client\n")
			w.up.put(baseA+keyPath, short)
			w.up.put(baseB+keyPath, short)
			w.up.fail(kind, baseA+keyPath, -1)
			wantGet(t, live, keyPath, short)
		})
	}
}

func TestADownloadThatKeepsBreakingOffGoesOnElsewhere(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 400_000}, baseA, baseB)
	w.up.fail(truncated, baseA+at, -1)
	wantGet(t, live, at, s.content(at)) // not a byte is lost to the client who follows
}

func TestARootThatBreaksOffIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.publish(w.up, baseA)
	w.up.fail(truncated, inRelease, 1)
	wantGet(t, w.debian(baseA).Live(Client{}), inRelease, s.content(inRelease))
}

func TestNothingIsPassedOnWhileTheIndexThatPromisesItIsAwaited(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	at := s.add(testenv.Package{Name: "hello", Version: "1", Size: 1000})
	s.publish(w.up, baseA)
	live := w.debian(baseA).Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	w.up.fail(unavailable, packagesXZ, -1)
	if _, _, err := get(t, live, packagesXZ); err == nil {
		t.Fatal("the index came")
	}
	w.up.fail(corrupt, at, -1)
	var up *chantal.UpstreamError
	if _, _, err := get(t, live, at); !errors.As(err, &up) {
		t.Errorf("the package that a missing index promises: got %v", err)
	}
	w.up.heal()
	wantGet(t, live, at, s.content(at))
	if _, err := w.store.Find("debian", sha256Of(s.content(packagesXZ))); err != nil {
		t.Errorf("the index was not fetched first: %v", err)
	}
}

func TestUpstreamsWordIsNotBelievedForEver(t *testing.T) {
	w := newWorld(t)
	_, _, live := started(t, w, baseA)
	unconditional := func() (n int) {
		for _, r := range w.up.requests(inRelease) {
			if r.ETag == "" {
				n++
			}
		}
		return n
	}
	w.due()
	mustGet(t, live, inRelease)
	before := unconditional()
	w.clock.advance(believed)
	mustGet(t, live, inRelease)
	if unconditional() == before {
		t.Error("after a day the root is still not asked for without a condition")
	}
}

func TestAFileBesideAPageIsSoughtAtTheOtherMirrors(t *testing.T) {
	const a, b = "http://a.mirror.example.org/pypi/simple/", "http://b.mirror.example.org/simple/"
	w := newWorld(t)
	r := w.add(Settings{Name: "pypi", Type: "pypi", Upstream: []string{a, b}})
	for link, want := range map[string][]string{
		"http://a.mirror.example.org/pypi/files/x%2By.whl":  {"http://b.mirror.example.org/files/x%2By.whl"},
		"http://a.mirror.example.org/pypi/simple/six/x.whl": {"http://b.mirror.example.org/simple/six/x.whl"},
		"http://b.mirror.example.org/files/x.whl?y=1":       {"http://a.mirror.example.org/pypi/files/x.whl?y=1"},
		"http://files.example.org/x.whl":                    nil,
		"https://a.mirror.example.org/pypi/files/x.whl":     nil,
	} {
		got := r.alike(link)
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%s: sought at %q, want %q", link, got, want)
		}
	}
}
