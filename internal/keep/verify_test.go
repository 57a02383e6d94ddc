package keep

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/cas"
)

// tree observes a root with an index of two artifacts, of which one is stored.
func (w *world) tree(repo string) (root, index, stored, never chantal.Promise) {
	w.t.Helper()
	stored = w.put("pool/stored.deb", chantal.Artifact, "stored by "+repo)
	never = promise("pool/never.deb", chantal.Artifact, "never asked for by "+repo)
	index = w.put("suite/Packages", chantal.Meta, "index of "+repo)
	w.listed[index.SHA256()] = []chantal.Promise{stored, never}
	root = w.observe(repo, "suite", "root of "+repo, index, promise("suite/Contents", chantal.Meta, "nobody wants it"))
	return root, index, stored, never
}

// told is what a report says of files, as "what path refs".
func told(r Report) []string {
	all := []string{}
	for what, list := range map[string][]Finding{"corrupt": r.Corrupt, "missing": r.Missing} {
		for _, f := range list {
			all = append(all, what+" "+f.Path+" "+strings.Join(f.Refs, ","))
		}
	}
	return all
}

func wantReport(t *testing.T, r Report, ok bool, files ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, files...), told(r)); diff != "" || r.OK != ok {
		t.Errorf("ok is %v, want %v; problems %q; files: %s", r.OK, ok, r.Problems, diff)
	}
}

func TestASoundStore(t *testing.T) {
	w := newWorld(t)
	root, index, stored, _ := w.tree("r")
	w.freeze("today", false, nil, "r")
	r := w.verify(false)
	want := Report{
		BlobsChecked: 3, BytesChecked: root.Size + index.Size + stored.Size,
		Corrupt: []Finding{}, Missing: []Finding{}, Repaired: []Finding{}, Problems: []string{}, OK: true,
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsCorruptIsNamedAndStaysSoUntilItIsRepaired(t *testing.T) {
	for _, which := range []string{"root", "index", "artifact"} {
		t.Run(which, func(t *testing.T) {
			w := newWorld(t)
			root, index, stored, _ := w.tree("r")
			w.freeze("today", false, nil, "r")
			p := map[string]chantal.Promise{"root": root, "index": index, "artifact": stored}[which]
			w.flip(p)
			line := "corrupt " + p.Path + " live,today"
			wantReport(t, w.verify(false), false, line)
			wantReport(t, w.verify(false), false, line)
			r := w.verify(true)
			wantReport(t, r, true, line)
			if diff := cmp.Diff(r.Corrupt, r.Repaired); diff != "" {
				t.Error(diff)
			}
			wantReport(t, w.verify(false), true)
		})
	}
}

func TestWhatIsGoneIsMissingAndWhatNeverWasIsNot(t *testing.T) {
	w := newWorld(t)
	root, index, stored, _ := w.tree("r")
	w.freeze("today", false, nil, "r")
	w.remove(stored)
	wantReport(t, w.verify(false), false, "missing pool/stored.deb live,today")
	wantReport(t, w.verify(true), true, "missing pool/stored.deb live,today")
	w.remove(index)
	wantReport(t, w.verify(false), false, "missing suite/Packages live,today")
	wantReport(t, w.verify(true), true, "missing suite/Packages live,today")
	w.remove(root)
	wantReport(t, w.verify(true), true, "missing suite/root live,today")
	wantReport(t, w.verify(false), true)
}

// A root, its index and what that lists are gone: each is known only when what
// names it is back.
func TestRepairGoesFromTheRootDown(t *testing.T) {
	w := newWorld(t)
	root, index, stored, _ := w.tree("r")
	for _, p := range []chantal.Promise{root, index, stored} {
		w.flip(p)
	}
	r := w.verify(true)
	if len(r.Repaired) != 3 || !r.OK {
		t.Errorf("got %+v", r)
	}
	wantReport(t, w.verify(false), true)
}

func TestWhatCannotBeHadIsNamedWithTheReason(t *testing.T) {
	w := newWorld(t)
	root, _, stored, _ := w.tree("r")
	w.freeze("today", false, nil, "r")
	w.flip(root)
	w.remove(stored)
	delete(w.up, root.SHA256())
	r := w.verify(true)
	wantReport(t, r, false, "corrupt suite/root live,today")
	if len(r.Repaired) != 0 || !strings.Contains(r.Corrupt[0].Reason, "upstream does not have it") {
		t.Errorf("got %+v", r)
	}
}

func TestAnyRepositoryThatPromisesTheDigestWillDo(t *testing.T) {
	w := newWorld(t)
	shared := w.put("pool/shared.deb", chantal.Artifact, "shared")
	w.observe("a", "one", "root a", shared)
	other := shared
	other.Path = "elsewhere/shared.deb"
	w.observe("b", "two", "root b", other)
	w.flip(shared)
	states, err := Live(w.catalog, "a")
	if err != nil {
		t.Fatal(err)
	}
	delete(w.up, shared.SHA256())
	r := w.verifyStates(states, false, true)
	wantReport(t, r, false, "corrupt pool/shared.deb live")
	if diff := cmp.Diff([]string{"a/pool/shared.deb", "b/elsewhere/shared.deb"}, w.asked); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyWhatTheRefsNeedIsRead(t *testing.T) {
	w := newWorld(t)
	_, _, storedA, _ := w.tree("a")
	w.freeze("today", false, nil, "a")
	_, _, storedB, _ := w.tree("b")
	w.flip(storedA)
	w.flip(storedB)
	s, err := w.catalog.Snapshot("today")
	if err != nil {
		t.Fatal(err)
	}
	states, err := Snapshot(w.catalog, s, "")
	if err != nil {
		t.Fatal(err)
	}
	r := w.verifyStates(states, false, false)
	wantReport(t, r, false, "corrupt pool/stored.deb today")
	if r.BlobsChecked != 3 {
		t.Errorf("read %d blobs, want 3", r.BlobsChecked)
	}
	if _, err := w.store.Find("", storedB.SHA256()); err != nil {
		t.Errorf("the other's file was touched: %v", err)
	}
}

func TestWhatFreezingPromisesHasToBeThere(t *testing.T) {
	w := newWorld(t)
	w.closure["suite/Contents"] = true
	_, _, _, _ = w.tree("r")
	wantReport(t, w.verify(false), true)
	w.freeze("without", false, []string{"suite/Contents"}, "r")
	wantReport(t, w.verify(false), true)
	w.freeze("with", false, nil, "r")
	wantReport(t, w.verify(false), false, "missing suite/Contents live,with,without")
}

func TestASealedSnapshotNeedsEveryArtifact(t *testing.T) {
	w := newWorld(t)
	w.tree("r")
	w.freeze("sealed", true, nil, "r")
	r := w.verify(false)
	if len(r.Missing) != 1 || r.Missing[0].Path != "pool/never.deb" || r.OK {
		t.Errorf("got %+v", r)
	}
}

func TestRetainedGenerationsAreChecked(t *testing.T) {
	w := newWorld(t)
	old := w.observe("r", "suite", "first")
	w.observe("r", "suite", "second")
	w.flip(old)
	r := w.verify(false)
	if len(r.Corrupt) != 1 || len(r.Corrupt[0].Refs) != 1 || !strings.HasPrefix(r.Corrupt[0].Refs[0], "20") {
		t.Errorf("got %+v", r)
	}
}

func TestDamageThatCostsNobodyAnything(t *testing.T) {
	w := newWorld(t)
	w.tree("r")
	orphan := w.put("x", chantal.Opaque, "nothing names it")
	w.flip(orphan)
	wantReport(t, w.verify(false), false, "corrupt  ")
	wantReport(t, w.verify(false), true)
}

func TestAliases(t *testing.T) {
	for name, text := range map[string]string{"nonsense": "nonsense", "another blob": ""} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			content := "known by its sha512 only"
			p := chantal.Promise{Path: "pool/x.deb", Kind: chantal.Artifact, Digests: []chantal.Digest{sha512Of([]byte(content))}, Size: int64(len(content))}
			if _, err := w.store.Put(cas.Want{Repo: "r", Path: p.Path, Digests: p.Digests, Size: p.Size}, []byte(content)); err != nil {
				t.Fatal(err)
			}
			w.up[shaOf([]byte(content))] = []byte(content)
			root := w.observe("r", "suite", "root", p)
			wantReport(t, w.verify(false), true)

			hex := p.Digests[0].Hex()
			file := filepath.Join(w.dir, "alias", "sha512", hex[:2], hex)
			if text == "" {
				text = root.SHA256().Hex()
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o444); err != nil {
				t.Fatal(err)
			}
			r := w.verify(true)
			wantReport(t, r, true, "corrupt pool/x.deb live")
			if b, err := w.store.Find("r", p.Digests[0]); err != nil || b.Digest != shaOf([]byte(content)) {
				t.Errorf("after the repair: %+v %v", b, err)
			}
			wantReport(t, w.verify(false), true)

			// The blob goes, and the alias tells that it was there.
			if err := os.Remove(filepath.Join(w.dir, "stored")); err != nil {
				t.Fatal(err)
			}
			w.remove(promise("", chantal.Artifact, content))
			wantReport(t, w.verify(false), false, "missing pool/x.deb live")
		})
	}
}

func TestWhatLiesBesideTheBlobs(t *testing.T) {
	w := newWorld(t)
	_, _, stored, _ := w.tree("r")
	if err := os.WriteFile(filepath.Join(w.dir, "blobs", "ab", "notes.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.file(stored), 0o666); err != nil {
		t.Fatal(err)
	}
	r := w.verify(false)
	if len(r.Problems) != 2 || r.OK || !strings.Contains(r.Problems[0], "may be written by others") && !strings.Contains(r.Problems[1], "may be written by others") {
		t.Errorf("got %q", r.Problems)
	}
}

// Nothing false is said while blobs, generations and snapshots come.
func TestVerifyUnderLoad(t *testing.T) {
	w := newWorld(t)
	var load sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		load.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("r%d", i)
				content := fmt.Sprintf("artifact %d of %s", n, name)
				p := chantal.Promise{Path: content, Kind: chantal.Artifact, Digests: []chantal.Digest{sha512Of([]byte(content))}, Size: int64(len(content))}
				if _, err := w.store.Put(cas.Want{Repo: name, Path: p.Path, Digests: p.Digests, Size: p.Size}, []byte(content)); err != nil {
					t.Error(err)
					return
				}
				w.mu.Lock()
				w.listed[shaOf(fmt.Appendf(nil, "root %d of %s", n, name))] = []chantal.Promise{p}
				w.mu.Unlock()
				if err := w.observeAnother(name, fmt.Sprintf("root %d of %s", n, name)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 10 {
		wantReport(t, w.verify(false), true)
	}
	close(stop)
	load.Wait()
	wantReport(t, w.verify(false), true)
}
