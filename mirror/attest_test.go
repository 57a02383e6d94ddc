package mirror

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	"chantal/internal/testenv"
)

func TestASnapshotWaitsForWhatAttestsAFile(t *testing.T) {
	const base = "https://index.example.org/"
	const provenance = "integrity/six/1.0/six-1.0-py3-none-any.whl/provenance"
	w := newWorld(t)
	pages := testenv.NewPyPI(w.clock.now())
	pages.Integrity = base
	six := testenv.Package{Name: "six", Version: "1.0"}
	if err := pages.Add(six, w.clock.now()); err != nil {
		t.Fatal(err)
	}
	files, err := pages.Publish()
	if err != nil {
		t.Fatal(err)
	}
	w.up.publish(base, files)
	r := w.add(Settings{Name: "pypi", Type: "pypi", Upstream: []string{base + "simple/"}})
	wheel, err := testenv.Wheel(six)
	if err != nil {
		t.Fatal(err)
	}
	mustGet(t, r.Live(Client{}), "simple/six/")
	w.up.fail(silent, provenance, -1)
	wantGet(t, r.Live(Client{}), "+files/sha256/"+sha256Of(wheel).Hex()+"/index.example.org/"+testenv.FilePath(testenv.WheelName(six), wheel), wheel)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.m.Settle(over); !errors.Is(err, context.Canceled) {
		t.Errorf("what attests the file is on its way, and nothing waits for it: %v", err)
	}
	w.up.heal()
	if err := w.m.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := w.catalog.Clock()
	if err != nil {
		t.Fatal(err)
	}
	then := r.At(r.Name, now, false)
	const at = "+files/index.example.org/"
	if body, _ := mustGet(t, then, at+provenance); string(body) != string(files[provenance].Content) {
		t.Errorf("the provenance of then is %.100q", body)
	}
	const other = at + "integrity/six/1.0/six-1.0.tar.gz/provenance"
	if _, _, err := get(t, then, other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a file that nobody fetched: %v", err)
	}
}
