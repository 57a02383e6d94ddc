package mirror

import (
	"errors"
	"io"
	"io/fs"
	"net/url"
	"testing"
	"time"

	"chantal/internal/testenv"
)

func writeAll(b []byte) func(io.Writer) error {
	return func(w io.Writer) error { _, err := w.Write(b); return err }
}

func parse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A repository that is recognised by its list is one repository, whichever
// mirror the list prefers today, and after a restart.
func TestARepositoryIsRecognisedByItsList(t *testing.T) {
	w := newWorld(t)
	l := &listed{world: w, rpm: testenv.NewRPM(nil, time.Now())}
	l.publish("1.0", mirrorA, mirrorB)
	canonical := "http://mirrors.example.org/metalink?arch=x86_64&repo=el-9"
	w.up.put(canonical, testenv.Metalink([]string{mirrorA, mirrorB}, l.files[repomd].Content).Content)
	asked := parse(t, "http://Mirrors.example.org/metalink?repo=el-9&arch=x86_64&countme=3")
	if r, _ := w.m.FindList(asked); r != nil {
		t.Fatalf("known before it was asked for: %s", r.Name)
	}
	r, path, err := w.m.Discover(t.Context(), asked, "")
	if err != nil {
		t.Fatal(err)
	}
	if path != "+metalink" || r.Name != "mirrors.example.org-metalink-arch-x86_64-repo-el-9" {
		t.Errorf("recognised as %s, path %s", r.Name, path)
	}
	for range 2 {
		w.up.put(canonical, testenv.Metalink([]string{mirrorB}, l.files[repomd].Content).Content)
		again, path := w.m.FindList(parse(t, listURL))
		if again == nil || again.Name != r.Name || path != "+metalink" {
			t.Fatalf("found again: %+v, %s", again, path)
		}
		w.restart(false)
		known, err := w.catalog.Repo(r.Name)
		if err != nil {
			t.Fatal(err)
		}
		l.repo = w.add(Settings{Name: known.Name, Type: known.Type, Upstream: known.Upstream, Discovered: true, List: known.List, ListForm: known.ListForm})
	}
	l.publish("2.0", mirrorB)
	w.up.put(canonical, testenv.Metalink([]string{mirrorB}, l.files[repomd].Content).Content)
	w.clock.advance(11 * time.Minute)
	l.wantGen(0, "after a restart")

	// its mirrors are nobody's alias: a list could claim anybody's URL
	if other, _ := w.m.Find(t.Context(), parse(t, mirrorA+repomd)); other != nil {
		t.Errorf("%s belongs to %s", mirrorA, other.Name)
	}
	// and a list that came by plain http answers no https URL
	if other, _ := w.m.FindList(parse(t, "https"+listURL[4:])); other != nil {
		t.Errorf("the https URL belongs to %s", other.Name)
	}
}

func TestWhatIsNoListIsNotRecognised(t *testing.T) {
	w := newWorld(t)
	w.up.put("http://mirror.example.org/mirrors.txt", []byte("http://a.mirror.example.org/nothing/\n"))
	w.up.put("http://mirror.example.org/mirrors.html", []byte("<html>mirrors</html>"))
	for _, raw := range []string{
		"http://mirror.example.org/mirrors.txt", "http://mirror.example.org/mirrors.html", "http://mirror.example.org/mirrors.gone",
		"http://mirror.example.org/file.iso",
	} {
		r, _, err := w.m.Discover(t.Context(), parse(t, raw), "")
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %+v, %v", raw, r, err)
		}
	}
	if asked := w.up.requests("file.iso"); len(asked) > 0 {
		t.Errorf("asked for what has not the shape of a list: %v", asked)
	}
	if repos := w.m.Repos(); len(repos) > 0 {
		t.Errorf("there is %s", repos[0].Name)
	}
}

// What our own list says is the state that the client then gets, at its own
// path, whatever upstream did meanwhile.
func TestWhatAListNamesIsWhatIsServed(t *testing.T) {
	l := newListed(t, nil)
	l.wantGen(0, "at first")
	first := l.files
	_, f := mustGet(t, l.repo.Live(Client{}), repomd)
	roots, err := l.repo.ListedRoots(f, l.repo.Name, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if len(roots) != 1 || roots[0].Digests[0] != sha256Of(first[repomd].Content) || roots[0].Size != int64(len(first[repomd].Content)) || roots[0].Date.IsZero() {
		t.Fatalf("the list names %+v", roots)
	}
	at := l.clock.now()
	l.publish("2.0", mirrorA, mirrorB, mirrorC)
	l.list(mirrorA)
	l.clock.advance(11 * time.Minute)
	l.wantGen(0, "upstream moved on")

	began := l.repo.Live(Client{Began: roots[0].Digests[0]})
	wantGet(t, began, repomd, first[repomd].Content)
	for path, file := range first {
		wantGet(t, began, path, file.Content)
	}
	// a client may come with an old list and a newer question
	path := l.rpm.PoolPath(testenv.Package{Name: "hello", Version: "2.0"})
	wantGet(t, began, path, l.files[path].Content)

	_, f = mustGet(t, l.repo.Live(Client{}), repomd)
	if roots, err = l.repo.ListedRoots(f, l.repo.Name, time.Time{}); err != nil || len(roots) != 2 ||
		roots[0].Digests[0] != f.Digest || roots[1].Digests[0] != sha256Of(first[repomd].Content) {
		t.Fatalf("live lists %+v, %v", roots, err)
	}
	frozen, ff := mustGet(t, l.repo.At(l.repo.Name, at, false), repomd)
	if roots, err = l.repo.ListedRoots(ff, l.repo.Name, at); err != nil || len(roots) != 1 || roots[0].Digests[0] != sha256Of(frozen) {
		t.Fatalf("frozen lists %+v, %v", roots, err)
	}
	// a state that history forgot is still named right
	l.clock.advance(40 * 24 * time.Hour)
	if roots, err = l.repo.ListedRoots(ff, l.repo.Name, at); err != nil || len(roots) != 1 || roots[0].Digests[0] != sha256Of(frozen) || roots[0].Size != ff.Size {
		t.Fatalf("long after it lists %+v, %v", roots, err)
	}
}

// Plain names have other bytes in each generation: who began by a list is held
// to the one that it named, on any connection.
func TestWhoBeganByAListGetsIndexesOfThatGeneration(t *testing.T) {
	w := newWorld(t)
	l := &listed{world: w, rpm: testenv.NewRPM(nil, time.Now())}
	l.rpm.Simple = true
	l.publish("1.0", mirrorA)
	l.list(mirrorA)
	l.addListed(nil)
	l.wantGen(0, "at first")
	first := l.files
	const primary = "repodata/primary.xml.gz"
	wantGet(t, l.repo.Live(Client{}), primary, first[primary].Content)
	l.publish("2.0", mirrorA)
	l.list(mirrorA)
	l.clock.advance(11 * time.Minute)
	l.wantGen(0, "later")
	wantGet(t, l.repo.Live(Client{}), primary, l.files[primary].Content)
	for range 2 {
		began := l.repo.Live(Client{Conn: &Conn{}, Name: "dnf", NoCache: true, Began: sha256Of(first[repomd].Content)})
		wantGet(t, began, primary, first[primary].Content)
	}
	if _, _, err := get(t, l.repo.Live(Client{}), "+metalink"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path of ours was asked upstream: %v", err)
	}
}
