package catalog

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

const pageSize = 4096

// large is a catalog whose buckets have pages of their own, in levels.
func large(t *testing.T) (path string, l *logs, clk *clock, want map[string]string) {
	t.Helper()
	path, l, clk = filepath.Join(t.TempDir(), "catalog.db"), newLogs(), newClock()
	for i := range 240 {
		g := generation("debian", fmt.Sprintf("dists/suite-with-a-long-name-%03d", i/4), fmt.Sprint(i))
		g.Number = i%4 + 1
		at := noon.Add(time.Duration(i) * time.Minute)
		o := chantal.Observation{Repo: g.Repo, Tree: g.Tree, Generation: g.Number, Observed: at, Modified: at}
		if err := l.AppendRecord(repoLog(g.Repo), record{Type: typeObserved, V: 1, Observation: &o, Generation: &g}); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, path, l, clk) // makes it from the records
	want = dump(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return path, l, clk, want
}

// Whatever happens to the file, Open ends, and with the same catalog: either
// the damage does not matter, or it is seen and the catalog made anew.
func TestNoDamageToTheFileIsBelieved(t *testing.T) {
	path, l, clk, want := large(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pages := len(sound) / pageSize
	random := rand.New(rand.NewPCG(1, 2))
	page := func(b []byte, i int) []byte { return b[i*pageSize : (i+1)*pageSize] }
	kinds := map[string]func(b []byte, i int) []byte{
		"zeroed":    func(b []byte, i int) []byte { clear(page(b, i)); return b },
		"truncated": func(b []byte, i int) []byte { return b[:i*pageSize+random.IntN(pageSize)] },
		"garbage": func(b []byte, i int) []byte {
			for j := range page(b, i) {
				page(b, i)[j] = byte(random.Uint32())
			}
			return b
		},
		"swapped": func(b []byte, i int) []byte {
			other := bytes.Clone(page(b, (i+7)%pages))
			copy(page(b, (i+7)%pages), page(b, i))
			copy(page(b, i), other)
			return b
		},
		"doubled":      func(b []byte, i int) []byte { copy(page(b, (i+1)%pages), page(b, i)); return b },
		"bit":          func(b []byte, i int) []byte { page(b, i)[random.IntN(pageSize)] ^= 1 << random.IntN(8); return b },
		"header bit":   func(b []byte, i int) []byte { page(b, i)[random.IntN(48)] ^= 1 << random.IntN(8); return b },
		"last bit":     func(b []byte, i int) []byte { page(b, i)[pageSize-1-random.IntN(200)] ^= 1 << random.IntN(8); return b },
		"pointer bits": func(b []byte, i int) []byte { page(b, i)[16+8+random.IntN(2)] ^= 1 << random.IntN(5); return b },
	}
	tried, anew := 0, 0
	for name, damage := range kinds {
		for i := random.IntN(4); i < pages; i += max(1, pages/16) {
			tried++
			if err := os.WriteFile(path, damage(bytes.Clone(sound), i), 0o600); err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			c, err := Open(path, l, Options{Now: clk.now, Logger: slog.New(slog.NewTextHandler(&said, nil))})
			if err != nil {
				t.Fatalf("page %d %s: %v", i, name, err)
			}
			got := dump(t, c)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(said.String(), "made anew from the records") {
				anew++
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("page %d %s, said %q: %s", i, name, said.String(), d)
			}
		}
	}
	// The rest hit what the catalog does not use.
	if anew < tried/3 {
		t.Errorf("of %d damaged files only %d were noticed", tried, anew)
	}
}

// A pointer that leads back would send bbolt in circles.
func TestPagesThatLeadInCirclesAreSeen(t *testing.T) {
	path, l, clk, want := large(t)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	circles := 0
	for at := 2 * pageSize; at < len(b); at += pageSize {
		if order.Uint16(b[at+8:]) == branchPage && order.Uint64(b[at:]) == uint64(at/pageSize) {
			order.PutUint64(b[at+pageHeader+8:], uint64(at/pageSize))
			circles++
		}
	}
	if circles == 0 {
		t.Fatal("there is no branch page to try it with")
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, dump(t, open(t, path, l, clk))); d != "" {
		t.Error(d)
	}
}

func TestACatalogWithoutASumIsMadeAnew(t *testing.T) {
	l, clk := newLogs(), newClock()
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := open(t, path, l, clk)
	history(t, c, clk)
	want := dump(t, c)
	err := c.update(func(r *rows) error { r.changed = true; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, dump(t, c)); d != "" {
		t.Error(d)
	}
	tx, err := c.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Bucket(bktMeta).Delete(keySum); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, dump(t, open(t, path, l, clk))); d != "" {
		t.Error(d)
	}
}
