package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// received is what an origin gets of a request.
type received struct {
	line   string // method and target
	header http.Header
	body   string
}

// recorder is an origin that answers with the fields given and keeps what it
// gets.
type recorder struct {
	mu     sync.Mutex
	fields []string // "Name: value"
	body   string   // "answer" if empty
	got    []received
}

func (o *recorder) says(body string, fields ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.body, o.fields = body, fields
}

func (o *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		body = []byte("broken: " + err.Error())
	}
	o.got = append(o.got, received{r.Method + " " + r.RequestURI, r.Header, string(body)})
	for _, f := range o.fields {
		name, value, _ := strings.Cut(f, ": ")
		w.Header().Add(name, value)
	}
	if o.body == "" {
		o.body = "answer"
	}
	io.WriteString(w, o.body)
}

// take returns what came since the last call.
func (o *recorder) take() []received {
	o.mu.Lock()
	defer o.mu.Unlock()
	got := o.got
	o.got = nil
	return got
}

// passesAll is a site that passes everything, with an origin that records.
func passesAll(t *testing.T, fields ...string) (*site, *recorder) {
	t.Helper()
	s, o := newSite(t, func(o *Options) { o.PassOther = true }), &recorder{fields: fields}
	s.serveOrigin(o.ServeHTTP)
	return s, o
}

// send writes a request as it is on a connection of its own and reads the
// answer. fields end in CRLF each.
func (s *site) send(t *testing.T, line, fields, body string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: o.example.org\r\n%s\r\n%s", line, fields, body)
	method, _, _ := strings.Cut(line, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return resp, string(content)
}

// keptURL waits until what a forward request got is in the HTTP cache. For a
// moment longer those who ask again join the first.
func (s *site) keptURL(t *testing.T, target string) {
	t.Helper()
	s.kept(t, func(name, value string) int {
		resp, _ := s.send(t, "GET "+target, name+": "+value+"\r\n", "")
		return resp.StatusCode
	})
}

// The three ways on which a request without a repository goes upstream.
var ways = map[string]struct{ method, field string }{
	"cached":   {"GET", ""},
	"bypassed": {"GET", "Cookie: a=b\r\n"},
	"passed":   {"POST", "Content-Length: 0\r\n"},
}

func TestFieldsOfOneConnectionGoNoFurther(t *testing.T) {
	s, o := passesAll(t, "Connection: X-Back", "X-Back: 1", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic",
		"Proxy-Connection: keep-alive", "Via: 1.0 other", "X-End: 1", "Upgrade: h2c")
	const fields = "Connection: X-Hop, keep-alive, Upgrade\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n" +
		"TE: deflate\r\nTrailer: X-T\r\nUpgrade: websocket\r\nProxy-Authorization: Basic bGl2ZTp4\r\nVia: 1.1 first (a, comment)\r\n"
	for way, request := range ways {
		resp, body := s.send(t, request.method+" http://o.example.org/"+way, fields+request.field, "")
		if resp.StatusCode != http.StatusOK || body != "answer" {
			t.Fatalf("%s: %d %q", way, resp.StatusCode, body)
		}
		got := o.take()
		if len(got) != 1 {
			t.Fatalf("%s: upstream got %v", way, got)
		}
		for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Proxy-Authorization", "Connection"} {
			if v := got[0].header[name]; v != nil {
				t.Errorf("%s: upstream got %s %q", way, name, v)
			}
		}
		for _, name := range []string{"X-Back", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Upgrade", "Connection"} {
			if v := resp.Header[name]; v != nil {
				t.Errorf("%s: the client got %s %q", way, name, v)
			}
		}
		if up, down := got[0].header.Get("Via"), resp.Header.Get("Via"); up != "1.1 first (a, comment), 1.1 chantal-test" || down != "1.0 other, 1.1 chantal-test" || resp.Header.Get("X-End") != "1" {
			t.Errorf("%s: Via is %q upstream and %q to the client, whose header is %v", way, up, down, resp.Header)
		}
	}
}

func TestWhatNoKeyHoldsIsNotSentUpstream(t *testing.T) {
	s, o := passesAll(t, "Cache-Control: max-age=60")
	s.send(t, "GET http://o.example.org/f", "X-Forwarded-Host: evil.example.com\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: host=evil\r\nUser-Agent: odd\r\nRange: bytes=1-2\r\nIf-None-Match: \"x\"\r\nReferer: http://a/\r\nAccept: */*\r\n", "")
	for name := range o.take()[0].header {
		switch name {
		case "User-Agent", "Accept", "Accept-Encoding", "Via":
		default:
			t.Errorf("upstream got %s", name)
		}
	}
}

func TestPathAndQueryAreAskedForByteForByte(t *testing.T) {
	s, o := passesAll(t, "Cache-Control: no-store")
	for _, target := range []string{"/a%2fb", "/a%2Fb|{c}?x=%zz&&;y=+", "/%C3%A4%c3%a4", "//a//./b", "/?", "/", "/a?b?c", "/a%20b'()*", "/a:b@c"} {
		for way, request := range ways {
			s.send(t, request.method+" http://O.Example.Org:80"+target, request.field, "")
			if got := o.take(); len(got) != 1 || got[0].line != request.method+" "+target {
				t.Errorf("%s, %s: upstream got %v", target, way, got)
			}
		}
	}
	s.send(t, "GET http://o.example.org?q", "", "")
	s.send(t, "GET http://HTTPS///o.example.org/a%2fb|?c", "", "")
	got := o.take()
	if len(got) != 2 || got[0].line != "GET /?q" || got[1].line != "GET /a%2fb|?c" {
		t.Errorf("upstream got %v", got)
	}
}

func TestContentIsFramedAnew(t *testing.T) {
	s, o := passesAll(t)
	resp, _ := s.send(t, "POST http://o.example.org/f", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "5;a=\"b;c\"\r\nhello\r\n1;"+strings.Repeat("x", 1000)+"\r\n!\r\n0\r\nX-T: 1\r\n\r\n"+evil)
	got := o.take()
	if len(got) != 1 || got[0].body != "hello!" || got[0].header.Get("Content-Length") != "" || !resp.Close {
		t.Errorf("upstream got %v, the connection is closed: %v", got, resp.Close)
	}
	for name, chunks := range map[string]string{
		"no number":    "zz\r\nhello\r\n0\r\n\r\n",
		"a sign":       "+5\r\nhello\r\n0\r\n\r\n",
		"a prefix":     "0x5\r\nhello\r\n0\r\n\r\n",
		"too much":     "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
		"too long":     "5\r\nhello!!\r\n0\r\n\r\n",
		"bare LF":      "5\rhello\r\n0\r\n\r\n",
		"an extension": "5;" + strings.Repeat("x", 64<<10) + "\r\nhello\r\n0\r\n\r\n",
	} {
		raw := "POST http://o.example.org/f HTTP/1.1\r\nHost: o.example.org\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + evil
		if answers := s.wire(t, raw); len(answers) != 1 || answers[0] < 400 {
			t.Errorf("%s: answers %v", name, answers)
		}
		for _, r := range o.take() {
			if r.line != "POST /f" || !strings.HasPrefix(r.body, "broken") {
				t.Errorf("%s: upstream got %v", name, r)
			}
		}
	}
}

func TestHowOftenARequestIsForwarded(t *testing.T) {
	s, o := passesAll(t)
	for _, method := range []string{"OPTIONS", "TRACE"} {
		s.send(t, method+" http://o.example.org/f", "Max-Forwards: 3\r\n", "")
		s.send(t, method+" http://o.example.org/f", "", "")
		got := o.take()
		if len(got) != 2 || got[0].header.Get("Max-Forwards") != "2" || got[1].header.Get("Max-Forwards") != "" {
			t.Errorf("%s: upstream got %v", method, got)
		}
		if resp, _ := s.send(t, method+" http://o.example.org/f", "Max-Forwards: soon\r\n", ""); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s with nonsense: %d", method, resp.StatusCode)
		}
	}
	resp, _ := s.send(t, "OPTIONS http://o.example.org/f", "Max-Forwards: 0\r\n", "")
	if resp.StatusCode != http.StatusNoContent || resp.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("OPTIONS: %d %v", resp.StatusCode, resp.Header)
	}
	resp, body := s.send(t, "TRACE http://o.example.org/f", "Max-Forwards: 0\r\nX-A: b\r\nCookie: secret\r\nAuthorization: secret\r\nProxy-Authorization: Basic bGl2ZTpz\r\n", "")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "message/http" ||
		body != "TRACE http://o.example.org/f HTTP/1.1\r\nHost: o.example.org\r\nMax-Forwards: 0\r\nX-A: b\r\n\r\n" {
		t.Errorf("TRACE: %d %v %q", resp.StatusCode, resp.Header, body)
	}
	if got := o.take(); len(got) != 0 {
		t.Errorf("upstream got %v", got)
	}
}

func TestRequestsThatComeBack(t *testing.T) {
	s, _ := passesAll(t)
	own, err := url.Parse("http://" + s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.egress.AllowHosts(s.addr)
	s.add("self", "generic", "http://"+s.addr+"/self/")
	s.direct("/self/f").wantProblem(t, "a repository that is its own upstream", 508)
	s.mu.Lock()
	s.origin = own
	s.mu.Unlock()
	for way, request := range ways {
		resp, _ := s.send(t, request.method+" http://o.example.org/"+way, request.field, "")
		if resp.StatusCode != http.StatusLoopDetected {
			t.Errorf("a host that leads here, %s: %d", way, resp.StatusCode)
		}
	}
	for via, status := range map[string]int{
		"1.1 chantal-test": 508, "1.0 a, 1.1 chantal-test (x)": 508, "HTTP/1.1   chantal-test": 508,
		"1.1 chantal-test-2": 404, "1.1 a (chantal-test)": 404, "chantal-test": 404, "1.1 other": 404,
	} {
		if g := s.direct("/nope/x", "Via", via); g.status != status {
			t.Errorf("Via: %s: %d, want %d", via, g.status, status)
		}
	}
}

func TestWhatBelongsToNoRepository(t *testing.T) {
	s, o := passesAll(t, "Cache-Control: max-age=60", `Etag: "1"`, "Last-Modified: Mon, 02 Jan 2006 15:04:05 GMT")
	get := func(what, state string, asked int, fields string) *http.Response {
		t.Helper()
		resp, body := s.send(t, "GET http://o.example.org/f", fields, "")
		if got := o.take(); resp.StatusCode != http.StatusOK || body != "answer" || resp.Header.Get("Cache-Status") != state || len(got) != asked {
			t.Errorf("%s: %d %q, %v; upstream got %v", what, resp.StatusCode, body, resp.Header, got)
		}
		if state == fresh {
			s.keptURL(t, "http://o.example.org/f")
		}
		return resp
	}
	get("first", fresh, 1, "")
	resp := get("again", hit, 0, "")
	want := map[string]string{"Etag": `"1"`, "Age": resp.Header.Get("Age"), "Cache-Control": "max-age=60", "Accept-Ranges": "bytes", "Content-Length": "6", "Via": "1.1 chantal-test"}
	for name, value := range want {
		if resp.Header.Get(name) != value || value == "" {
			t.Errorf("%s is %q, want %q", name, resp.Header.Get(name), value)
		}
	}
	get("a cookie", "chantal; fwd=bypass", 1, "Cookie: a=b\r\n")
	if resp, body := s.send(t, "GET http://o.example.org/f", "Range: bytes=2-3\r\n", ""); resp.StatusCode != http.StatusPartialContent || body != "sw" {
		t.Errorf("a range: %d %q", resp.StatusCode, body)
	}
	if resp, _ := s.send(t, "GET http://o.example.org/f", "If-None-Match: \"1\"\r\n", ""); resp.StatusCode != http.StatusNotModified {
		t.Errorf("a condition: %d", resp.StatusCode)
	}
	if resp, _ := s.send(t, "HEAD http://o.example.org/f", "", ""); resp.StatusCode != http.StatusOK || resp.ContentLength != 6 {
		t.Errorf("HEAD: %d, %d bytes", resp.StatusCode, resp.ContentLength)
	}
	if resp, _ := s.send(t, "GET http://o.example.org/g", "Cache-Control: only-if-cached\r\n", ""); resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("only-if-cached: %d", resp.StatusCode)
	}
	if got := o.take(); len(got) != 0 {
		t.Errorf("upstream got %v", got)
	}
	resp, body := s.send(t, "PUT http://o.example.org/f", "Content-Length: 4\r\n", "new!")
	if got := o.take(); resp.StatusCode != http.StatusOK || body != "answer" || len(got) != 1 || got[0].body != "new!" || resp.Header.Get("Cache-Status") != "chantal; fwd=method" {
		t.Errorf("PUT: %d %v; upstream got %v", resp.StatusCode, resp.Header, got)
	}
	get("after a PUT", fresh, 1, "")

	s.handler.PassOther = false
	for _, method := range []string{"GET", "PUT", "OPTIONS"} {
		if resp, _ := s.send(t, method+" http://o.example.org/f", "", ""); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s, forward.other: deny: %d", method, resp.StatusCode)
		}
	}
	if got := o.take(); len(got) != 0 {
		t.Errorf("upstream got %v", got)
	}
}

func TestOfflineNothingIsAskedFor(t *testing.T) {
	s, o := passesAll(t, "Cache-Control: max-age=60", `Etag: "1"`)
	s.send(t, "GET http://o.example.org/f", "", "")
	s.keptURL(t, "http://o.example.org/f")
	s.add("files", "generic", "http://o.example.org/pub/")
	s.direct("/files/a").is(t, "a file", []byte("answer"))
	for s.direct("/files/a").header.Get("Chantal-Generation") == "" {
		time.Sleep(5 * time.Millisecond) // until it has been observed
	}
	o.take()
	s.goOffline()
	for _, state := range []string{hit, "chantal; fwd=stale; detail=upstream"} {
		resp, body := s.send(t, "GET http://o.example.org/f", "", "")
		for resp.Header.Get("Cache-Status") == fresh {
			resp, body = s.send(t, "GET http://o.example.org/f", "", "")
		}
		if body != "answer" || resp.Header.Get("Cache-Status") != state {
			t.Errorf("what is kept: %d %q %v; want %s", resp.StatusCode, body, resp.Header, state)
		}
		s.advance(time.Hour)
	}
	s.direct("/files/a").is(t, "a file of a repository", []byte("answer"))
	s.direct("/files/b").wantProblem(t, "a file that is not kept", 504)
	for line, fields := range map[string]string{
		"GET http://o.example.org/g": "", "HEAD http://o.example.org/g": "", "GET http://o.example.org/f": "Cookie: a=b\r\n",
		"POST http://o.example.org/f": "Content-Length: 0\r\n", "CONNECT o.example.org:443": "",
	} {
		if resp, _ := s.send(t, line, fields, ""); resp.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("%s: %d, want 504", line, resp.StatusCode)
		}
	}
	if got := o.take(); len(got) != 0 {
		t.Errorf("upstream got %v", got)
	}
}

func TestAWebPageIsNoPackage(t *testing.T) {
	s, o := passesAll(t)
	s.handler.PassOther = false
	const deb = "http://o.example.org/debian/pool/main/h/hello/hello_1_amd64.deb"
	portal := func() {
		o.says("<!DOCTYPE html>", "Content-Type: text/html; charset=utf-8", "Cache-Control: max-age=600")
	}
	portal()
	s.request(http.MethodGet, deb, s.addr).wantProblem(t, "a portal", 502)
	o.says("package", "Cache-Control: max-age=600")
	s.request(http.MethodGet, deb, s.addr).is(t, "the package", []byte("package"))
	s.keptURL(t, deb)
	s.advance(time.Hour)
	portal()
	g := s.request(http.MethodGet, deb, s.addr)
	for g.header.Get("Cache-Status") == fresh {
		g = s.request(http.MethodGet, deb, s.addr)
	}
	g.is(t, "a portal later", []byte("package"))
	g.wantHeader(t, "a portal later", "Cache-Status", "chantal; fwd=stale; detail=upstream")
}

// Inside an intercepted connection a host is what it is without a proxy, also
// for what belongs to no repository.
func TestUnknownContentInsideAnInterceptedConnection(t *testing.T) {
	s, ca := interceptingSite(t, "o.example.org", func(o *Options) { o.PassOther = true })
	o := &recorder{fields: []string{"Cache-Control: max-age=60", "Connection: X-Back", "X-Back: 1"}}
	s.serveOrigin(o.ServeHTTP)
	s.add("files", "generic", "https://o.example.org/pub/")
	client := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: s.addr}), TLSClientConfig: &tls.Config{RootCAs: ca.testPool()},
	}}
	defer client.CloseIdleConnections()
	do := func(method, path, state string, want ...string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://o.example.org"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != "answer" || !strings.HasPrefix(resp.Header.Get("Cache-Status"), state) || resp.Header.Get("Via") != "1.1 chantal-test" || resp.Header.Get("X-Back") != "" {
			t.Errorf("%s %s: %s %q %v, %v", method, path, resp.Status, body, resp.Header, err)
		}
		var lines []string
		for _, r := range o.take() {
			lines = append(lines, r.line)
		}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Errorf("%s %s: upstream (-want +got):\n%s", method, path, diff)
		}
	}
	do("GET", "/api/x%2fy?z", fresh, "GET /api/x%2fy?z")
	s.keptURL(t, "http://HTTPS///o.example.org/api/x%2fy?z")
	do("GET", "/api/x%2fy?z", hit)
	do("POST", "/api/x%2fy?z", "chantal; fwd=method", "POST /api/x%2fy?z")
	do("GET", "/api/x%2fy?z", fresh, "GET /api/x%2fy?z")
	do("GET", "/-/healthz", fresh, "GET /-/healthz")
	do("GET", "/pub/f", fresh, "GET /pub/f")
}
