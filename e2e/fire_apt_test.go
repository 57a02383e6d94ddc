package e2e

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// aptShopper is an apt with lists of its own.
type aptShopper struct {
	f      *fire
	dir    string
	suites []string
	files  int        // that the lists of one suite consist of
	random *rand.Rand // decides when the lists are thrown away

	proxy   string // "" for none
	noCache bool   // asks for what is newest
}

func (f *fire) apt(name string, archive *testenv.APT) *aptShopper {
	files := 1 + 2*len(archive.Components) // InRelease; of each component Packages and Translation-en
	if archive.NoInline {
		files++ // Release and Release.gpg
	}
	random := rand.New(rand.NewPCG(f.random.Uint64(), 3))
	return &aptShopper{f: f, dir: f.path(name), suites: archive.Suites, files: files, random: random}
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
	args := []string{"-q", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Proxy=" + cmp.Or(a.proxy, "DIRECT"), "--error-on=any"}
	if a.noCache {
		args = append(args, "-o", "Acquire::http::No-Cache=true")
	}
	_, err := execute(ctx, env, "apt-get", append(args, "update")...)
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
	releases := func(a *testenv.APT) { a.NoInline = true }
	for _, tc := range []struct {
		name     string
		all, few int
		refresh  time.Duration // of the repository
		settings string        // further ones
		upstream func(*testenv.APT)
		publish  func(*testenv.Publisher)
		fault    testenv.Fault
		client   func(*aptShopper)
		clients  int
	}{
		{name: "plain names", all: 500, few: 10},
		{name: "by-hash", all: 500, few: 5, upstream: byHash},
		{name: "by-hash old files kept", all: 100, upstream: byHash, publish: keep, refresh: time.Second},
		{name: "plain names Release.gpg", all: 100, few: 4, upstream: releases},
		{name: "by-hash Release.gpg keyring", all: 100, settings: keyring, upstream: func(a *testenv.APT) { byHash(a); releases(a) }},
		{name: "plain names coarse ETag", all: 100, few: 4, fault: testenv.Coarse},
		{name: "plain names no ETag", all: 100, fault: testenv.Dated, settings: keyring, refresh: 100 * time.Millisecond},
		{name: "plain names written in place", all: 100, few: 4, publish: func(p *testenv.Publisher) { p.Torn = true }},
		{name: "plain names Release.gpg slow", all: 50, upstream: releases, publish: slow},
		{name: "by-hash slow", all: 50, upstream: byHash, publish: slow},
		{name: "plain names forward proxy", all: 100, few: 3, client: proxied, refresh: 250 * time.Millisecond},
		{name: "by-hash forward proxy", all: 100, client: proxied, upstream: byHash},
		{name: "plain names no-cache", all: 100, refresh: time.Minute, client: func(a *aptShopper) { a.noCache = true }},
		{name: "plain names default refresh", all: 100, refresh: time.Minute},
		{name: "plain names three clients", all: 100, clients: 3},
	} {
		if times(tc.all, tc.few) == 0 {
			continue
		}
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
			if tc.publish != nil {
				tc.publish(f.publisher)
			}
			if tc.fault != "" {
				f.server.Fail(tc.fault, "/", -1)
			}
			var clients []shopper
			base := f.mirror()
			for i := range max(tc.clients, 1) {
				c := f.apt(fmt.Sprintf("apt%d", i), archive)
				if tc.client != nil {
					tc.client(c)
				}
				if c.proxy != "" {
					base = f.upstream()
				}
				if c.noCache {
					f.refresh = time.Second // such requests are answered from upstream once a second
				}
				clients = append(clients, c)
			}
			f.besiege(t, base, times(tc.all, tc.few), clients...)
			if tc.name == "plain names" {
				f.hostile(t, f.apt("direct", archive), 60)
			}
		})
	}
}

// TestSnapshotsWhileUpstreamPublishes: each is one publication, and whole, also
// when upstream is gone.
func TestSnapshotsWhileUpstreamPublishes(t *testing.T) {
	needs(t, "apt")
	archive := testenv.NewAPT(nil, time.Now(), "bookworm", "stable/updates")
	archive.Components = []string{"main", "contrib"}
	f := newFire(t, "apt", 0, "", func(f *fire, n int) (testenv.Files, error) {
		archive.Key, archive.Stamp = f.key, stamp(n)
		archive.SetDate(time.Now())
		return archive.Publish()
	})
	live := f.apt("live", archive)
	if err := live.update(t.Context(), f.mirror()); err != nil {
		t.Fatal(err)
	}
	rest := f.burn(t)
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for _, suite := range archive.Suites { // somebody has to move the head
		others.Go(func() {
			for ctx.Err() == nil {
				request(io.Discard, http.MethodGet, f.mirror()+"/dists/"+suite+"/InRelease", "", http.Header{})
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	snapshots := times(60, 6)
	for i := range snapshots {
		for was := f.publisher.Latest(); f.publisher.Latest() < was+2; {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Duration(f.random.IntN(100)) * time.Millisecond)
		args := []string{"--data", f.path("data"), "--config", f.path("chantal.yaml"), "snapshot", "create", fmt.Sprint("s", i)}
		if out, err := execute(t.Context(), []string{"KEYRING=" + f.path("archive.gpg")}, binary(), args...); err != nil || strings.Contains(out, "without it") {
			t.Errorf("snapshot %d: %v\n%s", i, err, out)
		}
	}
	cancel()
	others.Wait()
	rest()
	f.server.Down()
	seen := 0
	for i := range snapshots {
		c := f.apt(fmt.Sprint("frozen", i), archive)
		err := c.update(t.Context(), f.mirror()+fmt.Sprint("@s", i))
		var have map[string]int
		if err == nil {
			have, err = c.state()
		}
		if err != nil || oldest(have) < seen {
			t.Errorf("snapshot %d has %v, the one before had %d: %v\n%s", i, have, seen, err, f.proxy.tail())
		}
		seen = oldest(have)
	}
	t.Logf("%d snapshots, up to publication %d of %d", snapshots, seen, f.publisher.Latest())
	if seen < 2 {
		t.Error("no snapshot has what was published after the first")
	}
}

const keyring = ", keyring: \"${KEYRING}\""

func byHash(a *testenv.APT)     { a.ByHash, a.Brief = true, true }
func slow(p *testenv.Publisher) { p.Pause = 4 * p.Pause } // torn for longer than it is whole
func keep(p *testenv.Publisher) { p.Keep = 50 }
func proxied(a *aptShopper)     { a.proxy = "http://" + a.f.listen }

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
