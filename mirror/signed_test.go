package mirror

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal"
	"chantal/internal/sign"
	"chantal/internal/testenv"
	"chantal/plugins/apt"
)

// ownKey is the key that these tests sign with.
var ownKey = sync.OnceValues(func() (*testenv.Key, error) { return testenv.NewKey("own", time.Now().Add(-1000*time.Hour)) })

// keySigner is a chantal.Signer with a key of package testenv.
type keySigner struct{ *testenv.Key }

func (k keySigner) ClearSign(text []byte, at time.Time) ([]byte, error)  { return k.Clearsign(text, at) }
func (k keySigner) DetachSign(body []byte, at time.Time) ([]byte, error) { return k.Detach(body, at) }

func (k keySigner) PublicKey() []byte {
	public, err := k.Public()
	if err != nil {
		panic(err)
	}
	return public
}

func signer() (chantal.Signer, error) {
	key, err := ownKey()
	return keySigner{key}, err
}

// ownRing checks what is signed with ownKey.
func ownRing(t *testing.T) chantal.Keyring {
	t.Helper()
	key, err := signer()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := sign.NewKeyring(bytes.NewReader(key.PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// wantSigned returns the date of the signed root that a view answers, with all
// that belongs to it checked.
func wantSigned(t *testing.T, v chantal.View) time.Time {
	t.Helper()
	files := map[string][]byte{}
	tree := (&apt.Format{}).Classify(inRelease).Tree
	for _, p := range tree.Roots {
		body, f, err := get(t, v, p)
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		if f.Kind != chantal.Root || f.Size != int64(len(body)) || f.Digest != sha256Of(body) || f.Path != p || f.Tree != tree.Name {
			t.Errorf("%s: %+v", p, f)
		}
		files[p] = body
	}
	verdict, err := (&apt.Format{}).Check(tree, files, ownRing(t), time.Now().AddDate(1, 0, 0))
	if err != nil || len(verdict.Roots) != 3 {
		t.Fatalf("%+v %v", verdict, err)
	}
	if text := string(files[inRelease]); strings.Contains(text, "Valid-Until") {
		t.Errorf("it ends: %s", text)
	}
	return verdict.Date
}

func TestTheDateOfASignedRootNeverGoesBack(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.ValidFor = time.Minute
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	r := w.debian(baseA)
	wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
	first := w.clock.now()
	w.clock.advance(time.Minute)
	s.add(testenv.Package{Name: "hello", Version: "2"})
	s.publish(w.up, baseA)
	w.due()
	wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
	second := w.clock.now()
	old, new := r.At(r.Name, first, false), r.At(r.Name, second, false)

	// One URL, of which the ref comes to mean something else.
	at := Place{Ref: "prod+signed"}
	var dates []time.Time
	show := func(base chantal.View, p Place) {
		t.Helper()
		dates = append(dates, wantSigned(t, r.Signed(base, p, signer)))
	}
	show(new, at)
	w.clock.advance(time.Hour)
	show(new, at)
	if !dates[1].Equal(dates[0]) {
		t.Errorf("the same content has another date: %v", dates)
	}
	show(old, at)
	show(new, at)
	show(old, at)
	w.restart(true)
	r = w.debian(baseA)
	old, new = r.At(r.Name, first, false), r.At(r.Name, second, false)
	w.clock.advance(time.Hour)
	show(old, at)
	if !dates[5].Equal(dates[4]) {
		t.Errorf("after a restart the same content has another date: %v", dates[4:])
	}
	w.clock.advance(-24 * time.Hour) // somebody sets the clock
	show(new, at)
	show(old, at)
	for i := 2; i < len(dates); i++ {
		if dates[i].Before(dates[i-1]) {
			t.Errorf("the date goes back: %v", dates)
		}
	}
	if limit := second.Add(2 * time.Hour); dates[len(dates)-1].After(limit) {
		t.Errorf("%v is of the future", dates[len(dates)-1])
	}

	// Behind the forward proxy all refs share the URL of upstream.
	dates = []time.Time{s.Date().Add(-time.Minute)} // of the head
	for i := range 6 {
		w.clock.advance(25 * time.Hour) // by more than it was set back
		base, ref := old, "first+signed"
		if i%2 == 1 {
			base, ref = new, "second+signed"
		}
		show(base, Place{ref, true})
		if got := dates[len(dates)-1]; got.Before(dates[len(dates)-2]) {
			t.Errorf("the date goes back: %v", dates)
		}
		if i == 3 {
			w.restart(true)
			r = w.debian(baseA)
			old, new = r.At(r.Name, first, false), r.At(r.Name, second, false)
		}
	}
}

func TestASignedRootIsNotOlderThanUpstreamsAtItsURL(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	r := w.debian(baseA)
	wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
	first := w.clock.now()
	w.due()
	s.SetDate(w.clock.now().Add(-10 * time.Second)) // this very moment
	head := s.Date()
	s.publish(w.up, baseA)
	wantGet(t, r.Live(Client{}), inRelease, s.content(inRelease))
	if got := wantSigned(t, r.Signed(r.At(r.Name, first, false), Place{"first+signed", true}, signer)); got.Before(head) {
		t.Errorf("%v is before upstream's %v", got, head)
	}
}

func TestASignatureBelongsToTheReleaseThatAClientHas(t *testing.T) {
	w := newWorld(t)
	_, r, _ := started(t, w, baseA)
	base := r.At(r.Name, w.clock.now(), false)
	a, b := r.Signed(base, Place{"a+signed", true}, signer), r.Signed(base, Place{"b+signed", true}, signer)
	tree := (&apt.Format{}).Classify(inRelease).Tree
	release, _ := mustGet(t, a, tree.Roots[1])
	w.clock.advance(time.Hour)
	wantSigned(t, b) // newer, at the same URL
	detached, _ := mustGet(t, a, tree.Roots[2])
	if _, err := ownRing(t).Verify(release, detached, w.clock.now()); err != nil {
		t.Errorf("it is a signature of another Release: %v", err)
	}
}

func TestASignedViewShowsItsBase(t *testing.T) {
	w := newWorld(t)
	s, r, _ := started(t, w, baseA)
	v := r.Signed(r.Live(Client{}), Place{Ref: "live+signed"}, signer)
	wantSigned(t, v)
	wantGet(t, v, packagesXZ, s.content(packagesXZ))
	for _, p := range []string{"dists/none/InRelease", "pool/none.deb"} {
		if _, _, err := get(t, v, p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	// Of instants what they show counts: of one state there is one root.
	w.clock.advance(time.Second)
	early, _ := mustGet(t, r.Signed(r.At(r.Name, w.clock.now(), false), Place{}, signer), inRelease)
	w.clock.advance(time.Hour)
	wantGet(t, r.Signed(r.At(r.Name, w.clock.now(), false), Place{}, signer), inRelease, early)
	// What the disk has changed is not signed, but fetched anew.
	root := s.content(inRelease)
	changed := bytes.Replace(root, []byte("Label: Example"), []byte("Label: Exbmple"), 1)
	if err := errors.Join(os.Chmod(w.blobFile(root), 0o644), os.WriteFile(w.blobFile(root), changed, 0o444)); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(time.Hour) // no copy in memory is left
	wantSigned(t, r.Signed(r.At(r.Name, w.clock.now(), false), Place{Ref: "y"}, signer))
	wantGet(t, r.At(r.Name, w.clock.now(), false), inRelease, root)
	failing := r.Signed(r.Live(Client{}), Place{Ref: "x"}, func() (chantal.Signer, error) { return nil, errors.New("no key") })
	if _, _, err := get(t, failing, inRelease); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Error(err)
	}
}
