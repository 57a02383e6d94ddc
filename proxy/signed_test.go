package proxy

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/internal/sign"
	"chantal/internal/testenv"
	"chantal/snapshot"
)

// keySigner is a chantal.Signer with a key of package testenv.
type keySigner struct {
	*testenv.Key
	public []byte
}

func (k keySigner) ClearSign(text []byte, at time.Time) ([]byte, error)  { return k.Clearsign(text, at) }
func (k keySigner) DetachSign(body []byte, at time.Time) ([]byte, error) { return k.Detach(body, at) }
func (k keySigner) PublicKey() []byte                                    { return k.public }

// signs gives a site a key of its own, and returns a ring with it.
func signs(t *testing.T, o *Options) chantal.Keyring {
	t.Helper()
	key, err := testenv.NewKey("own", time.Now().Add(-1000*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := sign.NewKeyring(bytes.NewReader(public))
	if err != nil {
		t.Fatal(err)
	}
	o.Signer = func() (chantal.Signer, error) { return keySigner{key, public}, nil }
	o.Key = func() ([]byte, []byte, error) { return public, []byte("binary"), nil }
	return ring
}

func TestSignedRootsByEveryDoor(t *testing.T) {
	var ring chantal.Keyring
	s := newSite(t, func(o *Options) { ring = signs(t, o) })
	suite, files := s.debian(testenv.Package{Name: "hello", Version: "1"})
	s.direct("/debian/"+inRelease).is(t, "root", files[inRelease].Content)
	s.direct("/debian/"+packagesXZ).is(t, "index", files[packagesXZ].Content)
	old := s.freeze(t, "old")
	s.advance(2 * time.Minute)
	newer := s.publish(suite, testenv.Package{Name: "hello", Version: "2"})
	s.advance(2 * time.Minute)
	s.direct("/debian/"+inRelease).is(t, "newer root", newer[inRelease].Content)
	s.direct("/debian/"+packagesXZ).is(t, "newer index", newer[packagesXZ].Content)
	s.advance(time.Minute)
	listener := s.listen("old+signed")
	upstream := "http://a.mirror.example.org/debian/"
	dir := strings.TrimSuffix(inRelease, "InRelease")
	for what, get := range map[string]func(path string) got{
		"by URL":      func(p string) got { return s.direct("/debian@old+signed/" + p) },
		"encoded":     func(p string) got { return s.direct("/debian@old%2Bsigned/" + p) },
		"by host":     func(p string) got { return s.direct("/-/at/old+signed/a.mirror.example.org/debian/" + p) },
		"by user":     func(p string) got { return s.request(http.MethodGet, upstream+p, "old+signed:x@"+s.addr) },
		"by listener": func(p string) got { return s.request(http.MethodGet, upstream+p, listener) },
		"by instant":  func(p string) got { return s.direct("/debian@" + old + "+signed/" + p) },
		"live":        func(p string) got { return s.direct("/debian@live+signed/" + p) },
	} {
		want := files
		if what == "live" {
			want = newer
		}
		root, release, detached := get(inRelease), get(dir+"Release"), get(dir+"Release.gpg")
		for _, g := range []got{root, release, detached} {
			if g.status != http.StatusOK || !strings.HasSuffix(g.header.Get("Chantal-Ref"), "+signed") || g.header.Get("Chantal-Generation") == "" {
				t.Fatalf("%s: %d %v %.200s", what, g.status, g.header, g.body)
			}
			g.wantHeader(t, what, "Cache-Control", "no-cache")
		}
		if _, err := ring.Verify(release.body, detached.body, s.now()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if bytes.Equal(root.body, want[inRelease].Content) || !bytes.Contains(root.body, []byte("SHA256:")) {
			t.Errorf("%s: the root is upstream's, or none", what)
		}
		if again := get(inRelease); again.header.Get("Etag") != root.header.Get("Etag") {
			t.Errorf("%s: the root changes while its content stays", what)
		}
		get(packagesXZ).is(t, what+": index", want[packagesXZ].Content)
	}
	x, err := s.handler.Explain(t.Context(), "/debian@old+signed/"+inRelease, s.addr)
	if err != nil || x.Status != http.StatusOK || !strings.Contains(x.Verdict, "signed here") || x.Digests != nil {
		t.Errorf("%+v %v", x, err)
	}
	if x, err := s.handler.Explain(t.Context(), "/debian@old+signed/"+packagesXZ, s.addr); err != nil || x.Digests == nil {
		t.Errorf("%+v %v", x, err)
	}
}

// freeze makes a snapshot and returns it as an instant.
func (s *site) freeze(t *testing.T, name string) string {
	t.Helper()
	frozen, err := s.names.Create(t.Context(), snapshot.Request{Name: name}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	return instantRef(frozen.Created)
}

func TestADateIsNoValidatorWhereRefsShareAURL(t *testing.T) {
	s := newSite(t, func(o *Options) { signs(t, o) })
	_, files := s.debian(testenv.Package{Name: "hello", Version: "1"})
	s.direct("/debian/"+inRelease).is(t, "root", files[inRelease].Content)
	url := "http://a.mirror.example.org/debian/" + inRelease
	first := s.request(http.MethodGet, url, "live+signed:x@"+s.addr)
	date := first.header.Get("Last-Modified")
	if g := s.request(http.MethodGet, url, "live+signed:x@"+s.addr, "If-Modified-Since", date); g.status != http.StatusOK {
		t.Errorf("by proxy: %d", g.status)
	}
	if g := s.request(http.MethodGet, url, "live+signed:x@"+s.addr, "If-None-Match", first.header.Get("Etag")); g.status != http.StatusNotModified {
		t.Errorf("the ETag is one: %d", g.status)
	}
	direct := s.direct("/debian@live+signed/" + inRelease)
	if g := s.direct("/debian@live+signed/"+inRelease, "If-Modified-Since", direct.header.Get("Last-Modified")); g.status != http.StatusNotModified {
		t.Errorf("by URL: %d", g.status)
	}
}

func TestTheKeyIsForEverybody(t *testing.T) {
	s := newSite(t, func(o *Options) { signs(t, o) })
	g := s.direct("/-/key.asc", "Host", "mirror.somewhere.example.com")
	if g.status != http.StatusOK || !bytes.HasPrefix(g.body, []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----")) {
		t.Errorf("%d %s", g.status, g.body)
	}
	g.wantHeader(t, "key.asc", "Content-Type", "application/pgp-keys")
	s.direct("/-/key.gpg").is(t, "binary", []byte("binary"))

	broken := newSite(t, func(o *Options) {
		o.Key = func() ([]byte, []byte, error) { return nil, nil, errors.New("it is encrypted") }
		o.Signer = func() (chantal.Signer, error) { return nil, errors.New("it is encrypted") }
	})
	broken.direct("/-/key.asc").wantProblem(t, "no key", 500)
	_, files := broken.debian(testenv.Package{Name: "hello", Version: "1"})
	broken.direct("/debian/"+inRelease).is(t, "root", files[inRelease].Content)
	broken.direct("/debian@live+signed/"+inRelease).wantProblem(t, "no key for a root", 500)
}
