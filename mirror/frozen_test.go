package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/internal/testenv"
)

func TestAPathHasOtherBytesInAnotherGeneration(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	at := s.add(testenv.Package{Name: "hello", Version: "1", Build: 1})
	first := s.publish(w.up, baseA)
	r := w.debian(baseA)
	live := r.Live(Client{})
	wantGet(t, live, inRelease, first[inRelease].Content)
	wantGet(t, live, packagesXZ, first[packagesXZ].Content)
	wantGet(t, live, at, first[at].Content)
	then := w.clock.now()
	s.add(testenv.Package{Name: "hello", Version: "1", Build: 2})
	second := s.publish(w.up, baseA)
	w.due()
	wantGet(t, live, inRelease, second[inRelease].Content)
	wantGet(t, live, at, second[at].Content)
	w.due()
	for range 2 {
		wantGet(t, r.At(r.Name, then, false), at, first[at].Content)
		wantGet(t, r.At(r.Name, w.clock.now(), false), at, second[at].Content)
		wantGet(t, live, at, second[at].Content)
	}
	w.restart(true)
	r = w.debian(baseA)
	wantGet(t, r.At(r.Name, then, false), at, first[at].Content)
	wantGet(t, r.Live(Client{}), at, second[at].Content)
}

func TestAnInstantShowsWhatWasObservedThen(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	opaque := "dists/bookworm/main/installer-amd64/image"
	w.up.put(baseA+opaque, []byte("one"))
	wantGet(t, live, opaque, []byte("one"))
	var roots [][]byte
	var instants []time.Time
	for _, version := range []string{"2", "3", "4"} {
		roots = append(roots, s.content(inRelease))
		w.clock.advance(time.Second)
		instants = append(instants, w.clock.now())
		s.add(testenv.Package{Name: "hello", Version: version})
		s.publish(w.up, baseA)
		w.up.put(baseA+opaque, []byte("at "+version))
		w.due()
		wantGet(t, live, inRelease, s.content(inRelease))
		wantGet(t, live, opaque, []byte("at "+version))
	}
	w.up.forget()
	for i, at := range instants {
		f := wantGet(t, r.At(r.Name, at, false), inRelease, roots[i])
		if f.Generation != i+1 || f.Cache != chantal.Hit {
			t.Errorf("generation %d, %v", f.Generation, f.Cache)
		}
	}
	wantGet(t, r.At(r.Name, instants[0], false), opaque, []byte("one"))
	wantGet(t, r.At(r.Name, instants[1], false), opaque, []byte("at 2"))
	if asked := w.up.requests(""); len(asked) != 0 {
		t.Errorf("upstream was asked for the past: %v", asked)
	}
	_, _, err := get(t, r.At(r.Name, instants[0].Add(-time.Hour), true), inRelease)
	var none *NoInstantError
	if !errors.As(err, &none) || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("before the first observation: got %v", err)
	}
	if first := instant(none.First); !strings.Contains(err.Error(), first) {
		t.Errorf("%q does not name the first instant %s", err, first)
	}
	at, err := time.Parse(time.RFC3339, instant(none.First))
	if err != nil {
		t.Fatal(err)
	}
	wantGet(t, r.At(r.Name, at, false), inRelease, roots[0])
}

func TestAFrozenViewNeverShowsWhatWasSeenLater(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	then := w.clock.now()
	w.due()
	later := "later.key"
	w.up.put(baseA+later, []byte("key"))
	wantGet(t, live, later, []byte("key"))
	newer := s.add(testenv.Package{Name: "newer", Version: "1"})
	s.publish(w.up, baseA)
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, newer, s.content(newer))
	for _, p := range []string{later, newer, "never/seen.txt"} {
		if _, _, err := get(t, r.At(r.Name, then, true), p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", p, err)
		}
	}
}

func TestAFrozenViewFetchesByDigestWhatIsStillThere(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	at := s.add(testenv.Package{Name: "hello", Version: "1"})
	gone := s.add(testenv.Package{Name: "gone", Version: "1"})
	first := s.publish(w.up, baseA)
	r := w.debian(baseA)
	live := r.Live(Client{})
	wantGet(t, live, inRelease, first[inRelease].Content)
	wantGet(t, live, packagesXZ, first[packagesXZ].Content)
	then := w.clock.now()
	s.Drop(testenv.Package{Name: "gone", Version: "1"}, true)
	s.publish(w.up, baseA)
	w.due()
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, r.At(r.Name, then, false), at, first[at].Content)
	if _, _, err := get(t, r.At(r.Name, then, false), gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what upstream has deleted: got %v", err)
	}
}

// index is a package index with six 1.0, uploaded long ago, and 2.0, uploaded
// yesterday.
func index(t *testing.T, w *world) (r *Repo, old, new testenv.Package, at map[testenv.Package]string, uploaded time.Time) {
	t.Helper()
	const base = "http://index.example.org/"
	pages := testenv.NewPyPI(w.clock.now())
	old, new = testenv.Package{Name: "six", Version: "1.0"}, testenv.Package{Name: "six", Version: "2.0"}
	uploaded = w.clock.now().Add(-24 * time.Hour).Truncate(time.Second)
	if err := pages.Add(old, uploaded.Add(-1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := pages.Add(new, uploaded); err != nil {
		t.Fatal(err)
	}
	files, err := pages.Publish()
	if err != nil {
		t.Fatal(err)
	}
	w.up.publish(base, files)
	at = map[testenv.Package]string{}
	for _, p := range []testenv.Package{old, new} {
		wheel, err := testenv.Wheel(p)
		if err != nil {
			t.Fatal(err)
		}
		at[p] = "+files/sha256/" + sha256Of(wheel).Hex() + "/index.example.org/" + testenv.FilePath(testenv.WheelName(p), wheel)
	}
	r = w.add(Settings{Name: "pypi", Type: "pypi", Upstream: []string{base + "simple/"}})
	return r, old, new, at, uploaded
}

func TestOnlyAnInstantIsAnsweredByUploadTime(t *testing.T) {
	w := newWorld(t)
	r, old, new, at, uploaded := index(t, w)
	then := uploaded // strictly before
	_, f := mustGet(t, r.At(r.Name, then, true), "simple/six/")
	if !f.Before.Equal(then) || f.Generation != 0 {
		t.Errorf("the page is to be cut at %v and of generation %d", f.Before, f.Generation)
	}
	wheel, err := testenv.Wheel(old)
	if err != nil {
		t.Fatal(err)
	}
	wantGet(t, r.At(r.Name, then, true), at[old], wheel)
	if _, _, err := get(t, r.At(r.Name, then, true), at[new]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file uploaded at that very instant: got %v", err)
	}
	if _, _, err := get(t, r.At(r.Name, then.Add(time.Second), true), at[new]); err != nil {
		t.Errorf("a file uploaded a second before: %v", err)
	}
	var none *NoInstantError
	if _, _, err := get(t, r.At(r.Name, then, false), "simple/six/"); !errors.As(err, &none) {
		t.Errorf("a named snapshot's page: got %v", err)
	}
	if _, _, err := get(t, r.At(r.Name, then, false), at[old]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a named snapshot's file: got %v", err)
	}
}

func TestAFileThatNoPageListsIsNotAnswered(t *testing.T) {
	w := newWorld(t)
	r, old, _, at, _ := index(t, w)
	live := r.Live(Client{})
	if _, _, err := get(t, live, at[old]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the page was seen: got %v", err)
	}
	mustGet(t, live, "simple/six/")
	whole, _ := mustGet(t, live, at[old])
	w.up.put("http://elsewhere.example.org/six-9-py3-none-any.whl", whole)
	w.up.forget()
	digest := strings.Split(at[old], "/")[2]
	for _, p := range []string{
		"+files/-/elsewhere.example.org/six-9-py3-none-any.whl",
		"+files/sha256/" + digest + "/elsewhere.example.org/six-9-py3-none-any.whl",
		strings.Replace(at[old], digest, strings.Repeat("0", 64), 1),
	} {
		if _, _, err := get(t, live, p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", p, err)
		}
	}
	if asked := w.up.requests("elsewhere"); len(asked) != 0 {
		t.Error("a host was asked that no page links to")
	}
}

func TestOfflineAnswersFromTheStoreAndNothingElse(t *testing.T) {
	w := newWorld(t)
	s, _, _ := started(t, w, baseA)
	w.restart(true)
	w.up.forget()
	live := w.debian(baseA).Live(Client{})
	w.due()
	if f := wantGet(t, live, inRelease, s.content(inRelease)); f.Cache != chantal.Stale {
		t.Errorf("the status is %v", f.Cache)
	}
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
	for _, p := range []string{s.PoolPath(testenv.Package{Name: "hello", Version: "1"}), "dists/trixie/InRelease", "some.key"} {
		if _, _, err := get(t, live, p); !errors.Is(err, chantal.ErrOffline) {
			t.Errorf("%s: got %v", p, err)
		}
	}
	if asked := w.up.requests(""); len(asked) != 0 {
		t.Errorf("upstream was asked: %v", asked)
	}
}

func TestAFileThatNothingPromisesStandsForItself(t *testing.T) {
	w := newWorld(t)
	r := w.debian(baseA)
	live := r.Live(Client{})
	image := bytes.Repeat([]byte("image"), 100_000)
	w.up.put(baseA+"image.iso", image)
	if f := wantGet(t, live, "image.iso", image); f.Kind != chantal.Opaque || f.Cache != chantal.Miss {
		t.Errorf("it is %v, %v", f.Kind, f.Cache)
	}
	wantGet(t, live, "image.iso", image)
	if n := len(w.up.requests("image.iso")); n != 1 {
		t.Errorf("upstream was asked %d times within a minute", n)
	}
	w.up.put(baseA+"image.iso", []byte("new"))
	w.due()
	if f := wantGet(t, live, "image.iso", []byte("new")); f.Generation != 2 {
		t.Errorf("got generation %d", f.Generation)
	}
	w.up.put(baseA+"image.iso", nil)
	w.due()
	if _, _, err := get(t, live, "image.iso"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what upstream has deleted: got %v", err)
	}
	w.up.fail(truncated, "broken.iso", -1)
	w.up.put(baseA+"broken.iso", image)
	if got, _, err := get(t, live, "broken.iso"); err == nil {
		t.Errorf("%d bytes of a broken file were taken for the whole", len(got))
	}
}

func TestWhatAClientHasGotIsObservedWhenItIsFrozen(t *testing.T) {
	w := newWorld(t)
	live := w.debian(baseA).Live(Client{})
	for i := range 20 {
		path := fmt.Sprintf("keys/%d.key", i)
		w.up.put(baseA+path, []byte(path))
		wantGet(t, live, path, []byte(path))
		if err := w.m.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := w.catalog.Head("debian", path); err != nil {
			t.Fatalf("%s was read and is not observed: %v", path, err)
		}
	}
}

func TestAFileNamedAfterADigestThatNothingListsIsAskedForByThatName(t *testing.T) {
	w := newWorld(t)
	_, _, live := started(t, w, baseA)
	old := []byte("an index from before anything was observed")
	dir := "dists/bookworm/main/binary-amd64/by-hash/SHA256/"
	right, wrong := dir+sha256Of(old).Hex(), dir+sha256Of([]byte("x")).Hex()
	w.up.put(baseA+right, old)
	w.up.put(baseA+wrong, old)
	for range 2 {
		if f := wantGet(t, live, right, old); !f.ByDigest {
			t.Error("the answer may not be kept for good")
		}
		var mismatch *chantal.MismatchError
		if _, _, err := get(t, live, wrong); !errors.As(err, &mismatch) {
			t.Errorf("other bytes under the name: got %v", err)
		}
	}
	if _, _, err := get(t, live, dir+sha256Of([]byte("y")).Hex()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what upstream does not have: got %v", err)
	}
}
