package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// fire is a chantal between clients and an upstream that publishes without
// rest, file by file, in an order chosen at random.
//
// How long a test lasts depends on $CHANTAL_FIRE: "full" for the counts that
// the promise is measured by, anything else for a minute in all. The order of
// everything depends on $CHANTAL_SEED, which every test prints.
type fire struct {
	dir, listen string
	key         *testenv.Key
	server      *testenv.Server
	publisher   *testenv.Publisher
	random      *rand.Rand
	refresh     time.Duration
	proxy       *process
}

// shopper is a client that brings what it knows up to date.
type shopper interface {
	// update asks the repository at base for its newest state.
	update(ctx context.Context, base string) error
	// state returns the publication that the client has now, for each tree;
	// an error where that is none that ever was.
	state() (map[string]int, error)
}

// full reports whether tests are to take as long as it takes.
func full() bool { return os.Getenv("CHANTAL_FIRE") == "full" }

// times chooses between the counts of a full and a short test.
func times(all, few int) int {
	if full() {
		return all
	}
	return few
}

// seed returns $CHANTAL_SEED, or another number each time.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if s := os.Getenv("CHANTAL_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal("CHANTAL_SEED: ", err)
		}
	}
	t.Logf("CHANTAL_SEED=%d", n)
	return n
}

// newFire publishes what next makes at upstream /repo and starts chantal in
// front of it as the repository "repo"; settings are further lines of its
// configuration.
func newFire(t *testing.T, kind string, refresh time.Duration, settings string, next func(f *fire, n int) (testenv.Files, error)) *fire {
	t.Helper()
	key, err := testenv.NewKey("archive", time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	server, err := testenv.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Heal(); server.Down() })
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	n := seed(t)
	f := &fire{
		dir: t.TempDir(), listen: "127.0.0.1:" + strconv.Itoa(port), key: key, server: server, refresh: refresh,
		random: rand.New(rand.NewPCG(n, 1)),
	}
	f.publisher = &testenv.Publisher{
		Server: server, Prefix: "repo", Random: rand.New(rand.NewPCG(n, 2)),
		Gap: [2]time.Duration{50 * time.Millisecond, 250 * time.Millisecond}, Pause: 5 * time.Millisecond,
		Next: func(n int) (testenv.Files, error) { return next(f, n) },
	}
	f.writeKeys(t)
	if err := f.publisher.First(); err != nil {
		t.Fatal(err)
	}
	at := f.upstream()
	if kind == "pypi" {
		at += "/simple/"
	}
	config := fmt.Sprintf("repos:\n  - {name: repo, type: %s, upstream: [%q], refresh: %s%s}\n", kind, at, refresh, settings)
	if err := os.WriteFile(f.path("chantal.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + f.dir, "KEYRING=" + f.path("archive.gpg")}
	f.proxy, err = startServe(f.listen, f.path("serve.log"), env, "--data", f.path("data"), "--config", f.path("chantal.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.proxy.kill)
	return f
}

func (f *fire) path(elem ...string) string { return filepath.Join(append([]string{f.dir}, elem...)...) }
func (f *fire) upstream() string           { return f.server.URL() + "/repo" }
func (f *fire) mirror() string             { return "http://" + f.listen + "/repo" }

func (f *fire) writeKeys(t *testing.T) {
	t.Helper()
	public, err := f.key.Public()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := f.key.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"archive.asc": public, "archive.gpg": ring} {
		if err := os.WriteFile(f.path(name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// stamp is the version of what publication n publishes: all are of one length,
// so that a change of content is no change of size.
func stamp(n int) string { return fmt.Sprintf("1.%06d", n) }

// burn starts to publish; the function that it returns ends that.
func (f *fire) burn(t *testing.T) (rest func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.publisher.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// outcome is what a number of updates came to.
type outcome struct {
	updates, failed int
	lags            []int // publications that each state was behind when its update began
	first, last     int
}

func (o *outcome) add(more *outcome) {
	o.updates += more.updates
	o.failed += more.failed
	o.lags = append(o.lags, more.lags...)
	o.last = max(o.last, more.last)
}

func (o *outcome) String() string {
	slices.Sort(o.lags)
	lag := "none"
	if n := len(o.lags); n > 0 {
		lag = fmt.Sprintf("median %d, 90 %% %d, worst %d", o.lags[n/2], o.lags[n*9/10], o.lags[n-1])
	}
	return fmt.Sprintf("%d updates, %d failed, during publications %d to %d; publications behind: %s",
		o.updates, o.failed, o.first, o.last, lag)
}

// shop updates the client so many times in a row. fail is called for every
// failure, for a state that is a mixture, and for one that is older than one
// before.
func (f *fire) shop(ctx context.Context, c shopper, base string, n int, fail func(error)) *outcome {
	o := &outcome{first: f.publisher.Latest()}
	seen := map[string]int{}
	for ; o.updates < n && ctx.Err() == nil; o.updates++ {
		before := f.publisher.Latest()
		err := c.update(ctx, base)
		var have map[string]int
		if err == nil {
			have, err = c.state()
		}
		for tree, number := range have {
			if number < seen[tree] {
				err = fmt.Errorf("%s went back from publication %d to %d", tree, seen[tree], number)
			}
			seen[tree] = number
		}
		if err != nil {
			o.failed++
			fail(fmt.Errorf("update %d, near publication %d: %w", o.updates+1, before, err))
			continue
		}
		o.lags = append(o.lags, max(0, before-oldest(have)))
	}
	o.last = f.publisher.Latest()
	return o
}

func oldest(have map[string]int) int {
	low := 0
	for _, number := range have {
		if low == 0 || number < low {
			low = number
		}
	}
	return low
}

// settled checks what the client gets of an upstream that rests: at once a
// state at most two publications old, and the newest after another refresh.
func (f *fire) settled(t *testing.T, c shopper, base string) {
	t.Helper()
	for _, behind := range []int{2, 0} {
		time.Sleep(f.refresh + 20*time.Millisecond)
		err := c.update(t.Context(), base)
		var have map[string]int
		if err == nil {
			have, err = c.state()
		}
		newest := f.publisher.Latest()
		if err != nil || oldest(have) < newest-behind {
			t.Errorf("upstream rests at publication %d, the client has %v, at most %d may be missing: %v\n%s",
				newest, have, behind, err, f.proxy.tail())
		}
	}
}

// besiege is the whole test: one update before anything changes, then count
// updates of each client, side by side, while upstream publishes, with a rest
// now and then.
func (f *fire) besiege(t *testing.T, base string, count int, clients ...shopper) {
	t.Helper()
	for _, c := range clients {
		if err := c.update(t.Context(), base); err != nil {
			t.Fatal(err)
		}
	}
	rounds := max(count/50, 1)
	var mu sync.Mutex
	total := &outcome{first: 1}
	for range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		rest := f.burn(t)
		var shopping sync.WaitGroup
		for _, c := range clients {
			shopping.Go(func() {
				o := f.shop(ctx, c, base, count/rounds, func(err error) {
					t.Errorf("%v\n%s", err, f.proxy.tail())
					cancel() // one failure is enough
				})
				mu.Lock()
				defer mu.Unlock()
				total.add(o)
			})
		}
		shopping.Wait()
		rest()
		cancel()
		if f.settled(t, clients[0], base); t.Failed() {
			break
		}
	}
	t.Logf("through chantal: %v", total)
}

// hostile checks that upstream is what it is meant to be: some of the client's
// updates fail when nothing is between them.
func (f *fire) hostile(t *testing.T, c shopper, count int) {
	t.Helper()
	rest := f.burn(t)
	defer rest()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := f.shop(ctx, c, f.upstream(), count, func(error) {
		if !full() {
			cancel() // one proves it
		}
	})
	t.Logf("directly: %v", o)
	if o.failed == 0 {
		t.Error("no update failed directly: this upstream proves nothing")
	}
}

// execute runs a client's program; the error has its output.
func execute(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "LC_ALL=C"}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}
