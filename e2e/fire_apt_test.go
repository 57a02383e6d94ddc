package e2e

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// aptShopper is an apt with lists of its own.
type aptShopper struct {
	f      *fire
	dir    string
	proxy  string // "" for none
	suites []string
	files  int        // that the lists of one suite consist of
	random *rand.Rand // decides when the lists are thrown away
}

func (f *fire) apt(name, proxy string, suites []string, files int) *aptShopper {
	return &aptShopper{f: f, dir: f.path(name), proxy: proxy, suites: suites, files: files, random: rand.New(rand.NewPCG(f.random.Uint64(), 3))}
}

func (a *aptShopper) update(ctx context.Context, base string) error {
	fresh := a.random.IntN(8) == 0
	if _, err := os.Stat(a.dir); err != nil || fresh {
		if err := aptSystem(a.dir); err != nil {
			return err
		}
	}
	var sources strings.Builder
	for _, suite := range a.suites {
		fmt.Fprintf(&sources, "deb [arch=amd64 signed-by=%s] %s %s main contrib\n", a.f.path("archive.asc"), base, suite)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "etc/sources.list"), []byte(sources.String()), 0o644); err != nil {
		return err
	}
	env := []string{"APT_CONFIG=" + filepath.Join(a.dir, "apt.conf")}
	_, err := execute(ctx, env, "apt-get", "-q", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Proxy="+cmp.Or(a.proxy, "DIRECT"), "update", "--error-on=any")
	return err
}

// state compares every file in apt's lists with what was published.
func (a *aptShopper) state() (map[string]int, error) {
	entries, err := os.ReadDir(filepath.Join(a.dir, "state/lists"))
	if err != nil {
		return nil, err
	}
	have, files := map[string]int{}, map[string]int{}
	var all []string
	for _, e := range entries {
		_, rest, ok := strings.Cut(e.Name(), "_dists_")
		if !ok {
			continue
		}
		at := "dists/" + strings.ReplaceAll(rest, "_", "/")
		content, err := os.ReadFile(filepath.Join(a.dir, "state/lists", e.Name()))
		if err != nil {
			return nil, err
		}
		tree := a.tree(at)
		number := a.f.publisher.Find(at, content)
		all = append(all, fmt.Sprintf("%s is of publication %d", at, number))
		files[tree]++
		if was, ok := have[tree]; number == 0 || ok && was != number {
			have[tree] = -1
			continue
		}
		have[tree] = number
	}
	for _, suite := range a.suites {
		if tree := "dists/" + suite; have[tree] < 1 || files[tree] != a.files {
			return nil, fmt.Errorf("the lists of %s are not one publication:\n%s", tree, strings.Join(all, "\n"))
		}
	}
	return have, nil
}

// tree returns the suite's folder that a path lies in.
func (a *aptShopper) tree(at string) string {
	for _, suite := range a.suites {
		if strings.HasPrefix(at, "dists/"+suite+"/") {
			return "dists/" + suite
		}
	}
	return ""
}

func TestAptUpdatesWhileUpstreamPublishes(t *testing.T) {
	needs(t, "apt")
	for _, tc := range []struct {
		name     string
		all, few int
		refresh  time.Duration
		settings string
		upstream func(*testenv.APT)
		keep     int // publications that old hash-named files are kept for
		fault    testenv.Fault
		proxied  bool
		roots    int
	}{
		{name: "plain names", all: 500, few: 12, roots: 1},
		{name: "by-hash", all: 500, few: 8, upstream: byHash, roots: 1},
		{name: "by-hash and old files kept", all: 100, few: 4, upstream: byHash, keep: 50, roots: 1},
		{name: "plain names Release.gpg", all: 100, few: 6, roots: 2,
			upstream: func(a *testenv.APT) { a.NoInline = true }},
		{name: "by-hash Release.gpg keyring", all: 100, few: 4, roots: 2, settings: ", keyring: \"${KEYRING}\"",
			upstream: func(a *testenv.APT) { byHash(a); a.NoInline = true }},
		{name: "plain names coarse ETag", all: 100, few: 6, fault: testenv.Coarse, roots: 1},
		{name: "plain names no ETag", all: 100, few: 4, fault: testenv.Dated, refresh: time.Second, roots: 1},
		{name: "plain names forward proxy", all: 100, few: 4, proxied: true, refresh: 250 * time.Millisecond, roots: 1},
		{name: "by-hash forward proxy", all: 100, few: 4, proxied: true, upstream: byHash, roots: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			archive := testenv.NewAPT(nil, time.Now(), "bookworm", "stable/updates")
			archive.Components = []string{"main", "contrib"}
			if tc.upstream != nil {
				tc.upstream(archive)
			}
			f := newFire(t, "apt", tc.refresh, tc.settings, func(f *fire, n int) (testenv.Files, error) {
				archive.Key, archive.Stamp = f.key, stamp(n)
				archive.SetDate(time.Now())
				return archive.Publish()
			})
			f.publisher.Keep = tc.keep
			if tc.fault != "" {
				f.server.Fail(tc.fault, "/", -1)
			}
			proxy, base := "", f.mirror()
			if tc.proxied {
				proxy, base = "http://"+f.listen, f.upstream()
			}
			// Per component Packages and Translation-en.
			c := f.apt("apt", proxy, archive.Suites, tc.roots+4)
			f.besiege(t, c, base, times(tc.all, tc.few))
			if tc.upstream == nil {
				f.hostile(t, f.apt("direct", "", archive.Suites, tc.roots+4), times(60, 12))
			}
		})
	}
}

func byHash(a *testenv.APT) { a.ByHash, a.Brief = true, true }

// needs ends the test where a client is missing: well, or with a failure where
// CI=true.
func needs(t *testing.T, client string) {
	t.Helper()
	switch ok, err := condition(client); {
	case err != nil:
		t.Fatal(err)
	case !ok:
		t.Skipf("%s is missing", client)
	}
}
