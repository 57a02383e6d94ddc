package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"chantal"
	"chantal/internal/testenv"
	"chantal/mirror"
	"chantal/snapshot"
)

// wantProblem fails the test unless an answer is an error that clients can
// work with.
func (g got) wantProblem(t *testing.T, what string, status int) {
	t.Helper()
	if g.status != status {
		t.Errorf("%s: got %d %.300s, want %d", what, g.status, g.body, status)
		return
	}
	if len(g.body) == 0 || g.length != int64(len(g.body)) {
		t.Errorf("%s: a body of %d bytes with Content-Length %d", what, len(g.body), g.length)
	}
	retry := ""
	if status == 502 || status == 503 || status == 504 {
		retry = "2"
	}
	g.wantHeader(t, what, "Retry-After", retry, "Cache-Control", "no-store", "Etag", "", "Last-Modified", "")
	if kind := g.header.Get("Content-Type"); kind == "text/plain; charset=utf-8" {
		if strings.Count(string(g.body), "\n") != 1 || !strings.HasPrefix(string(g.body), fmt.Sprint(status, " ")) {
			t.Errorf("%s: not one line that begins with the status: %q", what, g.body)
		}
	} else if kind != "application/problem+json" {
		t.Errorf("%s: it is %s", what, kind)
	}
}

func TestEveryErrorHasItsStatus(t *testing.T) {
	s := newSite(t, nil)
	up := func(status int, err error) error {
		return fmt.Errorf("opening: %w", &chantal.UpstreamError{URL: "http://mirror.example.org/", Status: status, Err: err})
	}
	for name, test := range map[string]struct {
		err    error
		status int
	}{
		"own":              {&statusError{http.StatusTeapot, "short and stout"}, 418},
		"auth":             {&authError{"who?"}, 407},
		"misdirected":      {&MisdirectedError{}, 421},
		"bad ref":          {&snapshot.BadRefError{Ref: "x", Why: "y"}, 404},
		"unsupported":      {&snapshot.UnsupportedError{Ref: "x", Part: "y"}, 501},
		"unknown ref":      {&snapshot.UnknownError{Ref: "x", Why: "y"}, 404},
		"no instant":       {&mirror.NoInstantError{Repo: "r", Tree: "t", First: time.Now()}, 404},
		"never":            {&mirror.NoInstantError{Repo: "r", Tree: "t"}, 404},
		"refused":          {&chantal.RefusedError{What: "x", Why: "y"}, 403},
		"refused upstream": {up(0, &chantal.RefusedError{What: "x", Why: "y"}), 403},
		"offline":          {up(0, chantal.ErrOffline), 504},
		"mismatch":         {fmt.Errorf("x: %w", &chantal.MismatchError{Path: "p"}), 502},
		"garbage":          {up(200, errors.New("no Release")), 502},
		"upstream 500":     {up(500, nil), 503},
		"upstream 429":     {up(429, nil), 503},
		"upstream 401":     {up(401, nil), 502},
		"upstream down":    {up(0, errors.New("refused")), 503},
		"missing":          {fmt.Errorf("x: %w", fs.ErrNotExist), 404},
		"cancelled":        {context.Canceled, 503},
		"late":             {context.DeadlineExceeded, 503},
		"bug":              {errors.New("a bug"), 500},
	} {
		for _, accept := range []string{"", "application/json", "application/vnd.pypi.simple.v1+json"} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Etag", `"left over"`)
				w.Header().Set("Content-Length", "1")
				s.handler.Fail(w, r, test.err)
			}))
			g := s.request(http.MethodGet, server.URL, "", "Accept", accept)
			g.wantProblem(t, name+" "+accept, test.status)
			var p problem
			if accept != "" && (json.Unmarshal(g.body, &p) != nil || p.Status != test.status || p.Title == "" || p.Detail == "" || p.ID == "") {
				t.Errorf("%s: got %s", name, g.body)
			}
			head := s.request(http.MethodHead, server.URL, "", "Accept", accept)
			if head.status != test.status || len(head.body) != 0 || head.length <= 0 {
				t.Errorf("%s: HEAD gives %d, length %d", name, head.status, head.length)
			}
			server.Close()
		}
	}
}

func TestErrorsOfRequests(t *testing.T) {
	s := newSite(t, nil)
	hello, wrong, gone := testenv.Package{Name: "hello", Version: "1"}, testenv.Package{Name: "wrong", Version: "1"}, testenv.Package{Name: "gone", Version: "1"}
	suite, files := s.debian(hello, wrong, gone)
	s.direct("/debian/"+inRelease).is(t, "root", files[inRelease].Content)
	s.direct("/debian/"+packagesXZ).is(t, "index", files[packagesXZ].Content)
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "prod"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	s.add("later", "apt", "http://c.mirror.example.org/later/")
	s.add("index", "pypi", "http://c.mirror.example.org/simple/")
	for _, base := range []string{"/debian/", "/b/debian/"} {
		s.up.Fail(testenv.Corrupt, base+suite.PoolPath(wrong), -1)
		s.up.Fail(testenv.NotFound, base+suite.PoolPath(gone), -1)
		s.up.Fail(testenv.Unavailable, base+suite.PoolPath(hello), -1)
		s.up.Fail(testenv.Portal, base+"dists/portal/", -1)
	}
	future := snapshot.DefaultName(s.now().Add(time.Hour))
	for path, status := range map[string]int{
		"/nope/x":                           404,
		"/debian@nope/" + inRelease:         404,
		"/debian@/" + inRelease:             404,
		"/debian@" + future + "/x":          404,
		"/debian@2001-01-01/" + inRelease:   404,
		"/debian@prod/never/seen":           404,
		"/later@prod/x":                     404,
		"/debian/" + suite.PoolPath(gone):   404,
		"/debian/no/such/file":              404,
		"/debian/" + suite.PoolPath(wrong):  502,
		"/debian/" + suite.PoolPath(hello):  503,
		"/debian/dists/portal/InRelease":    502,
		"/index@prod+signed/simple/six/":    501,
		"/debian@nope+signed/" + inRelease:  404,
		"/debian@live~build-1/" + inRelease: 501,
		"/debian~build-1/" + inRelease:      501,
		"/-/ui/":                            501,
		"/-/nope":                           404,
		"/-/api/v2/x":                       404,
		"/-/ca.pem":                         404,
		"/debian/a%2Fb":                     400,
		"/debian/../x":                      403,
		"/debian/%2e%2e/x":                  403,
		"/debian/a%00b":                     403,
		"/debian/dists/%2E%2E/%2e%2e/x":     403,
	} {
		raw(s, "GET", path, "").wantProblem(t, path, status)
		g := raw(s, "GET", path, "Accept: application/json\r\n")
		if kind := g.header.Get("Content-Type"); g.status != status || kind != "application/problem+json" {
			t.Errorf("%s: with JSON accepted %d, %s", path, g.status, kind)
		}
	}
	s.request(http.MethodPost, "http://"+s.addr+"/debian/x", "").wantProblem(t, "POST", 405)
	s.direct("/-/metrics", "Host", "evil.example.com").wantProblem(t, "another Host", 403)
	s.direct("/debian/x", "Via", "1.1 other, 1.1 chantal-test").wantProblem(t, "a loop", 508)
	body := string(s.direct("/debian@2001-01-01/" + inRelease).body)
	instant := snapshot.DefaultName(s.now())[:8]
	if !strings.Contains(body, "first observed") || !strings.Contains(body, instant) {
		t.Errorf("before the first observation: %q does not say which instants exist", body)
	}
	if body := string(s.direct("/later@prod/x").body); !strings.Contains(body, "debian") {
		t.Errorf("a repository that the snapshot lacks: %q does not name those it has", body)
	}
}

// raw sends a path as it is, which net/http's client would not.
func raw(s *site, method, path, header string) got {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", method, path, s.addr, header)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close()
	g := got{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength}
	g.body, g.err = io.ReadAll(resp.Body)
	return g
}

func TestErrorsOfForwardRequests(t *testing.T) {
	s := newSite(t, nil)
	_, files := s.debian(testenv.Package{Name: "hello", Version: "1"})
	s.direct("/debian/"+inRelease).is(t, "root", files[inRelease].Content)
	if _, err := s.names.Create(t.Context(), snapshot.Request{Name: "prod"}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	const known = "http://a.mirror.example.org/debian/"
	for _, test := range []struct {
		what, url, user string
		status          int
	}{
		{"no repository", "http://www.example.org/index.html", "", 403},
		{"a private address", "http://10.0.0.1/debian/dists/bookworm/InRelease", "", 403},
		{"this machine", "http://127.0.0.1:9/debian/dists/bookworm/InRelease", "", 403},
		{"a portal", "http://www.example.org/portal/debian/dists/bookworm/InRelease", "", 502},
		{"an unknown ref", known + inRelease, "nope", 404},
		{"an unknown signed ref", known + inRelease, "nope+signed", 404},
		{"a recording", known + inRelease, "live~b", 501},
		{"another host under a ref", "http://www.example.org/index.html", "prod", 404},
		{"an unknown repository under a ref", "http://new.example.org/debian/dists/bookworm/InRelease", "prod", 404},
		{"the past before everything", known + inRelease, "2001-01-01", 404},
		{"an https form without a host", "http://HTTPS///", "", 400},
	} {
		proxy := s.addr
		if test.user != "" {
			proxy = test.user + ":x@" + s.addr
		}
		s.request(http.MethodGet, test.url, proxy).wantProblem(t, test.what, test.status)
	}
	if n := s.up.Count("/debian/dists/"); n == 0 {
		t.Error("the upstream was never asked")
	}
	for user, status := range map[string]int{"prod": 403, "nope": 404, "live": 403, "live+signed": 403} {
		auth := "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":x")) + "\r\n"
		g := raw(s, "CONNECT", "other.example.org:443", auth)
		g.wantProblem(t, "CONNECT under "+user, status)
		if (user == "prod" || user == "live+signed") && !bytes.Contains(g.body, []byte("under ref "+user)) {
			t.Errorf("CONNECT under a ref: %q does not say that the ref is why", g.body)
		}
	}
}

func TestClientsThatMayNotUseTheServer(t *testing.T) {
	s := newSite(t, func(o *Options) { o.Clients = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	g := s.direct("/-/healthz")
	g.wantProblem(t, "a stranger", 403)
	if !strings.Contains(string(g.body), "127.0.0.1") || !strings.Contains(string(g.body), "clients:") {
		t.Errorf("%q does not say who was refused and what to do", g.body)
	}
}

func TestAnonymousRequestsAreRefusedWhereARefIsRequired(t *testing.T) {
	s := newSite(t, func(o *Options) { o.RequireRef = true })
	_, files := s.debian(testenv.Package{Name: "hello", Version: "1"})
	const upstream = "http://a.mirror.example.org/debian/" + inRelease
	g := s.request(http.MethodGet, upstream, s.addr)
	g.wantProblem(t, "anonymous", 407)
	g.wantHeader(t, "anonymous", "Proxy-Authenticate", `Basic realm="chantal ref"`)
	s.request(http.MethodGet, upstream, ":x@"+s.addr).wantProblem(t, "an empty user", 407)
	raw(s, "CONNECT", "other.example.org:443", "").wantProblem(t, "CONNECT", 407)
	s.request(http.MethodGet, upstream, "live:x@"+s.addr).is(t, "live by name", files[inRelease].Content)
	s.direct("/debian/"+inRelease).is(t, "a mirror URL", files[inRelease].Content)
	s.request(http.MethodGet, upstream, s.listen("live")).is(t, "a listener with a ref", files[inRelease].Content)
}
