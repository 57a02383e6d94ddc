package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/catalog"
	"chantal/internal/disk/disktest"
	"chantal/internal/testenv"
)

// press is a world with a repository of which a client has the metadata.
type press struct {
	*world
	suite *suite
	repo  *Repo
	then  catalog.Frozen // what there was
	said  []string
}

// newPress publishes hello 1, other 1 and lib 1 upstream.
func newPress(t *testing.T) *press {
	t.Helper()
	p := &press{world: newWorld(t)}
	p.suite = newSuite(t)
	for _, name := range []string{"hello", "other", "lib"} {
		p.suite.add(testenv.Package{Name: name, Version: "1"})
	}
	p.suite.publish(p.up, baseA)
	p.repo = p.debian(baseA)
	p.observe()
	return p
}

// observe lets a client get what upstream has now.
func (p *press) observe() catalog.Frozen {
	p.t.Helper()
	live := p.repo.Live(Client{})
	wantGet(p.t, live, inRelease, p.suite.content(inRelease))
	wantGet(p.t, live, packagesXZ, p.suite.content(packagesXZ))
	if err := p.store.Sync(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	at, err := p.catalog.Clock()
	if err != nil {
		p.t.Fatal(err)
	}
	p.then = catalog.Frozen{Repo: "debian", At: at}
	p.clock.advance(time.Second)
	return p.then
}

func (p *press) publish(q Publishing) (Published, error) {
	p.t.Helper()
	key, err := signer()
	if err != nil {
		p.t.Fatal(err)
	}
	q.Signer, q.Date = key, SigningDate(p.clock.now())
	if q.Sources == nil {
		q.Sources = []catalog.Frozen{p.then}
	}
	return p.m.Publish(p.t.Context(), q, func(line string) { p.said = append(p.said, line) })
}

// edition records what was published and returns the view of it.
func (p *press) edition(name string, q Publishing) chantal.View {
	p.t.Helper()
	made, err := p.publish(q)
	if err != nil {
		p.t.Fatal(err)
	}
	at, err := p.catalog.Clock()
	if err != nil {
		p.t.Fatal(err)
	}
	f := catalog.Frozen{Repo: "debian", Edition: name, At: at, Generations: made.Generations}
	if err := p.catalog.PutSnapshot(catalog.Snapshot{Name: name, Repos: []catalog.Frozen{f}}, false); err != nil {
		p.t.Fatal(err)
	}
	return p.repo.At(f.Line(), at, false)
}

// packagesIn returns the names and versions in the plain Packages of a view.
func packagesIn(t *testing.T, v chantal.View) []string {
	t.Helper()
	body, _ := mustGet(t, v, strings.TrimSuffix(packagesXZ, ".xz"))
	var all []string
	for _, stanza := range strings.Split(strings.TrimSpace(string(body)), "\n\n") {
		var name, version string
		for line := range strings.Lines(stanza) {
			fmt.Sscanf(line, "Package: %s", &name)
			fmt.Sscanf(line, "Version: %s", &version)
		}
		all = append(all, name+" "+version)
	}
	return all
}

func only(names ...string) chantal.Keep {
	return func(_ int, p *chantal.Promise, _ func(string) string) (bool, error) {
		for _, name := range names {
			if p.Package.Name == name {
				return true, nil
			}
		}
		return false, nil
	}
}

func TestAnEditionIsServedAsASnapshotIs(t *testing.T) {
	p := newPress(t)
	extra := "project/key.asc"
	p.up.put(baseA+extra, []byte("a key"))
	wantGet(t, p.repo.Live(Client{}), extra, []byte("a key"))
	lone := "pool/lone_1_all.deb" // in no index
	p.up.put(baseA+lone, []byte("a package"))
	wantGet(t, p.repo.Live(Client{}), lone, []byte("a package"))
	if err := p.m.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.observe()
	v := p.edition("web", Publishing{Keep: only("hello")})
	p.suite.add(testenv.Package{Name: "hello", Version: "2"})
	p.suite.publish(p.up, baseA)
	p.due()
	p.observe()
	for range 2 {
		wantSigned(t, v)
		if d := cmp.Diff([]string{"hello 1"}, packagesIn(t, v)); d != "" {
			t.Error(d)
		}
		hello := p.suite.PoolPath(testenv.Package{Name: "hello", Version: "1"})
		wantGet(t, v, hello, p.suite.content(hello)) // fetched
		wantGet(t, v, extra, []byte("a key"))
		for _, gone := range []string{p.suite.PoolPath(testenv.Package{Name: "other", Version: "1"}), contentsGZ, packagesXZ, lone, "dists/none/InRelease"} {
			if _, _, err := get(t, v, gone); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", gone, err)
			}
		}
		// Everything that the Release lists is there, also by its digests.
		release, f := mustGet(t, v, releasePath)
		listed := 0
		for d := range p.promised(f, release) {
			listed++
			body, _ := mustGet(t, v, d.Path)
			for _, sum := range d.Digests {
				dir, folder := filepath.Dir(d.Path), map[string]string{"sha256": "SHA256", "sha512": "SHA512"}[sum.Algo()]
				wantGet(t, v, dir+"/by-hash/"+folder+"/"+sum.Hex(), body)
			}
		}
		if listed < 2 {
			t.Errorf("only %d files are listed", listed)
		}
		p.restart(false)
		p.repo = p.debian(baseA)
		s, err := p.catalog.Snapshot("web")
		if err != nil {
			t.Fatal(err)
		}
		v = p.repo.At(s.Repos[0].Line(), s.Repos[0].At, false)
	}
	trees, known, present, err := p.repo.Frozen(t.Context(), "debian@web", p.clock.now())
	if err != nil || trees != 2 || known != 1 || present != 1 {
		t.Error(trees, known, present, err)
	}
	e, err := p.repo.Explain(t.Context(), inRelease, "debian@web", p.clock.now())
	if err != nil || e.Generation != 1 || !e.Stored {
		t.Errorf("%+v %v", e, err)
	}
	// Nothing of it has anything to do with what upstream is asked for.
	if wanted, err := p.catalog.Wanted("debian", "dists/bookworm", time.Time{}); err != nil || strings.Contains(fmt.Sprint(wanted), "Packages.gz") {
		t.Error(wanted, err)
	}
}

func (p *press) promised(f *chantal.File, release []byte) func(yield func(chantal.Promise) bool) {
	return func(yield func(chantal.Promise) bool) {
		for q, err := range p.repo.Format.Parse(releasePath, bytes.NewReader(release)) {
			if err != nil {
				p.t.Fatal(err)
			}
			if !yield(q) {
				return
			}
		}
	}
}

func TestPublishingTwiceGivesTheSameIndexes(t *testing.T) {
	p := newPress(t)
	roots := func(name string) string {
		release, _ := mustGet(t, p.edition(name, Publishing{Keep: only("hello", "lib")}), releasePath)
		_, lists, _ := strings.Cut(string(release), "SHA256:")
		return lists
	}
	first := roots("one")
	p.clock.advance(time.Hour)
	if d := cmp.Diff(first, roots("two")); d != "" {
		t.Error(d)
	}
}

func TestResigningLeavesTheIndexesAsTheyAre(t *testing.T) {
	p := newPress(t)
	v := p.edition("again", Publishing{Resign: true})
	wantSigned(t, v)
	wantGet(t, v, packagesXZ, p.suite.content(packagesXZ))
}

func TestOfTwoSourcesTheLaterOneWins(t *testing.T) {
	p := newPress(t)
	first := p.then
	p.suite.add(testenv.Package{Name: "hello", Version: "2"})
	p.suite.Drop(testenv.Package{Name: "hello", Version: "1"}, false)
	p.suite.Drop(testenv.Package{Name: "lib", Version: "1"}, false)
	p.suite.publish(p.up, baseA)
	p.clock.advance(2 * time.Minute)
	second := p.observe()
	for name, c := range map[string]struct {
		q    Publishing
		want []string
	}{
		"newer":    {Publishing{Sources: []catalog.Frozen{first, second}}, []string{"lib 1", "hello 2", "other 1"}},
		"older":    {Publishing{Sources: []catalog.Frozen{second, first}}, []string{"hello 1", "lib 1", "other 1"}},
		"all":      {Publishing{Sources: []catalog.Frozen{first, second}, All: true}, []string{"hello 1", "lib 1", "other 1", "hello 2"}},
		"filtered": {Publishing{Sources: []catalog.Frozen{first, second}, Keep: only("hello")}, []string{"hello 2"}},
	} {
		if d := cmp.Diff(c.want, packagesIn(t, p.edition(name, c.q))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestSourcesThatCannotBeOne(t *testing.T) {
	p := newPress(t)
	first := p.then
	at := p.suite.add(testenv.Package{Name: "hello", Version: "1", Build: 2})
	p.suite.publish(p.up, baseA)
	p.clock.advance(2 * time.Minute)
	second := p.observe()
	_, err := p.publish(Publishing{Sources: []catalog.Frozen{first, second}, All: true})
	var conflict *ConflictError
	if !errors.As(err, &conflict) || conflict.Path != at || conflict.Digests[0] == conflict.Digests[1] {
		t.Errorf("%v", err)
	}
	if _, err := p.publish(Publishing{Sources: []catalog.Frozen{first, second}}); err != nil {
		t.Errorf("the later one wins: %v", err)
	}
}

func TestWhatCannotBePublished(t *testing.T) {
	p := newPress(t)
	p.up.put("http://a.mirror.example.org/files/x", []byte("x"))
	files := p.add(Settings{Name: "files", Type: "generic", Upstream: []string{"http://a.mirror.example.org/files/"}})
	mustGet(t, files.Live(Client{}), "x")
	var none *UnpublishableError
	if _, err := p.publish(Publishing{Sources: []catalog.Frozen{{Repo: "files", At: p.clock.now()}}}); !errors.As(err, &none) {
		t.Error(err)
	}
	if _, err := p.publish(Publishing{Sources: []catalog.Frozen{{Repo: "none", At: p.clock.now()}}}); err == nil {
		t.Error("a repository that is not there was published")
	}
	broken := errors.New("broken")
	_, err := p.publish(Publishing{Keep: func(int, *chantal.Promise, func(string) string) (bool, error) { return false, broken }})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "dists/bookworm of debian") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.m.Publish(ctx, Publishing{Sources: []catalog.Frozen{p.then}}, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	key, err := signer()
	if err != nil {
		t.Fatal(err)
	}
	begun := Publishing{Sources: []catalog.Frozen{p.then}, Signer: key, Date: p.clock.now(), Keep: func(int, *chantal.Promise, func(string) string) (bool, error) {
		cancel() // somebody has gone while it is under way
		return true, nil
	}}
	if _, err := p.m.Publish(ctx, begun, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// A suite of which nobody ever wanted an index is left out, and said so.
	bare := newSuite(t)
	bare.add(testenv.Package{Name: "bare", Version: "1"})
	bare.publish(p.up, baseB)
	unwanted := p.add(Settings{Name: "unwanted", Type: "apt", Upstream: []string{baseB}})
	mustGet(t, unwanted.Live(Client{}), inRelease)
	p.clock.advance(time.Second)
	made, err := p.publish(Publishing{Sources: []catalog.Frozen{{Repo: "unwanted", At: p.clock.now()}}})
	if err != nil || !cmp.Equal(made.Left, []string{"dists/bookworm"}) || made.Generations != nil {
		t.Errorf("%+v %v", made, err)
	}
}

func TestAnIndexThatIsLostIsNotLeftOut(t *testing.T) {
	p := newPress(t)
	index := p.suite.content(packagesXZ)
	for _, damage := range []struct {
		what string
		do   func(file string) error
	}{
		{"removed", os.Remove},
		{"changed", func(file string) error {
			if err := os.Chmod(file, 0o644); err != nil {
				return err
			}
			body := bytes.Clone(index)
			body[len(body)/2] ^= 1
			return os.WriteFile(file, body, 0o444)
		}},
	} {
		p.m.listings.Purge()
		if err := damage.do(p.blobFile(index)); err != nil {
			t.Fatal(damage.what, err)
		}
		p.up.put(baseA+packagesXZ, nil)
		some := Publishing{Keep: only("hello")} // all of it would store what Release lists as the plain index
		if _, err := p.publish(some); err == nil || !strings.Contains(err.Error(), packagesXZ) {
			t.Errorf("%s, and upstream has it no more: %v", damage.what, err)
		}
		p.up.put(baseA+packagesXZ, index)
		made, err := p.publish(some)
		if err != nil || made.Seen != 3 || made.Kept != 1 {
			t.Errorf("%s, and upstream has it: %+v %v", damage.what, made, err)
		}
	}
}

func TestARootThatIsDamagedIsNotSigned(t *testing.T) {
	for _, resign := range []bool{false, true} {
		t.Run(fmt.Sprint(resign), func(t *testing.T) {
			p := newPress(t)
			root := p.suite.content(inRelease)
			file := p.blobFile(root)
			changed := bytes.Replace(root, []byte("Label: Example"), []byte("Label: Exbmple"), 1)
			if err := errors.Join(os.Chmod(file, 0o644), os.WriteFile(file, changed, 0o444)); err != nil {
				t.Fatal(err)
			}
			p.m.listings.Purge()
			_, err := p.publish(Publishing{Resign: resign})
			if err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAFullDiskEndsAPublication(t *testing.T) {
	p := newPress(t)
	p.faults.Set(disktest.Fault{Err: syscall.ENOSPC})
	_, err := p.publish(Publishing{})
	var full *chantal.DiskError
	if !errors.As(err, &full) {
		t.Errorf("%v", err)
	}
	p.faults.Set()
	eventually(t, "there is room again", func() bool { _, err = p.publish(Publishing{}); return err == nil })
}

func TestIndexesAreCompressedAsTheSuffixSays(t *testing.T) {
	p := newPress(t)
	out := &publication{store: p.store, repo: "debian", tree: "x", date: p.clock.now()}
	text := strings.Repeat("some text ", 100_000)
	fill := func(w io.Writer) error { _, err := io.WriteString(w, text); return err }
	for _, suffix := range []string{"", ".gz", ".zst", ".xz"} {
		w, err := out.Write(suffix, []string{"sha256", "sha512", "sha1"}, fill)
		if err != nil {
			t.Fatal(suffix, err)
		}
		again, err := out.Write(suffix, []string{"sha256", "sha512", "sha1"}, fill)
		if d := cmp.Diff(w, again); d != "" || err != nil {
			t.Errorf("%s: the same content gives other bytes: %s %v", suffix, d, err)
		}
		file, blob, err := p.store.Open(w.Digests[0])
		if err != nil || blob.Size != w.Size || w.PlainSize != int64(len(text)) || w.PlainDigests[0] != sha256Of([]byte(text)) || len(w.Digests) != 3 {
			t.Fatalf("%s: %+v %v", suffix, w, err)
		}
		plain, err := decompress("x"+suffix, file, blob.Size)
		if err != nil {
			t.Fatal(suffix, err)
		}
		if got, err := io.ReadAll(plain); err != nil || string(got) != text {
			t.Errorf("%s: %d bytes, %v", suffix, len(got), err)
		}
		file.Close()
		broken := errors.New("broken")
		if _, err := out.Write(suffix, nil, func(w io.Writer) error { _ = fill(w); return broken }); !errors.Is(err, broken) {
			t.Errorf("%s: %v", suffix, err)
		}
	}
	if _, err := out.Write(".lz4", nil, fill); err == nil {
		t.Error(".lz4 works")
	}
	if _, err := out.Write("", []string{"crc32"}, fill); err == nil {
		t.Error("crc32 works")
	}
}
