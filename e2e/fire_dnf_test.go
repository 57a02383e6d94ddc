package e2e

import (
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

// dnfShopper is a dnf with a cache of its own.
type dnfShopper struct {
	f      *fire
	dir    string
	proxy  string     // "" for none
	random *rand.Rand // decides when the cache is thrown away
}

func (f *fire) dnf(name, proxy string) *dnfShopper {
	return &dnfShopper{f: f, dir: f.path(name), proxy: proxy, random: rand.New(rand.NewPCG(f.random.Uint64(), 4))}
}

func (d *dnfShopper) update(ctx context.Context, base string) error {
	if d.random.IntN(4) == 0 {
		if err := os.RemoveAll(filepath.Join(d.dir, "cache")); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(d.dir, "log"), 0o755); err != nil {
		return err
	}
	var lines []string
	if d.proxy != "" {
		lines = append(lines, "proxy="+d.proxy)
	}
	if err := dnfSource(d.dir, d.f.path("archive.asc"), base, lines...); err != nil {
		return err
	}
	out, err := execute(ctx, []string{"HOME=" + d.dir}, "dnf", append(dnfOptions(d.dir), "makecache", "--refresh")...)
	if err == nil && !strings.Contains(out, "Metadata cache created.") {
		err = fmt.Errorf("dnf did not make its cache:\n%s", out)
	}
	return err
}

// state compares every file of dnf's repodata with what was published.
func (d *dnfShopper) state() (map[string]int, error) {
	files, err := filepath.Glob(filepath.Join(d.dir, "cache/test-*/repodata/*"))
	if err != nil {
		return nil, err
	}
	have, kinds := 0, map[string]bool{}
	var all []string
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		base := filepath.Base(name)
		number := d.f.publisher.Find("repodata/"+base, content)
		all = append(all, fmt.Sprintf("%s is of publication %d", base, number))
		kinds[base[strings.LastIndex(base, "-")+1:]] = true
		if have == 0 {
			have = number
		}
		if number == 0 || number != have {
			have = -1
		}
	}
	for _, kind := range []string{"repomd.xml", "repomd.xml.asc", "primary.xml.gz", "filelists.xml.gz"} {
		if !kinds[kind] || have < 1 {
			return nil, fmt.Errorf("the cache is not one publication:\n%s", strings.Join(all, "\n"))
		}
	}
	return map[string]int{"repodata": have}, nil
}

func TestDnfUpdatesWhileUpstreamPublishes(t *testing.T) {
	needs(t, "dnf")
	for _, tc := range []struct {
		name     string
		all, few int
		simple   bool
		refresh  time.Duration
		settings string
		publish  func(*testenv.Publisher)
		fault    testenv.Fault
		proxied  bool
		clients  int
	}{
		{name: "simple names", all: 200, few: 3, simple: true},
		{name: "unique names", all: 200, few: 3},
		{name: "simple names keyring", all: 50, simple: true, settings: keyring},
		{name: "unique names kept", all: 50, publish: keep, refresh: 250 * time.Millisecond},
		{name: "simple names coarse ETag", all: 50, simple: true, fault: testenv.Coarse},
		{name: "unique names written in place", all: 50, publish: func(p *testenv.Publisher) { p.Torn = true }},
		{name: "unique names slow", all: 50, publish: slow},
		{name: "simple names forward proxy", all: 50, simple: true, proxied: true, refresh: time.Second},
		{name: "simple names two clients", all: 50, simple: true, clients: 2},
	} {
		if times(tc.all, tc.few) == 0 {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			archive := testenv.NewRPM(nil, time.Now())
			archive.Simple = tc.simple
			f := newFire(t, "rpm", tc.refresh, tc.settings, func(f *fire, n int) (testenv.Files, error) {
				archive.Key = f.key
				archive.SetDate(time.Now())
				archive.Drop(testenv.Package{Name: "stamp", Version: stamp(n - 1)}, true)
				if err := archive.Add(testenv.Package{Name: "stamp", Version: stamp(n)}); err != nil {
					return nil, err
				}
				return archive.Publish()
			})
			f.publisher.Pause = 20 * time.Millisecond // there are fewer files than in a suite
			if tc.publish != nil {
				tc.publish(f.publisher)
			}
			if tc.fault != "" {
				f.server.Fail(tc.fault, "/", -1)
			}
			proxy, base := "", f.mirror()
			if tc.proxied {
				proxy, base = "http://"+f.listen, f.upstream()
			}
			var clients []shopper
			for i := range max(tc.clients, 1) {
				clients = append(clients, f.dnf(fmt.Sprintf("dnf%d", i), proxy))
			}
			f.besiege(t, base, times(tc.all, tc.few), clients...)
			if full() && tc.all > 50 {
				f.hostile(t, f.dnf("direct", ""), 60)
			}
		})
	}
}
