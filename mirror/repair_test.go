package mirror

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/testenv"
)

// blobFile returns where the blob with that content is.
func (w *world) blobFile(content []byte) string {
	w.t.Helper()
	if err := w.store.Sync(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	hex := sha256Of(content).Hex()
	return filepath.Join(w.dir, "blobs", hex[:2], hex)
}

// damages are what a disk does to a blob, each with what notices it.
func (w *world) damages() map[string]func(content []byte) {
	return map[string]func(content []byte){
		"shorter": func(content []byte) {
			if err := os.Truncate(w.blobFile(content), int64(len(content)/2)); err != nil {
				w.t.Fatal(err)
			}
		},
		"other bytes, found by a check": func(content []byte) {
			other := append([]byte(nil), content...)
			other[len(other)/2] ^= 1
			name := w.blobFile(content)
			if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, other, 0o644)); err != nil {
				w.t.Fatal(err)
			}
			if _, _, err := w.store.Check(w.t.Context(), sha256Of(content), nil, nil); !errors.Is(err, fs.ErrNotExist) {
				w.t.Fatalf("the damage was not found: %v", err)
			}
		},
	}
}

var damageKinds = []string{"shorter", "other bytes, found by a check"}

// forget makes the mirror a new one, with nothing in memory.
func (w *world) forget(bases ...string) *Repo {
	w.t.Helper()
	w.restart(false)
	return w.debian(bases...)
}

func TestWhatIsDamagedIsFetchedAgain(t *testing.T) {
	for _, kind := range damageKinds {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 300 << 10}, baseA)
			wantGet(t, live, at, s.content(at))
			opaque := "dists/bookworm/main/installer-amd64/image"
			w.up.put(baseA+opaque, []byte("an image"))
			wantGet(t, live, opaque, []byte("an image"))
			s.files[opaque] = testenv.File{Content: []byte("an image")}
			w.clock.advance(time.Second)
			then := w.clock.now()
			for _, path := range []string{inRelease, packagesXZ, at, opaque} {
				for _, frozen := range []bool{false, true} {
					w.damages()[kind](s.content(path))
					r := w.forget(baseA)
					view := r.Live(Client{})
					if frozen {
						view = r.At(r.Name, then, false)
					}
					wantGet(t, view, path, s.content(path))
				}
			}
		})
	}
}

func TestWhatCannotBeHadAgainIsAnErrorAndNotAnAnswer(t *testing.T) {
	for _, kind := range damageKinds {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1"}, baseA)
			wantGet(t, live, at, s.content(at))
			w.clock.advance(time.Second)
			then := w.clock.now()
			for _, path := range []string{inRelease, packagesXZ, at} {
				w.damages()[kind](s.content(path))
			}
			r := w.forget(baseA)
			w.up.fail(down, "", -1)
			for _, path := range []string{inRelease, packagesXZ, at} {
				var up *chantal.UpstreamError
				_, _, err := get(t, r.At(r.Name, then, false), path)
				if !errors.As(err, &up) || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: got %v, want an upstream that cannot be asked", path, err)
				}
			}
		})
	}
}

// An index that was damaged is needed to know what a path is: without it the
// path must not be called unknown.
func TestARootThatIsLostHereAndGoneThereIsNoMissingFile(t *testing.T) {
	for _, kind := range damageKinds {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			s := newSuite(t)
			s.publish(w.up, baseA)
			wantGet(t, w.debian(baseA).Live(Client{}), inRelease, s.content(inRelease))
			w.clock.advance(time.Second)
			then := w.clock.now()
			w.damages()[kind](s.content(inRelease))
			r := w.forget(baseA)
			w.up.fail(missing, "", -1)
			if _, _, err := get(t, r.At(r.Name, then, false), inRelease); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestADamagedIndexDoesNotHideWhatItLists(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1"}, baseA)
	wantGet(t, live, at, s.content(at))
	w.clock.advance(time.Second)
	then := w.clock.now()
	damage := w.damages()["other bytes, found by a check"]
	damage(s.content(packagesXZ))
	r := w.forget(baseA)
	wantGet(t, r.At(r.Name, then, false), at, s.content(at))

	damage(s.content(packagesXZ))
	r = w.forget(baseA)
	w.up.fail(down, "", -1)
	if _, _, err := get(t, r.At(r.Name, then, false), at); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestALostHeadIsReplacedByTheNewest(t *testing.T) {
	for _, kind := range damageKinds {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			s, _, live, _ := debianWith(t, w, testenv.Package{Name: "hello", Version: "1"}, baseA)
			wantGet(t, live, inRelease, s.content(inRelease))
			old := s.content(inRelease)
			w.clock.advance(time.Second)
			then := w.clock.now()
			w.clock.advance(time.Second)
			s.add(testenv.Package{Name: "hello", Version: "2"})
			s.publish(w.up, baseA)
			w.damages()[kind](old)
			r := w.forget(baseA)
			wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
			_, _, err := get(t, r.At(r.Name, then, false), inRelease)
			if !lost(err) || errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*chantal.UpstreamError)) {
				t.Errorf("the old state: got %v", err)
			}
		})
	}
}

func TestADamagedPageIsFetchedAgain(t *testing.T) {
	w := newWorld(t)
	index := testenv.NewPyPI(time.Now())
	if err := index.Add(testenv.Package{Name: "six", Version: "1.0", Size: 100}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	files, err := index.Publish()
	if err != nil {
		t.Fatal(err)
	}
	const base = "http://index.mirror.example.org/"
	w.up.publish(base, files)
	add := func() *Repo { return w.add(Settings{Name: "pypi", Type: "pypi", Upstream: []string{base + "simple/"}}) }
	r := add()
	want, _ := mustGet(t, r.Live(Client{}), "simple/six/")
	w.clock.advance(time.Second)
	then := w.clock.now()
	for _, kind := range damageKinds {
		w.damages()[kind](want)
		w.restart(false)
		r = add()
		wantGet(t, r.At(r.Name, then, false), "simple/six/", want)
	}
}

// Metadata of one repository that lies about a size must not cost another its
// file.
func TestAWrongSizeInMetadataDestroysNothing(t *testing.T) {
	w := newWorld(t)
	r := w.debian(baseA)
	content := []byte("what another repository has")
	blob, err := w.store.Put(cas.Want{Size: -1}, content)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = r.stored(&chantal.Promise{Path: "x", Digests: []chantal.Digest{blob.Digest}, Size: 5})
	var wrong *chantal.MismatchError
	if !errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
	if _, err := w.store.Find("", blob.Digest); err != nil || w.store.Damaged() != 0 {
		t.Errorf("the blob: %v, %d damaged", err, w.store.Damaged())
	}
}

func TestWhatVerifyAsksAMirror(t *testing.T) {
	w := newWorld(t)
	s, r, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1"}, baseA)
	wantGet(t, live, at, s.content(at))
	head, err := r.observed("dists/bookworm").peek()
	if err != nil {
		t.Fatal(err)
	}
	listed, err := w.m.Listing(head.gen)
	if err != nil || len(listed) == 0 {
		t.Fatalf("got %d promises, %v", len(listed), err)
	}
	files := map[string]chantal.Promise{}
	for _, index := range listed {
		for p, err := range w.m.Index("debian", index) {
			if err != nil {
				t.Fatal(err)
			}
			files[p.Path] = p
		}
	}
	if p := files[at]; p.SHA256() != sha256Of(s.content(at)) {
		t.Errorf("got %+v for %s", p, at)
	}
	root := chantal.Promise{Path: inRelease, Kind: chantal.Root, Digests: []chantal.Digest{sha256Of(s.content(inRelease))}, Size: -1}
	asked := len(w.up.requests(""))
	for path, p := range map[string]chantal.Promise{inRelease: root, at: files[at]} {
		if err := w.m.Restore(t.Context(), "debian", p); err != nil {
			t.Errorf("%s, which is there: %v", path, err)
		}
	}
	if n := len(w.up.requests("")); n != asked {
		t.Error("upstream was asked for what is stored")
	}
	for path, p := range map[string]chantal.Promise{inRelease: root, at: files[at]} {
		w.damages()["shorter"](s.content(path))
		p.Size = int64(len(s.content(path)))
		if err := w.m.Restore(t.Context(), "debian", p); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if b, err := w.store.Find("", p.SHA256()); err != nil || b.Size != p.Size {
			t.Errorf("%s: %+v %v", path, b, err)
		}
	}
}
