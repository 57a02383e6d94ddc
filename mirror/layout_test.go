package mirror

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/testenv"
)

// layout fetches a state and returns where its files lie; the failures are by
// path.
func (w *world) layout(s Side) (places map[string]string, failures []string) {
	w.t.Helper()
	l, err := w.m.Layout(s, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	failed, all, err := l.Fetch(w.t.Context(), func(string) {})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range all {
		failures = append(failures, f.Path)
	}
	if failed != len(all) {
		w.t.Errorf("%d failures are told of %d", len(all), failed)
	}
	if failed > 0 {
		return nil, failures
	}
	places = map[string]string{}
	for f, err := range l.Files(w.t.Context()) {
		if err != nil {
			w.t.Fatal(err)
		}
		for _, p := range f.Places {
			if places[p] == "" {
				places[p] = f.Digest.Hex()
			}
		}
	}
	return places, nil
}

func TestALayoutHasWhatAClientCouldAskFor(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	key := "extra/key.asc"
	w.up.put(baseA+key, []byte("a key"))
	wantGet(t, live, key, []byte("a key"))
	if err := w.m.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(time.Second)
	then := Side{Repo: r, At: w.clock.now()}
	hello := s.PoolPath(testenv.Package{Name: "hello", Version: "1"})
	want := map[string]string{}
	for _, at := range []string{inRelease, packagesXZ, hello} {
		want[at] = sha256Of(s.content(at)).Hex()
	}
	want[key] = sha256Of([]byte("a key")).Hex()
	files := s.files
	check := func(side Side) {
		t.Helper()
		got, failures := w.layout(side)
		for _, root := range []string{releasePath, releasePath + ".gpg"} {
			if got[root] != "" { // as far as it was observed
				want[root] = sha256Of(files[root].Content).Hex()
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || failures != nil {
			t.Errorf("failures %v, files (-want +got):\n%s", failures, diff)
		}
	}
	check(then)
	// What upstream has by then is another matter.
	s.add(testenv.Package{Name: "world", Version: "1"})
	s.Drop(testenv.Package{Name: "hello", Version: "1"}, true)
	s.publish(w.up, baseA)
	w.due()
	mustGet(t, live, inRelease)
	check(then)
	w.up.forget()
	w.restart(true)
	r = w.debian(baseA)
	check(Side{Repo: r, At: then.At})
	got, failures := w.layout(Side{Repo: r})
	if got != nil || len(failures) != 1 || !strings.Contains(failures[0], "world") {
		t.Errorf("offline, what nobody has fetched: %v, %v", got, failures)
	}
}

func TestALayoutNeedsAllThatIsRequired(t *testing.T) {
	w := newWorld(t)
	_, files := newRPM(t, w)
	var other string
	for at := range files {
		if strings.Contains(at, "-other.xml") {
			other = at
		}
	}
	w.up.put(baseRPM+other, nil)
	r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseRPM}})
	mustGet(t, r.Live(Client{}), "repodata/repomd.xml")
	if _, failures := w.layout(Side{Repo: r}); len(failures) != 1 || failures[0] != other {
		t.Errorf("one index is not there: failed are %v", failures)
	}
	// A snapshot that was made without it is whole without it.
	places, failures := w.layout(Side{Repo: r, At: w.clock.now(), Lacks: []string{other}})
	if len(failures) != 0 || places[other] != "" || len(places) < 4 {
		t.Errorf("frozen without it: %v, %v", places, failures)
	}
}

func TestALayoutOfPages(t *testing.T) {
	w := newWorld(t)
	index := testenv.NewPyPI(w.clock.now())
	if err := index.Add(testenv.Package{Name: "six", Version: "1"}, w.clock.now()); err != nil {
		t.Fatal(err)
	}
	files, err := index.Publish()
	if err != nil {
		t.Fatal(err)
	}
	w.up.publish("http://a.mirror.example.org/", files)
	r := w.add(Settings{Name: "pypi", Type: "pypi", Upstream: []string{"http://a.mirror.example.org/simple/"}})
	mustGet(t, r.Live(Client{}), "simple/six/")
	mustGet(t, r.Live(Client{}), "simple/")
	places, failures := w.layout(Side{Repo: r})
	var kinds []string
	for _, suffix := range []string{"simple/index.html", "simple/six/index.html", ".whl", ".whl.metadata", ".tar.gz"} {
		for p := range places {
			if strings.HasSuffix(p, suffix) {
				kinds = append(kinds, suffix)
			}
		}
	}
	if diff := cmp.Diff([]string{"simple/index.html", "simple/six/index.html", ".whl", ".whl.metadata", ".tar.gz"}, kinds); diff != "" || len(places) != 5 || failures != nil {
		t.Errorf("failures %v, files %v (-want +got):\n%s", failures, places, diff)
	}
}
