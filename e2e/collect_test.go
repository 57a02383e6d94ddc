package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// newPlot is a field of which the history is short, and one repository is
// mirrored in full.
func newPlot(t *testing.T) *field {
	t.Helper()
	f := newField(t)
	text, err := os.ReadFile(f.path("chantal.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), "refresh: 100ms}", "refresh: 100ms, sync: {suites: [bookworm], components: [main], architectures: [amd64]}}", 1)
	if err := os.WriteFile(f.path("chantal.yaml"), []byte("history: 1s\ngc: {every: 0s}\n"+config), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

// chantal runs a command on the field's data.
func (f *field) chantal(ctx context.Context, args ...string) (string, error) {
	return execute(ctx, f.environ(), binary(), append([]string{"--data", f.path("data"), "--config", f.path("chantal.yaml")}, args...)...)
}

// drop deletes a snapshot that was acknowledged, if there are others.
func (f *field) drop(ctx context.Context) error {
	f.mu.Lock()
	names := slices.Sorted(maps.Keys(f.snapshots))
	f.mu.Unlock()
	if len(names) < 3 {
		return nil
	}
	_, err := f.chantal(ctx, "snapshot", "delete", names[1])
	f.mu.Lock()
	delete(f.snapshots, names[1])
	f.mu.Unlock()
	return err
}

// publish lets the upstreams change until the returned function is called.
func (f *field) publish(t *testing.T) (rest func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	for _, s := range f.stocks {
		publishing.Go(func() {
			if err := s.publisher.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	return func() { cancel(); publishing.Wait() }
}

// reap ends what goes on, and checks that everything that has a name is whole
// with upstream gone.
func (f *field) reap(t *testing.T) {
	t.Helper()
	p := f.serve(t)
	if out, err := f.chantal(t.Context(), "gc"); err != nil {
		t.Errorf("gc: %v\n%s", err, out)
	}
	f.server.Down()
	for _, name := range slices.Sorted(maps.Keys(f.snapshots)) {
		f.look(t, name)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if out, err := f.chantal(t.Context(), "verify"); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, err := f.chantal(t.Context(), "verify", "--rebuild"); err != nil {
		t.Errorf("verify --rebuild: %v\n%s", err, out)
	}
	http.DefaultClient.CloseIdleConnections()
}

// Fifty clients, syncs, snapshots that come and go, upstreams that change: what
// is collected meanwhile is nothing that anybody needs.
func TestCollectingUnderLoad(t *testing.T) {
	f := newPlot(t)
	p := f.serve(t)
	f.everything(t, 1)
	f.freeze(t.Context(), "first")
	f.look(t, "first")
	rest := f.publish(t)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for range 50 {
		random := rand.New(rand.NewPCG(f.random.Uint64(), 5))
		work.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				f.browse(ctx, t, random)
			}
		})
	}
	work.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			f.freeze(ctx, fmt.Sprintf("s%04d", n))
			if err := f.drop(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("deleting a snapshot: %v", err)
			}
		}
	})
	work.Go(func() {
		for ctx.Err() == nil {
			_, _ = f.chantal(ctx, "sync", "debian") // upstream changes under it: what it lacks is no finding
		}
	})
	freed, began := 0, time.Now()
	// On a busy machine everything is in use at first.
	for n := 0; n < times(200, 8) || freed == 0 && time.Since(began) < 5*time.Minute; n++ {
		out, err := f.chantal(t.Context(), "gc")
		if err != nil {
			t.Errorf("gc: %v\n%s", err, out)
			break
		}
		if !strings.HasPrefix(out, "0 blobs") {
			freed++
		}
		time.Sleep(100 * time.Millisecond) // for something to become old
	}
	cancel()
	work.Wait()
	rest()
	f.everything(t, 1000)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	f.reap(t)
	if freed == 0 {
		t.Error("nothing was ever freed: that tries nothing")
	}
	t.Logf("%d collections freed something, %d snapshots are left, answers by status: %v", freed, len(f.snapshots), f.answers)
}

// Killed at any time, in serve or alone, a collection leaves everything that has
// a name, and nothing that is named and not there.
func TestCollectingIsKilledAnywhere(t *testing.T) {
	f := newPlot(t)
	p := f.serve(t)
	f.everything(t, 1)
	f.freeze(t.Context(), "first")
	f.look(t, "first")
	p.kill()
	rest := f.publish(t)
	kills := times(300, 12)
	for n := range kills {
		p := f.serve(t)
		random := rand.New(rand.NewPCG(f.random.Uint64(), 5))
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		f.browse(short, t, random)
		cancel()
		f.freeze(t.Context(), fmt.Sprintf("s%04d", n))
		_ = f.drop(t.Context())
		ctx, stop := context.WithCancel(t.Context())
		if n%2 == 0 { // serve is killed
			var work sync.WaitGroup
			work.Go(func() { _, _ = f.chantal(ctx, "gc") })
			time.Sleep(time.Duration(f.random.IntN(60)) * time.Millisecond)
			p.kill()
			work.Wait()
		} else { // the command is, alone
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			var work sync.WaitGroup
			work.Go(func() { _, _ = f.chantal(ctx, "gc") })
			time.Sleep(time.Duration(f.random.IntN(120)) * time.Millisecond)
			stop() // by SIGKILL
			work.Wait()
		}
		stop()
		if n%4 == 3 {
			if out, err := f.chantal(t.Context(), "verify"); err != nil {
				t.Errorf("kill %d: verify: %v\n%s", n, err, out)
				break
			}
		}
	}
	rest()
	f.reap(t)
	t.Logf("%d kills, %d snapshots are left", kills, len(f.snapshots))
}
