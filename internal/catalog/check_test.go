package catalog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
)

func findings(t *testing.T, c *Catalog) []string {
	t.Helper()
	f, err := c.Check()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCheckFindsWhatDiffersFromTheRecords(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*bolt.Tx) error
		want   string
	}{
		"lost":   {func(tx *bolt.Tx) error { return tx.Bucket(bktNames).Delete(key("today")) }, "names: 0 too many, 1 missing, 0 different"},
		"extra":  {func(tx *bolt.Tx) error { return tx.Bucket(bktRepos).Put(key("x"), []byte(`{"name":"x"}`)) }, "repos: 1 too many, 0 missing, 0 different"},
		"forged": {func(tx *bolt.Tx) error { return tx.Bucket(bktRepos).Put(key("epel"), []byte(`{"name":"epel"}`)) }, "repos: 0 too many, 0 missing, 1 different"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, clk := fresh(t)
			history(t, c, clk)
			want := dump(t, c)
			if f := findings(t, c); len(f) > 0 {
				t.Errorf("a sound catalog: %v", f)
			}
			if diff := cmp.Diff(want, dump(t, c)); diff != "" {
				t.Errorf("Check changed it: %s", diff)
			}
			if err := c.db.Update(tc.change); err != nil {
				t.Fatal(err)
			}
			if f := findings(t, c); len(f) != 1 || !strings.Contains(f[0], tc.want) {
				t.Errorf("got %q, want %q", f, tc.want)
			}
			if err := c.Rebuild(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, dump(t, c)); diff != "" {
				t.Errorf("after Rebuild: %s", diff)
			}
			if f := findings(t, c); len(f) > 0 {
				t.Errorf("after Rebuild: %v", f)
			}
		})
	}
}

func TestAFileThatIsGoneWhileItIsOpenIsFound(t *testing.T) {
	c, _, clk := fresh(t)
	history(t, c, clk)
	if err := os.Remove(c.path); err != nil {
		t.Fatal(err)
	}
	if f := findings(t, c); len(f) != 1 || !strings.Contains(f[0], "removed or replaced") {
		t.Errorf("got %q", f)
	}
	if err := c.Rebuild(); err == nil {
		t.Error("a file that nobody will find again was rebuilt")
	}
}

func TestRemakeBringsEverythingBack(t *testing.T) {
	all := damages()
	all["deleted"] = os.Remove
	all["sound"] = func(string) error { return nil }
	for name, damage := range all {
		t.Run(name, func(t *testing.T) {
			path, l, clk := filepath.Join(t.TempDir(), "catalog.db"), newLogs(), newClock()
			c := open(t, path, l, clk)
			history(t, c, clk)
			want := dump(t, c)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			if err := Remake(path, l, Options{Now: clk.now}); err != nil {
				t.Fatal(err)
			}
			c = open(t, path, l, clk)
			if diff := cmp.Diff(want, dump(t, c)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRemakeAcceptsTheLossOfRecords(t *testing.T) {
	path, l, clk := filepath.Join(t.TempDir(), "catalog.db"), newLogs(), newClock()
	c := open(t, path, l, clk)
	history(t, c, clk)
	c.Close()
	l.lines[namesLog] = l.lines[namesLog][:1]
	if err := Remake(path, l, Options{Now: clk.now}); err != nil {
		t.Fatal(err)
	}
	if all, err := open(t, path, l, clk).Snapshots(); err != nil || len(all) != 1 {
		t.Errorf("got %v %v", all, err)
	}
}

// Nothing can be made of damaged records, so what there is stays.
func TestRemakeChangesNothingWhereRecordsAreDamaged(t *testing.T) {
	path, l, clk := filepath.Join(t.TempDir(), "catalog.db"), newLogs(), newClock()
	c := open(t, path, l, clk)
	history(t, c, clk)
	c.Close()
	l.lines[namesLog][0] = []byte("{")
	garbage := []byte(strings.Repeat("no database ", 1000))
	if err := os.WriteFile(path, garbage, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remake(path, l, Options{Now: clk.now}); err == nil {
		t.Fatal("no error")
	}
	if left, err := os.ReadFile(path); err != nil || string(left) != string(garbage) {
		t.Errorf("the file is another one: %v", err)
	}
}
