package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/fetch"
	"chantal/internal/testenv"

	"github.com/google/go-cmp/cmp"
)

func sha256Of(b []byte) chantal.Digest {
	sum := sha256.Sum256(b)
	return chantal.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// debianWith returns a live view of a repository with one package, of which
// the client has the metadata, and the package's path.
func debianWith(t *testing.T, w *world, p testenv.Package, bases ...string) (*suite, *Repo, chantal.View, string) {
	t.Helper()
	s := newSuite(t)
	at := s.add(p)
	s.publish(w.up, bases...)
	r := w.debian(bases...)
	live := r.Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
	return s, r, live, at
}

// packages adds a package of each size for each trouble and returns their
// paths.
func packages(s *suite, kinds []trouble, sizes ...int) map[trouble][]string {
	paths := map[trouble][]string{}
	for _, kind := range kinds {
		for _, size := range sizes {
			p := testenv.Package{Name: fmt.Sprintf("%s-%d", kind, size), Version: "1", Size: size}
			paths[kind] = append(paths[kind], s.add(p))
		}
	}
	return paths
}

func TestAWrongFileIsNeverComplete(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	kinds := []trouble{truncated, short, corrupt, tail, long, lying, portal}
	paths := packages(s, kinds, 10_000, 300_000)
	s.publish(w.up, baseA)
	live := w.debian(baseA).Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
	for _, kind := range kinds {
		for _, at := range paths[kind] {
			w.up.fail(kind, at, -1)
			neverComplete(t, live, at, s.content(at))
			if _, err := w.store.Find("debian", sha256Of(s.content(at))); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: the store has it: %v", at, err)
			}
			w.up.heal()
			eventually(t, "the right file comes", func() bool {
				got, _, err := get(t, live, at)
				return err == nil && bytes.Equal(got, s.content(at))
			})
		}
	}
}

func TestAnotherLengthThanPromisedIsRefusedBeforeTheFirstByte(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "large", Version: "1", Size: 300_000}, baseA)
	w.clock.advance(fresh) // no longer just published
	w.up.put(baseA+at, append(bytes.Clone(s.content(at)), "and more"...))
	f, err := live.Open(t.Context(), at)
	var wrong *chantal.MismatchError
	if !errors.As(err, &wrong) {
		t.Errorf("the error is %v", err)
	}
	if err == nil {
		f.Close()
	}
}

// neverComplete gets a file that is wrong upstream.
func neverComplete(t *testing.T, v chantal.View, at string, want []byte) {
	t.Helper()
	body, f, err := get(t, v, at)
	if err == nil {
		t.Fatalf("%s: %d bytes of %d were taken for the whole file", at, len(body), len(want))
	}
	if len(body) > 0 && len(body) > len(want)-64<<10 {
		t.Errorf("%s: %d of %d bytes came before the digest was known to hold", at, len(body), len(want))
	}
	if f != nil {
		if len(want) < 64<<10 {
			t.Errorf("%s: a small wrong file was opened, so the client gets a cut and no error", at)
		}
		return
	}
	var mismatch *chantal.MismatchError
	var up *chantal.UpstreamError
	if !errors.As(err, &mismatch) && !errors.As(err, &up) {
		t.Errorf("%s: got the error %#v, of which nobody can tell what to do", at, err)
	}
}

func TestTheNextMirrorIsTriedAfterTrouble(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	kinds := []trouble{missing, unavailable, down, truncated, short, corrupt, long, lying, portal}
	paths := packages(s, kinds, 10_000)
	s.publish(w.up, baseA, baseB)
	live := w.debian(baseA, baseB).Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
	for _, kind := range kinds {
		at := paths[kind][0]
		w.up.fail(kind, baseA+at, -1)
		wantGet(t, live, at, s.content(at))
		if n := len(w.up.requests(baseB + at)); n == 0 {
			t.Errorf("%s: the other mirror was not asked", kind)
		}
	}
}

func TestWhatIsWrongAtAllMirrorsTellsWhatToDo(t *testing.T) {
	isUpstream := func(err error) bool { var up *chantal.UpstreamError; return errors.As(err, &up) }
	isMismatch := func(err error) bool { var wrong *chantal.MismatchError; return errors.As(err, &wrong) }
	for _, test := range []struct {
		a, b trouble
		is   func(error) bool
	}{
		{missing, missing, func(err error) bool { return errors.Is(err, fs.ErrNotExist) }},
		{missing, down, isUpstream},
		{down, missing, isUpstream},
		{unavailable, corrupt, isMismatch},
		{corrupt, missing, isMismatch},
		{short, missing, isMismatch},
	} {
		t.Run(string(test.a+" "+test.b), func(t *testing.T) {
			w := newWorld(t)
			_, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 1000}, baseA, baseB)
			w.up.fail(test.a, baseA+at, -1)
			w.up.fail(test.b, baseB+at, -1)
			if _, _, err := get(t, live, at); err == nil || !test.is(err) {
				t.Errorf("got %#v", err)
			}
		})
	}
}

func TestABrokenDownloadGoesOnWhereItEnded(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 400_000}, baseA)
	w.up.fail(truncated, at, 2)
	wantGet(t, live, at, s.content(at))
	var offsets []bool
	for _, r := range w.up.requests(at) {
		offsets = append(offsets, r.Offset > 0)
	}
	if diff := cmp.Diff([]bool{false, true, true}, offsets); diff != "" {
		t.Errorf("requests with an offset (-want +got):\n%s", diff)
	}
}

func TestABrokenDownloadGoesOnAtAnotherMirror(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 400_000}, baseA, baseB)
	w.up.fail(down, baseA+at, -1)
	w.up.fail(truncated, baseA+at, 1)
	wantGet(t, live, at, s.content(at)) // not a byte is lost to the client who follows
	if asked := w.up.requests(baseB + at); len(asked) != 1 || asked[0].Offset == 0 {
		t.Errorf("the other mirror was asked %+v, not once for the rest", asked)
	}
}

func TestMetadataIsNotStreamedBeforeItsDigestHolds(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.Stanzas = string(bytes.Repeat([]byte("Package: filler\nVersion: 1\nArchitecture: all\n\n"), 20_000))
	s.publish(w.up, baseA)
	plain := "dists/bookworm/main/binary-amd64/Packages"
	live := w.debian(baseA).Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	w.up.fail(stalled, plain, -1)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if f, err := live.Open(ctx, plain); err == nil {
		f.Close()
		t.Fatal("an index of which half has arrived was opened")
	}
	w.up.heal()
	wantGet(t, live, plain, s.content(plain))
}

func TestALargeArtifactIsReadWhileItArrives(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 2 << 20}, baseA)
	w.up.fail(stalled, at, -1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	f, err := live.Open(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	first := make([]byte, 512<<10)
	if _, err := io.ReadFull(f.Content, first); err != nil {
		t.Fatal(err)
	}
	if f.Size != int64(len(s.content(at))) || f.Digest != sha256Of(s.content(at)) {
		t.Errorf("while it arrives it has %d bytes and the digest %s", f.Size, f.Digest)
	}
	w.up.heal()
	rest, err := io.ReadAll(f.Content)
	if err != nil || !bytes.Equal(append(first, rest...), s.content(at)) {
		t.Errorf("got %d bytes, %v", len(first)+len(rest), err)
	}
}

func TestFiftyClientsCauseOneRequest(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 300_000}, baseA)
	w.up.fail(stalled, at, -1)
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			if got, _, err := get(t, live, at); err != nil || !bytes.Equal(got, s.content(at)) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
	for len(w.up.requests(at)) == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	w.up.heal()
	clients.Wait()
	if n := len(w.up.requests(at)); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestABodyWithoutEndIsGivenUpAtItsLimit(t *testing.T) {
	w := newWorld(t)
	g, err := w.store.Create(cas.Want{Path: "Packages", Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Abort(nil)
	const limit = 1 << 20
	if err := copyBody(g, io.LimitReader(endless{}, 4*limit), make([]byte, 64<<10), limit); !errors.Is(err, errTooLong) {
		t.Errorf("got %v", err)
	}
	if n := g.Written(); n > limit+64<<10 {
		t.Errorf("%d bytes were taken", n)
	}
}

func TestARootHasALimitWhateverItsLength(t *testing.T) {
	const limit = 1000
	for _, size := range []int64{-1, limit, limit + 1} {
		body := io.NopCloser(io.LimitReader(endless{}, limit+1))
		if got, err := readAll(&fetch.Response{Size: size, Body: body}, limit); err == nil {
			t.Errorf("announced as %d bytes: %d came", size, len(got))
		}
	}
}

// Of a digest that can be forged one repository's word says nothing about
// another's file.
func TestRepositoriesDoNotShareWhatWeakDigestsName(t *testing.T) {
	w := newWorld(t)
	w.up.fail(silent, "pool/", -1)
	a, b := w.debian(baseA), w.add(Settings{Name: "other", Type: "apt", Upstream: []string{baseB}})
	for digest, shared := range map[chantal.Digest]bool{
		chantal.Digest("md5:" + strings.Repeat("0", 32)):    false,
		chantal.Digest("sha256:" + strings.Repeat("0", 64)): true,
	} {
		p := chantal.Promise{Path: "pool/hello.deb", Kind: chantal.Artifact, Digests: []chantal.Digest{digest}, Size: 10}
		first := a.fetching(p)
		if a.fetching(p) != first {
			t.Errorf("%s: one repository fetches it twice", digest)
		}
		if (b.fetching(p) == first) != shared {
			t.Errorf("%s: two repositories share it: %v", digest, !shared)
		}
	}
}

func TestAFillOutlivesTheClientThatBeganIt(t *testing.T) {
	w := newWorld(t)
	s, r, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 10_000}, baseA)
	w.up.fail(stalled, at, -1)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := live.Open(ctx, at)
		gone <- err
	}()
	for len(w.up.requests(at)) == 0 {
		time.Sleep(time.Millisecond)
	}
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("the client that left got %v", err)
	}
	w.up.heal()
	eventually(t, "the file is stored", func() bool {
		_, err := w.store.Find(r.Name, sha256Of(s.content(at)))
		return err == nil
	})
	if n := len(w.up.requests(at)); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
}

func TestASlowReaderDoesNotPaceTheOthers(t *testing.T) {
	w := newWorld(t)
	s, _, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 4 << 20}, baseA)
	w.up.fail(stalled, at, -1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	slow, err := live.Open(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if _, err := io.ReadFull(slow.Content, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.up.heal()
	wantGet(t, live, at, s.content(at))
	rest, err := io.ReadAll(slow.Content)
	if err != nil || !bytes.Equal(rest, s.content(at)[1:]) {
		t.Errorf("the slow one got %d bytes in the end, %v", len(rest), err)
	}
}

func TestAFileThatWasStoredMeanwhileIsNotFetchedAgain(t *testing.T) {
	w := newWorld(t)
	_, r, live, at := debianWith(t, w, testenv.Package{Name: "hello", Version: "1", Size: 1000}, baseA)
	hit, err := live.(*liveView).lookup(t.Context(), r.Format.Classify(at))
	if err != nil || !hit.ok {
		t.Fatal(hit, err)
	}
	mustGet(t, live, at)
	// A client that had looked before the file was stored asks only now.
	f, err := r.openFetched(t.Context(), hit.promise, hit)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if n := len(w.up.requests(at)); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
}

// eventually fails the test when ok does not become true within ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it does not come to pass that %s", what)
}
