package mirror

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"strings"
	"testing"
	"time"

	"chantal/internal/testenv"

	"github.com/google/go-cmp/cmp"
)

const (
	baseRPM = "http://a.mirror.example.org/epel/"
	repomd  = "repodata/repomd.xml"
)

func newRPM(t *testing.T, w *world) (*testenv.RPM, testenv.Files) {
	t.Helper()
	repo := testenv.NewRPM(nil, w.clock.now())
	if err := repo.Add(testenv.Package{Name: "htop", Version: "1"}); err != nil {
		t.Fatal(err)
	}
	files, err := repo.Publish()
	if err != nil {
		t.Fatal(err)
	}
	w.up.publish(baseRPM, files)
	return repo, files
}

// metadata returns the paths of a publishing's metadata files.
func metadata(files testenv.Files, kind string) (paths []string) {
	for p := range files {
		if strings.HasPrefix(p, "repodata/") && strings.HasSuffix(p, kind+".xml.gz") {
			paths = append(paths, p)
		}
	}
	return paths
}

func TestAFrozenRepositoryHoldsMetadataThatNobodyAskedFor(t *testing.T) {
	w := newWorld(t)
	_, files := newRPM(t, w)
	r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseRPM}})
	wantGet(t, r.Live(Client{}), repomd, files[repomd].Content)
	then := w.clock.now()
	var said []string
	missing, err := w.m.Complete(t.Context(), "epel", then, func(s string) { said = append(said, s) })
	if err != nil || len(missing) != 0 {
		t.Fatalf("missing %v, %v", missing, err)
	}
	w.restart(true)
	r = w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseRPM}})
	for _, kind := range []string{"primary", "filelists", "other"} {
		for _, p := range metadata(files, kind) {
			wantGet(t, r.At(r.Name, then, false), p, files[p].Content)
		}
	}
}

func TestTheClosureIsFetchedWithoutAnyFreezing(t *testing.T) {
	w := newWorld(t)
	_, files := newRPM(t, w)
	r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseRPM}})
	wantGet(t, r.Live(Client{}), repomd, files[repomd].Content)
	eventually(t, "filelists are stored", func() bool {
		_, err := w.store.Find("epel", sha256Of(files[metadata(files, "filelists")[0]].Content))
		return err == nil
	})
}

func TestWhatCannotBeFrozenIsNamed(t *testing.T) {
	w := newWorld(t)
	_, files := newRPM(t, w)
	gone := metadata(files, "filelists")
	w.up.fail(missing, gone[0], -1)
	r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseRPM}})
	wantGet(t, r.Live(Client{}), repomd, files[repomd].Content)
	got, err := w.m.Complete(t.Context(), "epel", w.clock.now(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(gone, got); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	w.up.heal()
	if got, err = w.m.Complete(t.Context(), "epel", w.clock.now(), func(string) {}); err != nil || len(got) != 0 {
		t.Errorf("once upstream has it: missing %v, %v", got, err)
	}
}

func TestPrimaryIsThereBeforeAnRPMGenerationIsServed(t *testing.T) {
	w := newWorld(t)
	repo, files := newRPM(t, w)
	r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseRPM}})
	live := r.Live(Client{})
	wantGet(t, live, repomd, files[repomd].Content)
	if err := repo.Add(testenv.Package{Name: "htop", Version: "2"}); err != nil {
		t.Fatal(err)
	}
	next, err := repo.Publish()
	if err != nil {
		t.Fatal(err)
	}
	w.up.publish(baseRPM, next)
	w.up.fail(unavailable, "primary", -1)
	w.due()
	wantGet(t, live, repomd, files[repomd].Content)
	w.up.heal()
	w.due()
	wantGet(t, live, repomd, next[repomd].Content)
	w.up.fail(down, "", -1)
	p := metadata(next, "primary")[0]
	wantGet(t, live, p, next[p].Content)
}

func TestARepositoryIsRecognisedOnlyByARootThatChecks(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.publish(w.up, baseA)
	discover := func(raw string) (*Repo, string, error) {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return w.m.Discover(t.Context(), u, "")
	}
	w.up.fail(portal, "portal.example.org", -1)
	for _, raw := range []string{
		"http://portal.example.org/debian/dists/bookworm/InRelease", "http://none.example.org/debian/dists/bookworm/InRelease",
		"http://portal.example.org/epel/repodata/repomd.xml", "http://portal.example.org/simple/six/", "http://a.mirror.example.org/",
	} {
		if r, _, err := discover(raw); err == nil {
			t.Errorf("%s was taken for repository %s", raw, r.Name)
		}
	}
	if all, err := w.catalog.Repos(); err != nil || len(all) != 0 {
		t.Fatalf("the catalog has %v, %v", all, err)
	}
	if _, _, err := discover("http://none.example.org/debian/dists/bookworm/InRelease"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no root there: got %v", err)
	}
	if _, _, err := discover("http://a.mirror.example.org/"); !errors.Is(err, ErrUnknown) {
		t.Errorf("without the shape of any repository: got %v", err)
	}
	r, p, err := discover(baseA + inRelease)
	if err != nil || p != inRelease || r.Name != "a.mirror.example.org-debian" || !r.Discovered {
		t.Fatalf("got %+v, %q, %v", r, p, err)
	}
	u, _ := url.Parse(baseA + "pool/main/h/hello/hello_1_all.deb")
	if found, p := w.m.Find(t.Context(), u); found != r || p != "pool/main/h/hello/hello_1_all.deb" {
		t.Errorf("a file below it: got %v, %q", found, p)
	}
	u.Scheme = "https"
	if found, _ := w.m.Find(t.Context(), u); found != nil {
		t.Error("an https URL is answered from a repository that is known by http alone")
	}
	w.restart(true)
	if all, err := w.catalog.Repos(); err != nil || len(all) != 1 || all[0].Name != r.Name {
		t.Errorf("after a restart the catalog has %v, %v", all, err)
	}
}

func TestAWantIsInOnePlaceOrTheOtherWhileItIsWritten(t *testing.T) {
	var w wantSet
	now := time.Now()
	w.add("debian", "dists/bookworm", packagesXZ, now)
	w.add("debian", "dists/bookworm", packagesGZ, now)
	writing := w.pending()
	if got := w.of("debian", "dists/bookworm"); len(got) != 2 {
		t.Errorf("while they are written the set has %v", got)
	}
	w.add("debian", "dists/bookworm", packagesGZ, now.Add(time.Second)) // again, meanwhile
	w.written("debian", writing["debian"])
	if diff := cmp.Diff([]string{packagesGZ}, w.of("debian", "dists/bookworm")); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	w.written("debian", w.pending()["debian"])
	if left := w.pending(); len(left) != 0 {
		t.Errorf("in the end the set has %v", left)
	}
}

func TestTheFirstGenerationDoesNotWaitForPrimary(t *testing.T) {
	w := newWorld(t)
	_, files := newRPM(t, w)
	w.up.fail(stalled, "primary", -1)
	r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseRPM}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	f, err := r.Live(Client{}).Open(ctx, repomd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Digest != sha256Of(files[repomd].Content) {
		t.Error("it is another root")
	}
}

func TestASignatureBelongsToTheRootBesideIt(t *testing.T) {
	w := newWorld(t)
	key, err := testenv.NewKey("archive", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	repo, _ := newRPM(t, w)
	repo.Key = key
	first, err := repo.Publish()
	if err != nil {
		t.Fatal(err)
	}
	second, err := repo.Publish()
	if err != nil {
		t.Fatal(err)
	}
	w.up.publish(baseRPM, first)
	// Nobody checks signatures here; what is served together has to have been
	// there together all the same.
	w.up.then(repomd, func() { w.up.publish(baseRPM, second) })
	live := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseRPM}}).Live(Client{})
	wantGet(t, live, repomd, second[repomd].Content)
	wantGet(t, live, repomd+".asc", second[repomd+".asc"].Content)
}
