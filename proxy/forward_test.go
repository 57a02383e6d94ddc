package proxy

import (
	"net/http"
	"testing"

	"chantal/internal/testenv"
)

func TestForwardRequestsRecogniseRepositories(t *testing.T) {
	s := newSite(t, nil)
	key, err := testenv.NewKey("archive", s.now().AddDate(0, 0, -2))
	if err != nil {
		t.Fatal(err)
	}
	hello := testenv.Package{Name: "hello", Version: "1"}
	suite := testenv.NewAPT(key, s.now(), "bookworm")
	debian := s.publish(suite, hello)
	packages := testenv.NewRPM(nil, s.now())
	if err := packages.Add(hello); err != nil {
		t.Fatal(err)
	}
	epel, err := packages.Publish()
	if err != nil {
		t.Fatal(err)
	}
	s.up.Publish("epel", epel)
	get := func(target string, header ...string) got { return s.request(http.MethodGet, target, s.addr, header...) }

	// The shape of a package is enough to be passed on, and no repository.
	at := suite.PoolPath(hello)
	g := get("http://a.mirror.example.org/debian/" + at)
	g.is(t, "a package of an unknown repository", debian[at].Content)
	g.wantHeader(t, "a package of an unknown repository", "Chantal-Ref", "")
	if n := len(s.mirror.Repos()); n != 0 {
		t.Errorf("%d repositories are known by the shape of a URL", n)
	}

	get("http://a.mirror.example.org/debian/"+inRelease).is(t, "apt root", debian[inRelease].Content)
	get("http://a.mirror.example.org/debian/"+packagesXZ).is(t, "apt index", debian[packagesXZ].Content)
	get("http://r.mirror.example.org/epel/repodata/repomd.xml").is(t, "rpm root", epel["repodata/repomd.xml"].Content)
	g = get("http://a.mirror.example.org/debian/" + at)
	g.is(t, "a package of a recognised repository", debian[at].Content)
	g.wantHeader(t, "a package of a recognised repository", "Chantal-Ref", "a.mirror.example.org-debian@live", "Chantal-Generation", "1")
	s.direct("/a.mirror.example.org-debian/"+at).is(t, "its mirror URL", debian[at].Content)
	if n := len(s.mirror.Repos()); n != 2 {
		t.Errorf("%d repositories are known", n)
	}
	get("http://a.mirror.example.org/debian/../x").wantProblem(t, "a way out", 403)
}

func TestWithoutDiscoveryNothingIsRecognised(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Discover = false })
	key, err := testenv.NewKey("archive", s.now().AddDate(0, 0, -2))
	if err != nil {
		t.Fatal(err)
	}
	s.publish(testenv.NewAPT(key, s.now(), "bookworm"))
	s.request(http.MethodGet, "http://a.mirror.example.org/debian/"+inRelease, s.addr).wantProblem(t, "an unknown repository", 403)
	if n := s.up.Count("/"); n != 0 {
		t.Errorf("upstream was asked %d times", n)
	}
}
