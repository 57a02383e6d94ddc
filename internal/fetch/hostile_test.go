package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"chantal"
)

func testContext(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// rawServer answers every connection with f, which gets it when the client has
// sent something, and returns an http URL. Connections end with f.
func rawServer(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				if _, err := conn.Read(make([]byte, 4096)); err == nil {
					f(conn)
				}
			}()
		}
	}()
	t.Cleanup(func() { cancel(); l.Close(); <-done })
	return "http://" + l.Addr().String()
}

// again writes text, a piece of it now and then, until nobody takes it.
func again(conn net.Conn, text string, every time.Duration) {
	for {
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
		time.Sleep(every)
	}
}

func TestHostileAnswersEndSoonAndHonestly(t *testing.T) {
	const (
		ok      = "HTTP/1.1 200 OK\r\n"
		timeout = 400 * time.Millisecond
	)
	say := func(text string) func(net.Conn) { return func(conn net.Conn) { io.WriteString(conn, text) } }
	for name, tc := range map[string]struct {
		answer func(net.Conn)
		body   string // what may be read; the end has to be an error all the same
		good   bool   // unless this is set
	}{
		"a header a byte at a time": {answer: func(conn net.Conn) { io.WriteString(conn, ok); again(conn, "X", 20*time.Millisecond) }},
		"a header without end":      {answer: func(conn net.Conn) { io.WriteString(conn, ok); again(conn, "X-More: of the same\r\n", 0) }},
		"a field without end":       {answer: func(conn net.Conn) { io.WriteString(conn, ok+"X-More: "); again(conn, strings.Repeat("x", 4096), 0) }},
		"a status line without end": {answer: func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 200 "); again(conn, strings.Repeat("x", 4096), 0) }},
		"100 Continue without end":  {answer: func(conn net.Conn) { again(conn, "HTTP/1.1 100 Continue\r\n\r\n", 0) }},
		"103 now and then": {answer: func(conn net.Conn) {
			again(conn, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 30*time.Millisecond)
		}},
		"no answer":                {answer: say("")},
		"half a header":            {answer: say(ok + "Content-Le")},
		"not HTTP":                 {answer: say("220 mirror.example.org FTP server ready\r\n")},
		"TLS where HTTP was asked": {answer: say("\x15\x03\x01\x00\x02\x02\x46")},
		"switching protocols":      {answer: say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")},

		"a negative length":          {answer: say(ok + "Content-Length: -5\r\n\r\nhello")},
		"a length that is no number": {answer: say(ok + "Content-Length: 0x5\r\n\r\nhello")},
		"a length with a sign":       {answer: say(ok + "Content-Length: +5\r\n\r\nhello")},
		"two lengths":                {answer: say(ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello")},
		"a list of lengths":          {answer: say(ok + "Content-Length: 5, 6\r\n\r\nhello")},
		"a length beyond all disks":  {answer: say(ok + "Content-Length: 99999999999999999999\r\n\r\nhello")},
		"a length twice the same":    {answer: say(ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), body: "hello", good: true},
		"a length too long":          {answer: say(ok + "Content-Length: 50\r\n\r\nhello"), body: "hello"},
		"a length too short":         {answer: say(ok + "Content-Length: 2\r\n\r\nhello"), body: "he", good: true},
		"length and chunks":          {answer: say(ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), body: "hello", good: true},
		"an unknown transfer coding": {answer: say(ok + "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")},
		"a chunk of negative size":   {answer: say(ok + "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n")},
		"chunks that do not end":     {answer: say(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), body: "hello"},
		"chunk extensions only": {answer: func(conn net.Conn) {
			io.WriteString(conn, ok+"Transfer-Encoding: chunked\r\n\r\n5;")
			again(conn, "x", 0)
		}},
		"a trailer without end": {
			answer: func(conn net.Conn) {
				io.WriteString(conn, ok+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n")
				again(conn, "X: y\r\n", 0)
			},
			body: "hello",
		},
		"a body a byte at a time": {
			answer: func(conn net.Conn) {
				io.WriteString(conn, ok+"Content-Length: 100000\r\n\r\n")
				again(conn, "x", 10*time.Millisecond)
			},
			body: "x…",
		},
		"a body that stops": {
			answer: func(conn net.Conn) {
				io.WriteString(conn, ok+"Content-Length: 9\r\n\r\nhello")
				io.Copy(io.Discard, conn)
			},
			body: "hello",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := rawServer(t, tc.answer) + "/x"
			started := time.Now()
			ctx, cancel := testContext(t, 20*timeout)
			defer cancel()
			c := newClient(t, Options{Timeout: timeout})
			_, body, err := get(t, SourceFunc(func(_ context.Context, r *Request) (*Response, error) { return c.Fetch(ctx, r) }), &Request{URL: target})
			if took := time.Since(started); took > 10*timeout {
				t.Errorf("took %s", took)
			}
			var ue *chantal.UpstreamError
			switch {
			case tc.good != (err == nil), err != nil && (!errors.As(err, &ue) || ue.URL != target):
				t.Errorf("error %v, want none: %v, else an UpstreamError", err, tc.good)
			case tc.body == "x…":
				if strings.Trim(body, "x") != "" || len(body) > 1000 {
					t.Errorf("read %d bytes", len(body))
				}
			case body != tc.body:
				t.Errorf("read %q, want %q", body, tc.body)
			}
			if err != nil && len(err.Error()) > 500 {
				t.Errorf("the error has %d characters", len(err.Error()))
			}
		})
	}
}

func TestALeftoverIsNotTheNextAnswer(t *testing.T) {
	url := rawServer(t, func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		io.Copy(io.Discard, conn)
	})
	c := newClient(t, Options{})
	for range 5 {
		if _, body, err := get(t, c, &Request{URL: url}); err != nil || body != "good" {
			t.Errorf("%q, %v; want the answer to this request", body, err)
		}
	}
}

func TestASlowButSteadyBodyIsReadToItsEnd(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 50 {
			fmt.Fprint(w, strings.Repeat("x", 100))
			w.(http.Flusher).Flush()
			time.Sleep(25 * time.Millisecond) // 4 kB/s, and longer than the timeout in all
		}
	})
	if _, body, err := get(t, newClient(t, Options{Timeout: time.Second}), &Request{URL: srv.URL}); err != nil || len(body) != 5000 {
		t.Errorf("read %d bytes, %v", len(body), err)
	}
}

func TestARequestMayBeBoundedAsAWhole(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/circle":
			time.Sleep(50 * time.Millisecond)
			http.Redirect(w, r, r.URL.Path+"?"+r.URL.RawQuery+"x", http.StatusFound)
		case "/late":
			<-r.Context().Done()
		default:
			for r.Context().Err() == nil {
				fmt.Fprint(w, strings.Repeat("x", 1000))
				w.(http.Flusher).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
	c := newClient(t, Options{Timeout: 20 * time.Second})
	for _, path := range []string{"/circle", "/late", "/drip"} {
		started := time.Now()
		_, _, err := get(t, c, &Request{URL: srv.URL + path, Within: 200 * time.Millisecond})
		var ue *chantal.UpstreamError
		if took := time.Since(started); !errors.As(err, &ue) || !strings.Contains(err.Error(), "longer than 200ms") || took > 5*time.Second {
			t.Errorf("%s: %v after %s; want an UpstreamError that names the bound", path, err, took)
		}
	}
	hasty := newClient(t, Options{Timeout: 200 * time.Millisecond})
	if _, _, err := get(t, hasty, &Request{URL: srv.URL + "/late", Within: 5 * time.Second}); err == nil || !strings.Contains(err.Error(), "for 200ms") {
		t.Errorf("error %v, want the client's own bound to hold as well", err)
	}
}

func TestTLSThatDoesNotComeAboutEndsSoonAndIsNotTriedAgain(t *testing.T) {
	mute := rawServer(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
	_, err := newClient(t, Options{Timeout: 2 * time.Second}).Fetch(t.Context(), &Request{URL: strings.Replace(mute, "http:", "https:", 1)})
	if ue := (*chantal.UpstreamError)(nil); !errors.As(err, &ue) || !strings.Contains(err.Error(), "handshake timeout") {
		t.Errorf("no handshake: %v; want an UpstreamError before the whole timeout is over", err)
	}

	var asked atomic.Int32
	count := func(f func(net.Conn)) func(net.Conn) { return func(conn net.Conn) { asked.Add(1); f(conn) } }
	plain := rawServer(t, count(func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") }))
	alert := rawServer(t, count(func(conn net.Conn) { io.WriteString(conn, "\x15\x03\x03\x00\x02\x02\x28") })) // handshake_failure
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = quiet()
	untrusted.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			asked.Add(1)
		}
	}
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	for name, url := range map[string]string{"plain HTTP": plain, "an alert": alert, "a certificate of nobody": untrusted.URL} {
		asked.Store(0)
		_, err := Retry(5, time.Minute, nil)(newClient(t, Options{})).Fetch(t.Context(), &Request{URL: strings.Replace(url, "http:", "https:", 1)})
		if ue := (*chantal.UpstreamError)(nil); !errors.As(err, &ue) || asked.Load() != 1 {
			t.Errorf("%s: %v after %d attempts; want an UpstreamError after one", name, err, asked.Load())
		}
	}
}

// deaf returns the address of a listener whose queue is full. open makes it
// answer.
func deaf(t *testing.T) (addr string, open func()) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	t.Cleanup(func() { file.Close() })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr = fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
	for full := false; !full; {
		conn, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if full = err != nil; !full {
			t.Cleanup(func() { conn.Close() })
		}
	}
	return addr, func() {
		l, err := net.FileListener(file)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })
	}
}

func TestAHostThatDoesNotAcceptIsGivenUp(t *testing.T) {
	addr, _ := deaf(t)
	const timeout = 3 * time.Second
	started := time.Now()
	_, err := Retry(5, time.Minute, nil)(newClient(t, Options{Timeout: timeout})).Fetch(t.Context(), &Request{URL: "http://" + addr})
	if ue := (*chantal.UpstreamError)(nil); !errors.As(err, &ue) || time.Since(started) > timeout*2/3 {
		t.Errorf("%v after %s; want an UpstreamError after one dial of a third of %s", err, time.Since(started), timeout)
	}
}

func TestAHeaderMayHaveAMebibyte(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		kib, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Long", strings.Repeat("x", kib<<10))
	})
	c := newClient(t, Options{})
	for kib, good := range map[int]bool{1000: true, 1100: false} {
		if _, _, err := get(t, c, &Request{URL: fmt.Sprint(srv.URL, "/", kib)}); (err == nil) != good {
			t.Errorf("%d KiB: %v, want it read: %v", kib, err, good)
		}
	}
}

func TestConnectionsAreKeptForAsManyAsMayGoOn(t *testing.T) {
	var opened atomic.Int32
	block := make(chan struct{})
	arrived := make(chan struct{}, 100)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-block }))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	const perHost = 20 // more than any default keeps
	src := Limit(0, perHost)(newClient(t, Options{PerHost: perHost}))
	for range 3 {
		errs := make(chan error)
		for range perHost {
			go func() {
				_, _, err := get(t, src, &Request{URL: srv.URL})
				errs <- err
			}()
		}
		for range perHost {
			<-arrived
		}
		for range perHost {
			block <- struct{}{}
		}
		for range perHost {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
	if n := opened.Load(); n != perHost {
		t.Errorf("%d connections for three rounds of %d; want them used again", n, perHost)
	}
}
