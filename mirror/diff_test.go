package mirror

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/testenv"
)

// diff compares two states, and returns what differs as one line each.
func (w *world) diff(a, b Side) []string {
	w.t.Helper()
	d, err := w.m.Diff(w.t.Context(), a, b)
	if err != nil {
		w.t.Fatal(err)
	}
	var lines []string
	for _, c := range d.Changes {
		lines = append(lines, fmt.Sprint(c.Tree, " ", c.Name, " ", c.Arch, " ", describe(c)))
	}
	for _, n := range d.Advisories {
		lines = append(lines, fmt.Sprint("advisory ", n.ID, " ", n.Type, " ", n.Severity, " ", n.CVEs, " new: ", n.New))
	}
	for _, n := range d.Yanked {
		lines = append(lines, fmt.Sprint("yanked ", n.ID, " ", n.Title))
	}
	for _, n := range d.Unyanked {
		lines = append(lines, fmt.Sprint("unyanked ", n.ID))
	}
	for _, u := range d.Unknown {
		lines = append(lines, fmt.Sprint("unknown ", u.Index, " ", u.A, " ", u.B))
	}
	return lines
}

func (w *world) wantDiff(a, b Side, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.diff(a, b)); diff != "" {
		w.t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatTwoStatesOfASuiteDifferIn(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	then := Side{Repo: r, At: w.clock.now()}
	w.wantDiff(then, Side{Repo: r})
	s.add(testenv.Package{Name: "hello", Version: "1", Build: 2})
	s.add(testenv.Package{Name: "world", Version: "1.9"})
	s.publish(w.up, baseA)
	w.due()
	mustGet(t, live, inRelease)
	second := Side{Repo: r, At: w.clock.now()}
	w.wantDiff(then, second, "dists/bookworm hello all rebuild 1→1", "dists/bookworm world all added 1.9")
	s.add(testenv.Package{Name: "world", Version: "1.10"})
	s.Drop(testenv.Package{Name: "hello", Version: "1"}, true)
	s.publish(w.up, baseA)
	w.due()
	mustGet(t, live, inRelease)
	w.wantDiff(second, Side{Repo: r}, "dists/bookworm hello all removed 1", "dists/bookworm world all upgrade 1.9→1.10")
	w.wantDiff(Side{Repo: r}, second, "dists/bookworm hello all added 1", "dists/bookworm world all downgrade 1.10→1.9")
	w.up.forget()
	w.restart(true)
	r = w.debian(baseA)
	w.wantDiff(Side{Repo: r, At: then.At}, Side{Repo: r}, "dists/bookworm hello all removed 1", "dists/bookworm world all added 1.10", "dists/bookworm world all added 1.9")
	if asked := w.up.requests(""); len(asked) != 0 {
		t.Errorf("upstream was asked: %v", asked)
	}
}

func TestAnotherCompressionIsNoDifference(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	then := Side{Repo: r, At: w.clock.now()}
	s.add(testenv.Package{Name: "world", Version: "1"})
	s.publish(w.up, baseA)
	w.due()
	mustGet(t, live, inRelease)
	// The first state is stored as .xz alone, and this one as .gz, too.
	mustGet(t, live, packagesGZ)
	w.wantDiff(then, Side{Repo: r}, "dists/bookworm world all added 1")
}

func TestWhatNobodyFetchedIsNotGuessed(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.Components = []string{"main", "contrib"}
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	r := w.debian(baseA)
	live := r.Live(Client{})
	mustGet(t, live, inRelease)
	then := Side{Repo: r, At: w.clock.now()}
	s.add(testenv.Package{Name: "hello", Version: "2"})
	s.publish(w.up, baseA)
	w.due()
	mustGet(t, live, inRelease)
	index := strings.TrimSuffix(packagesXZ, ".xz")
	// What both list with one digest is the same, stored or not.
	all := w.diff(then, Side{Repo: r})
	if !slices.Contains(all, "unknown "+index+" true true") || len(all) != 1 {
		t.Errorf("stored on neither side: got %v", all)
	}
	mustGet(t, live, packagesXZ)
	w.wantDiff(then, Side{Repo: r}, "unknown "+index+" true false")
}

func TestTreesThatOneSideAloneHas(t *testing.T) {
	w := newWorld(t)
	_, debian, _ := started(t, w, baseA)
	other := newSuite(t)
	other.Suites = []string{"noble"}
	other.add(testenv.Package{Name: "hello", Version: "3"})
	other.add(testenv.Package{Name: "snap", Version: "1"})
	const base = "http://a.mirror.example.org/ubuntu/"
	other.publish(w.up, base)
	ubuntu := w.add(Settings{Name: "ubuntu", Type: "apt", Upstream: []string{base}})
	for _, at := range []string{"dists/noble/InRelease", "dists/noble/main/binary-amd64/Packages.xz"} {
		mustGet(t, ubuntu.Live(Client{}), at)
	}
	w.wantDiff(Side{Repo: debian}, Side{Repo: ubuntu}, "dists/noble hello all upgrade 1→3", "dists/noble snap all added 1")
	w.wantDiff(Side{Repo: ubuntu}, Side{Repo: debian}, "dists/bookworm hello all downgrade 3→1", "dists/noble snap all removed 1")
}

func TestAdvisoriesThatAreNewOrConcernWhatChanged(t *testing.T) {
	update := func(id, kind, severity, cve string, p testenv.Package) string {
		return fmt.Sprintf(`<update type=%q><id>%s</id><title>About %s</title><severity>%s</severity><references><reference type="bugzilla" id="7"/>`+
			`<reference type="cve" id=%q/></references><pkglist><collection><package name=%q version=%q release="1" epoch="0" arch="noarch"/></collection></pkglist></update>`,
			kind, id, p.Name, severity, cve, p.Name, p.Version)
	}
	w := newWorld(t)
	repo, _ := newRPM(t, w)
	old, next := testenv.Package{Name: "thing", Version: "1"}, testenv.Package{Name: "thing", Version: "2"}
	ahead := update("E-1", "security", "Important", "CVE-2026-1", next) + update("E-0", "bugfix", "", "", testenv.Package{Name: "else", Version: "1"})
	repo.Updates = ahead
	publish := func(p testenv.Package) {
		t.Helper()
		if err := repo.Add(p); err != nil {
			t.Fatal(err)
		}
		files, err := repo.Publish()
		if err != nil {
			t.Fatal(err)
		}
		w.up.publish(baseRPM, files)
		w.due()
	}
	publish(old)
	r := w.add(Settings{Name: "epel", Type: "rpm", Upstream: []string{baseRPM}})
	complete := func() Side {
		t.Helper()
		mustGet(t, r.Live(Client{}), "repodata/repomd.xml")
		at := w.clock.now()
		if _, err := w.m.Complete(t.Context(), "epel", at, func(string) {}); err != nil {
			t.Fatal(err)
		}
		return Side{Repo: r, At: at}
	}
	first := complete()
	repo.Updates = ahead + update("E-2", "enhancement", "Low", "CVE-2026-2", old)
	publish(next)
	second := complete()
	w.wantDiff(first, second, "repodata thing noarch upgrade 1-1→2-1",
		"advisory E-1 security Important [CVE-2026-1] new: false", "advisory E-2 enhancement Low [CVE-2026-2] new: true")
}

func TestFilesThatAreYanked(t *testing.T) {
	w := newWorld(t)
	index := testenv.NewPyPI(w.clock.now())
	const base = "http://a.mirror.example.org/simple/"
	publish := func() {
		t.Helper()
		files, err := index.Publish()
		if err != nil {
			t.Fatal(err)
		}
		w.up.publish("http://a.mirror.example.org/", files)
		w.due()
	}
	one, two := testenv.Package{Name: "six", Version: "1.9"}, testenv.Package{Name: "six", Version: "1.10"}
	for _, p := range []testenv.Package{one, two} {
		if err := index.Add(p, w.clock.now()); err != nil {
			t.Fatal(err)
		}
	}
	publish()
	r := w.add(Settings{Name: "pypi", Type: "pypi", Upstream: []string{base}})
	mustGet(t, r.Live(Client{}), "simple/six/")
	first := Side{Repo: r, At: w.clock.now()}
	index.Yank(two, "broken")
	publish()
	mustGet(t, r.Live(Client{}), "simple/six/")
	second := Side{Repo: r, At: w.clock.now()}
	w.wantDiff(first, second, "yanked six-1.10-py3-none-any.whl broken", "yanked six-1.10.tar.gz broken")
	w.wantDiff(second, first, "unyanked six-1.10-py3-none-any.whl", "unyanked six-1.10.tar.gz")
	index.Drop(two)
	publish()
	mustGet(t, r.Live(Client{}), "simple/six/")
	w.wantDiff(second, Side{Repo: r}, "simple/six six  downgrade 1.10→1.9")
	if s := (Side{Repo: r, At: first.At.Add(-24 * time.Hour)}); len(w.diff(s, first)) != 2 {
		t.Errorf("a project that was observed later: got %v", w.diff(s, first))
	}
}

func TestADiffTakesMemoryForWhatDiffers(t *testing.T) {
	const many, few = 20_000, 20
	w := newWorld(t)
	s := newSuite(t)
	stanzas := func(changed int) string {
		var b strings.Builder
		for i := range many {
			version := 1
			if i < changed {
				version = 2
			}
			fmt.Fprintf(&b, "\nPackage: p%05d\nVersion: %d\nArchitecture: all\nFilename: pool/p%05d_%d.deb\nSize: 9\nSHA256: %064x\n", i, version, i, version, i*10+version)
		}
		return b.String()
	}
	s.Stanzas = stanzas(0)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	r := w.debian(baseA)
	live := r.Live(Client{})
	mustGet(t, live, inRelease)
	mustGet(t, live, packagesXZ)
	then := Side{Repo: r, At: w.clock.now().Add(time.Second)}
	s.Stanzas = stanzas(few)
	s.publish(w.up, baseA)
	w.due()
	mustGet(t, live, inRelease)
	var sides [2]*contents
	d := &differ{ctx: t.Context(), diff: &Diff{}}
	for i, side := range []Side{then, {Repo: r}} {
		trees, _, err := side.states()
		if err != nil {
			t.Fatal(err)
		}
		if sides[i] = trees["dists/bookworm"]; !d.readable(sides[i]) {
			t.Fatal("a root cannot be read")
		}
	}
	kept, err := d.collect(sides[:1], sides[1:])
	if err != nil {
		t.Fatal(err)
	}
	if n := len(kept.known); n != few {
		t.Errorf("%d of %d packages are kept, %d differ", n, many, few)
	}
	if n := len(w.diff(then, Side{Repo: r})); n != few {
		t.Errorf("%d changes, want %d", n, few)
	}
}

func TestIndexesThatListNoPackagesAreNotMissed(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	publish := func(history string) {
		s.Index = map[string][]byte{"main/binary-amd64/Packages.diff/Index": []byte(history)}
		s.publish(w.up, baseA)
		w.due()
	}
	publish("SHA256-History:\n")
	r := w.debian(baseA)
	live := r.Live(Client{})
	mustGet(t, live, inRelease)
	mustGet(t, live, packagesXZ)
	w.clock.advance(time.Second)
	then := Side{Repo: r, At: w.clock.now()}
	s.add(testenv.Package{Name: "hello", Version: "2"})
	publish("SHA256-History:\n " + strings.Repeat("0", 64) + " 1 2026-11-23\n")
	mustGet(t, live, inRelease)
	w.wantDiff(then, Side{Repo: r}, "dists/bookworm hello all upgrade 1→2")
}
