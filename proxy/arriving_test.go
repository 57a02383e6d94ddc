package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal"
	"chantal/internal/fetch"
	"chantal/internal/testenv"
)

// expected is what becomes of a request for a file that upstream has sent half.
type expected struct {
	method string
	fields []string
	status int
	body   []byte
	length int  // Content-Length; -1 for none
	early  bool // the head comes before the second half
}

// held sends requests while half a file is there, lets the rest come once all
// answers that need not wait have begun, and compares.
func held(t *testing.T, url string, all map[string]expected, release func()) {
	t.Helper()
	var begun, ended sync.WaitGroup
	for what, want := range all {
		if want.early {
			begun.Add(1)
		}
		ended.Go(func() {
			head := sync.OnceFunc(func() {
				if want.early {
					begun.Done()
				}
			})
			defer head()
			resp, err := ask(t.Context(), want.method, url, want.fields...)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			defer resp.Body.Close()
			head()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != want.status || want.body != nil && !bytes.Equal(body, want.body) {
				t.Errorf("%s: %d with %d bytes, %v; want %d with %d", what, resp.StatusCode, len(body), err, want.status, len(want.body))
			}
			if want.length != int(resp.ContentLength) && want.status < 400 {
				t.Errorf("%s: length %d, want %d", what, resp.ContentLength, want.length)
			}
			if at := resp.Header.Get("Content-Range"); want.status == 416 && !strings.HasPrefix(at, "bytes */") {
				t.Errorf("%s: Content-Range is %q", what, at)
			}
		})
	}
	wait := make(chan struct{})
	go func() { begun.Wait(); close(wait) }()
	select {
	case <-wait:
	case <-time.After(10 * time.Second):
		t.Error("an answer waits for the whole file, and should not")
	}
	release()
	ended.Wait()
}

func ask(ctx context.Context, method, url string, fields ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	return (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(req)
}

func TestAPromisedFileThatIsStillArriving(t *testing.T) {
	s := newSite(t, nil)
	p := testenv.Package{Name: "held", Version: "1", Size: 400_000}
	suite, files := s.debian(p)
	s.direct("/debian/" + inRelease)
	s.direct("/debian/" + packagesXZ)
	at := suite.PoolPath(p)
	want, tag := files[at].Content, etagOf(files[at].Content)
	date := files[at].Modified.UTC().Format(http.TimeFormat)
	n := len(want)
	s.up.Fail(testenv.Stall, "/debian/"+at, -1)
	held(t, "http://"+s.addr+"/debian/"+at, map[string]expected{
		"whole":                       {"GET", nil, 200, want, n, true},
		"HEAD":                        {"HEAD", nil, 200, nil, n, true},
		"HEAD of a part":              {"HEAD", []string{"Range", "bytes=5-9"}, 200, nil, n, true},
		"the same tag":                {"GET", []string{"If-None-Match", tag}, 304, nil, 0, true},
		"the same date":               {"GET", []string{"If-Modified-Since", date}, 304, nil, 0, true},
		"a wrong tag":                 {"GET", []string{"If-Match", `"x"`}, 412, nil, 0, true},
		"the rest":                    {"GET", []string{"Range", "bytes=1000-"}, 206, want[1000:], n - 1000, true},
		"the rest, by tag":            {"GET", []string{"Range", "bytes=1000-", "If-Range", tag}, 206, want[1000:], n - 1000, true},
		"the rest, by date":           {"GET", []string{"Range", "bytes=1000-", "If-Range", date}, 206, want[1000:], n - 1000, true},
		"the rest of another":         {"GET", []string{"Range", "bytes=1000-", "If-Range", `"x"`}, 200, want, n, true},
		"behind the end":              {"GET", []string{"Range", fmt.Sprintf("bytes=%d-", n)}, 416, nil, 0, true},
		"the middle":                  {"GET", []string{"Range", "bytes=1000-1999"}, 206, want[1000:2000], 1000, false},
		"the end":                     {"GET", []string{"Range", "bytes=-10240"}, 206, want[n-10240:], 10240, false},
		"parts":                       {"GET", []string{"Range", "bytes=0-9,20-29"}, 206, nil, 396, false},
		"parts that are one":          {"GET", []string{"Range", "bytes=0-99,50-149"}, 206, want[:150], 150, false},
		"the rest, and no other unit": {"GET", []string{"Range", "lines=1000-"}, 200, want, n, true},
	}, s.up.Release)
	if got := s.up.Count("/debian/" + at); got != 1 {
		t.Errorf("upstream got %d requests, want 1", got)
	}
}

// halves is an upstream of one file that sends its second half when told to.
func halves(content []byte, size int64) (source fetch.Source, release func()) {
	more := make(chan struct{})
	return fetch.SourceFunc(func(_ context.Context, r *fetch.Request) (*fetch.Response, error) {
		from, to := io.Pipe()
		go func() {
			half := len(content) / 2
			if _, err := to.Write(content[:half]); err == nil {
				<-more
				_, _ = to.Write(content[half:])
			}
			to.Close()
		}()
		return &fetch.Response{Status: http.StatusOK, Header: http.Header{}, Size: size, URL: r.URL, Body: from}, nil
	}), sync.OnceFunc(func() { close(more) })
}

func TestAFileOfUnknownDigestThatIsStillArriving(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 30_000)
	n := len(want)
	tag := etagOf(want)
	source, release := halves(want, int64(n))
	url, _ := serveSource(t, source)
	held(t, url+"f.bin", map[string]expected{
		"whole":            {"GET", nil, 200, want, n, true},
		"HEAD":             {"HEAD", nil, 200, nil, n, true},
		"the rest":         {"GET", []string{"Range", "bytes=1000-"}, 206, want[1000:], n - 1000, true},
		"the rest, by tag": {"GET", []string{"Range", "bytes=1000-", "If-Range", tag}, 206, want[1000:], n - 1000, false},
		"another's rest":   {"GET", []string{"Range", "bytes=1000-", "If-Range", `"x"`}, 200, want, n, false},
		"the same tag":     {"GET", []string{"If-None-Match", tag}, 304, nil, 0, false},
		"a wrong tag":      {"GET", []string{"If-Match", `"x"`}, 412, nil, 0, false},
		"the middle":       {"GET", []string{"Range", "bytes=1000-1999"}, 206, want[1000:2000], 1000, false},
	}, release)
}

func TestAFileOfUnknownLengthThatIsStillArriving(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcdef"), 30_000)
	n := len(want)
	source, release := halves(want, -1)
	url, _ := serveSource(t, source)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// To a client that knows no chunks the end of the connection is the end
		// of the file, so it gets a length.
		if g, err := oldest(url + "f.bin"); err != nil || g.ContentLength != int64(n) || !g.Close {
			t.Errorf("HTTP/1.0: %v, %+v", err, g)
		}
	}()
	held(t, url+"f.bin", map[string]expected{
		"whole":          {"GET", nil, 200, want, -1, true},
		"HEAD":           {"HEAD", nil, 200, nil, n, false},
		"the rest":       {"GET", []string{"Range", "bytes=1000-"}, 206, want[1000:], n - 1000, false},
		"the end":        {"GET", []string{"Range", "bytes=-16"}, 206, want[n-16:], 16, false},
		"behind the end": {"GET", []string{"Range", fmt.Sprintf("bytes=%d-", n)}, 416, nil, 0, false},
	}, release)
	<-done
}

// A part that begins where nothing can be read before the whole is verified must
// be able to become an error.
func TestAPartOfTheHeldBackEndDoesNotBeginEarly(t *testing.T) {
	const size = 400_000
	a := &answer{file: &chantal.File{Size: size}, etag: `"x"`}
	for spec, want := range map[string]bool{
		"bytes=0-": true,
		fmt.Sprintf("bytes=%d-", size-heldBack-1):      true,
		fmt.Sprintf("bytes=%d-", size-heldBack):        false,
		"bytes=-1":                                     false,
		fmt.Sprintf("bytes=%d-%d", 0, size-2):          false,
		fmt.Sprintf("bytes=%d-%d,%d-", 0, 9, size-100): false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Range", spec)
		if got := a.early(r, choose(r, a.validators(), size)); got != want {
			t.Errorf("%s: early is %v", spec, got)
		}
	}
}

// Without a length nothing but the cut tells the client that there is more.
func TestAFileOfUnknownLengthThatBreaksOffIsCut(t *testing.T) {
	begun := make(chan struct{})
	url, _ := serveSource(t, fetch.SourceFunc(func(_ context.Context, r *fetch.Request) (*fetch.Response, error) {
		from, to := io.Pipe()
		go func() {
			_, _ = to.Write(make([]byte, 200_000))
			<-begun
			to.CloseWithError(io.ErrUnexpectedEOF)
		}()
		return &fetch.Response{Status: http.StatusOK, Header: http.Header{}, Size: -1, URL: r.URL, Body: from}, nil
	}))
	resp, err := ask(t.Context(), "GET", url+"f.bin")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, err = io.CopyN(io.Discard, resp.Body, 64<<10)
	close(begun)
	if err != nil {
		t.Fatalf("%d: %v", resp.StatusCode, err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("the client takes %d bytes for the file", 64<<10+n)
	}
}

// oldest asks as HTTP/1.0 has it and reads the answer to its end.
func oldest(url string) (*http.Response, error) {
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	c, err := net.Dial("tcp", host)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET /%s HTTP/1.0\r\n\r\n", path); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	return resp, err
}
