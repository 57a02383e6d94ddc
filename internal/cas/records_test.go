package cas

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal/internal/disk"
	"chantal/internal/disk/disktest"
)

func lines(t *testing.T, s *Store, log string) []string {
	t.Helper()
	var got []string
	err := s.Records(log, func(line []byte) error { got = append(got, string(line)); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

type fact struct {
	Type string `json:"type"`
	V    int    `json:"v"`
	N    int    `json:"n"`
}

func TestRecordsComeBackInOrder(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	for i := range 3 {
		if err := s.AppendRecord("repos/debian", fact{"seen", 1, i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AppendRecord("names", fact{"snapshot", 1, 7}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir, Options{})
	if err := s.AppendRecord("repos/debian", fact{"seen", 1, 3}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"type":"seen","v":1,"n":0}`, `{"type":"seen","v":1,"n":1}`,
		`{"type":"seen","v":1,"n":2}`, `{"type":"seen","v":1,"n":3}`,
	}
	if d := cmp.Diff(want, lines(t, s, "repos/debian")); d != "" {
		t.Error(d)
	}
	logs, err := s.RecordLogs()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"names", "repos/debian"}, logs); d != "" {
		t.Error(d)
	}
	if got := lines(t, s, "repos/none"); got != nil {
		t.Errorf("a log that does not exist has %v", got)
	}
	stop := errors.New("stop")
	if err := s.Records("names", func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestATornRecordIsDropped(t *testing.T) {
	for name, tail := range map[string]string{
		"half a line": `{"type":"se`, "no newline": `{"type":"seen"}`, "not JSON": "{\"type\"\x00\x00\n", "zeros": "\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "records"), 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "records", "names.jsonl")
			if err := os.WriteFile(path, []byte("{\"n\":1}\n"+tail), 0o644); err != nil {
				t.Fatal(err)
			}
			s := open(t, dir, Options{})
			if d := cmp.Diff([]string{`{"n":1}`}, lines(t, s, "names")); d != "" {
				t.Error(d)
			}
			if err := s.AppendRecord("names", map[string]int{"n": 2}); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff("{\"n\":1}\n{\"n\":2}\n", string(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestADamagedRecordInTheMiddleIsAnError(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	path := filepath.Join(s.dir, "records", "names.jsonl")
	if err := os.WriteFile(path, []byte("{\"n\":1}\n{\"n\n{\"n\":3}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Records("names", func([]byte) error { return nil }); err == nil {
		t.Error("no error")
	}
}

func TestConcurrentAppendsShareASync(t *testing.T) {
	var mu sync.Mutex
	syncs := 0
	s := open(t, t.TempDir(), Options{Disk: disk.Disk{Around: func(op *disk.Op, do func() error) error {
		if op.Kind == disk.Sync {
			mu.Lock()
			syncs++
			mu.Unlock()
			time.Sleep(5 * time.Millisecond)
		}
		return do()
	}}})
	if err := s.AppendRecord("names", 0); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	syncs = 0
	mu.Unlock()
	const n = 100
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := s.AppendRecord("names", i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := len(lines(t, s, "names")); got != n+1 {
		t.Errorf("%d records, want %d", got, n+1)
	}
	if syncs < 1 || syncs > n/2 {
		t.Errorf("%d syncs for %d appends", syncs, n)
	}
}

func TestAFailedAppendLeavesNoRecord(t *testing.T) {
	s, faults, _ := broken(t, Options{})
	if err := s.AppendRecord("names", 1); err != nil {
		t.Fatal(err)
	}
	faults.Set(disktest.Fault{Kinds: []disk.Kind{disk.Sync, disk.Truncate}, Skip: 1, Err: syscall.EIO}) // nor can it be cut off again
	if err := s.AppendRecord("names", 2); err == nil {
		t.Error("no error")
	}
	if d := cmp.Diff([]string{"1"}, lines(t, s, "names")); d != "" {
		t.Error(d)
	}
	faults.Set()
	if err := s.AppendRecord("names", 3); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"1", "3"}, lines(t, s, "names")); d != "" {
		t.Error(d)
	}
}

func derive(t *testing.T, s *Store, key string, n int) {
	t.Helper()
	err := s.PutDerived(key, func(w io.Writer) error {
		_, err := w.Write(make([]byte, n))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func hasDerived(s *Store, key string) bool {
	f, err := s.Derived(key)
	if err == nil {
		f.Close()
	}
	return err == nil
}

func TestDerivedFilesLeaveInOrderOfUse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{DerivedMax: 300})
	for i := range 3 {
		derive(t, s, fmt.Sprintf("apt1-%d", i), 100)
	}
	if !hasDerived(s, "apt1-0") {
		t.Fatal("evicted below the limit")
	}
	derive(t, s, "apt1-3", 100)
	if hasDerived(s, "apt1-1") || !hasDerived(s, "apt1-0") {
		t.Error("not the least recently used one was evicted")
	}
	derive(t, s, "apt1-3", 50)
	s.Close()

	s = open(t, dir, Options{DerivedMax: 300})
	derive(t, s, "apt1-4", 50)
	if !hasDerived(s, "apt1-2") {
		t.Error("a file that was replaced counts twice")
	}
	derive(t, s, "big", 1000)
	if d := cmp.Diff([]string{"derived/big"}, names(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestAFailedDerivationLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	cause := errors.New("no such index")
	if err := s.PutDerived("k", func(io.Writer) error { return cause }); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Derived("k"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
