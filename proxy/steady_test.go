package proxy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are pipes, so that synctest has the
// time in hand.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inTime serves h on pipes, and gives the test a way to connect.
func inTime(t *testing.T, h http.HandlerFunc, test func(t *testing.T, dial func() net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		srv := New(Options{Log: slog.New(slog.DiscardHandler)}).Server("")
		srv.Handler = h
		l := make(pipes)
		go srv.Serve(steady(l, patience, 100))
		test(t, func() net.Conn {
			client, server := net.Pipe()
			l <- server
			return client
		})
		close(l)
		srv.Close()
	})
}

// lasts returns how long it takes until the other side ends the connection.
func lasts(c net.Conn, send string) time.Duration {
	began := time.Now()
	go io.WriteString(c, send)
	for {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return time.Since(began)
		}
	}
}

func TestClientsThatHoldConnectionsAreCut(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request) {
		r = paced(w, r)
		if r.Method == http.MethodPut {
			io.Copy(io.Discard, r.Body)
		}
		io.WriteString(w, "answer")
	}
	for what, test := range map[string]struct {
		send string
		want time.Duration
	}{
		"nothing sent":          {"", 30 * time.Second},
		"half a head":           {"GET / HTTP/1.1\r\nHost: x\r\nRange: byt", 30 * time.Second},
		"no second request":     {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 3 * time.Minute},
		"half a body":           {"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", patience},
		"half a body, not read": {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", patience},
	} {
		t.Run(what, func(t *testing.T) {
			inTime(t, answer, func(t *testing.T, dial func() net.Conn) {
				c := dial()
				defer c.Close()
				if got := lasts(c, test.send); got < test.want || got > test.want+time.Second {
					t.Errorf("the connection lasts %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestOnlyAClientThatTakesNothingIsCut(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)
	answer := func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(body) }
	const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	t.Run("slow", func(t *testing.T) {
		inTime(t, answer, func(t *testing.T, dial func() net.Conn) {
			c := dial()
			defer c.Close()
			go io.WriteString(c, request)
			// A kilobyte a minute and a half, for more than an hour.
			var got []byte
			piece := make([]byte, 1<<10)
			for len(got) < len(body) {
				n, err := c.Read(piece)
				if err != nil {
					t.Fatalf("cut after %d bytes: %v", len(got), err)
				}
				got = append(got, piece[:n]...)
				time.Sleep(patience * 3 / 4)
			}
			if head := len(got) - len(body); head > 0 && !bytes.HasPrefix(body, got[bytes.Index(got, []byte("\r\n\r\n"))+4:]) {
				t.Error("other bytes came")
			}
		})
	})
	t.Run("still", func(t *testing.T) {
		var ended chan error
		answer := func(w http.ResponseWriter, r *http.Request) {
			_, err := w.Write(body)
			ended <- err
		}
		inTime(t, answer, func(t *testing.T, dial func() net.Conn) {
			ended = make(chan error, 1) // in the bubble
			c := dial()
			defer c.Close()
			go io.WriteString(c, request)
			io.ReadFull(c, make([]byte, 10_000))
			began := time.Now()
			err := <-ended
			if took := time.Since(began); !timedOut(err) || took < patience || took > 2*patience {
				t.Errorf("the answer ended after %v with %v", took, err)
			}
		})
	})
}

// Time-outs in the middle of what the kernel sends lose no byte and repeat none.
func TestAFileSentWithPausesIsWhole(t *testing.T) {
	content := make([]byte, 24<<20)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tcp, err := (&net.ListenConfig{Control: tune}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sent := &sentOver{Listener: tcp}
	l := steady(sent, 250*time.Millisecond, 1)
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = send(c, f, part{0, int64(len(content))})
			c.Close()
		}
		done <- err
	}()
	c, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := sha256.New()
	for err == nil {
		_, err = io.CopyN(h, c, 1<<20)
		time.Sleep(50 * time.Millisecond)
	}
	if err := <-done; err != nil {
		t.Errorf("sending: %v", err)
	}
	if [32]byte(h.Sum(nil)) != sha256.Sum256(content) {
		t.Error("other bytes came")
	}
	from, _ := sent.seen()
	if len(from) < 3 || from[0] != fmt.Sprintf("*os.File of %d bytes", len(content)) {
		t.Errorf("the kernel was asked %d times, first for %v; want several time-outs", len(from), from[:min(1, len(from))])
	}
}

func TestNoMoreConnectionsThanFilesCanBeOpened(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := steady(tcp, patience, 2)
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 3 {
		c, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection was accepted")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // twice is once
	third := <-accepted
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a full listener ended with %v", err)
	}
	second.Close()
	third.Close()
}
