package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

// script answers with one step after the other, the last one again and again,
// and counts.
type script struct {
	steps []any // an error, a status, or a Retry-After with status 503
	asked int
	open  int // bodies not closed
}

func (s *script) Fetch(_ context.Context, r *Request) (*Response, error) {
	step := s.steps[min(s.asked, len(s.steps)-1)]
	s.asked++
	resp := &Response{Status: 503, Header: http.Header{}, URL: r.URL}
	switch v := step.(type) {
	case error:
		return nil, v
	case int:
		resp.Status = v
	case string:
		resp.Header.Set("Retry-After", v)
	}
	s.open++
	resp.Body = &wrapBody{Reader: strings.NewReader("body"), close: func() error { s.open--; return nil }}
	return resp, nil
}

func TestRetryCountsAndTimes(t *testing.T) {
	up := func(err error) error { return &chantal.UpstreamError{URL: "http://mirror.example.org/", Err: err} }
	dial := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, tc := range []struct {
		name         string
		steps        []any
		asked        int
		status       int // 0 for an error
		least, under time.Duration
	}{
		{"good at once", []any{200}, 1, 200, 0, 1},
		{"not found", []any{404}, 1, 404, 0, 1},
		{"good later", []any{503, up(io.ErrUnexpectedEOF), 200}, 3, 200, 300 * time.Millisecond, 600 * time.Millisecond},
		{"never good", []any{500}, 6, 500, 3100 * time.Millisecond, 6200 * time.Millisecond},
		{"each such status", []any{408, 429, 502, 504, 200}, 5, 200, 1500 * time.Millisecond, 3 * time.Second},
		{"told when", []any{"3", 200}, 2, 200, 3 * time.Second, 3200 * time.Millisecond},
		{"told much later", []any{"6", 200}, 1, 503, 0, 1},
		{"bounded in total", []any{"4"}, 3, 503, 8 * time.Second, 8400 * time.Millisecond},
		{"no TLS there", []any{up(tls.RecordHeaderError{})}, 1, 0, 0, 1},
		{"no common TLS", []any{up(&net.OpError{Op: "remote error", Err: errors.New("handshake failure")})}, 1, 0, 0, 1},
		{"nobody there", []any{up(dial)}, 2, 0, 100 * time.Millisecond, 100*time.Millisecond + 1},
		{"no such host", []any{up(&net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}})}, 1, 0, 0, 1},
		{"refused", []any{&chantal.RefusedError{}}, 1, 0, 0, 1},
		{"unusable answer", []any{&chantal.UpstreamError{Status: 302, Err: errors.New("circle")}}, 1, 0, 0, 1},
		{"offline", []any{up(chantal.ErrOffline)}, 1, 0, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: tc.steps}
				started := time.Now()
				resp, err := Retry(5, 10*time.Second, nil)(s).Fetch(t.Context(), &Request{URL: "http://mirror.example.org/"})
				took := time.Since(started)
				status := 0
				if err == nil {
					status = resp.Status
					resp.Body.Close()
				}
				if diff := cmp.Diff([]int{tc.asked, tc.status, 0}, []int{s.asked, status, s.open}); diff != "" {
					t.Errorf("asked, status, open bodies (-want +got):\n%s", diff)
				}
				if took < tc.least || took >= tc.under {
					t.Errorf("took %s, want [%s, %s)", took, tc.least, tc.under)
				}
			})
		})
	}
}

func TestWhoHasAnotherAnswerIsNotKeptWaiting(t *testing.T) {
	for name, steps := range map[string][]any{
		"bad for long":     {503},
		"no answer":        {&chantal.UpstreamError{Err: io.ErrUnexpectedEOF}},
		"told to wait":     {"1"},
		"bad for a moment": {503, 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: steps}
				started := time.Now()
				resp, err := Retry(5, time.Minute, nil)(s).Fetch(t.Context(), &Request{Fallback: true})
				if took := time.Since(started); took > time.Second {
					t.Errorf("took %s", took)
				}
				good := err == nil && resp.Status == 200
				if good != (name == "bad for a moment") {
					t.Errorf("answer %+v, %v", resp, err)
				}
			})
		})
	}
}

func TestRetryStopsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []any{503}}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := Retry(5, time.Minute, nil)(s).Fetch(ctx, &Request{})
		if !errors.Is(err, context.DeadlineExceeded) || s.asked != 1 || s.open != 0 {
			t.Errorf("error %v, asked %d, open %d; want the context's, 1, 0", err, s.asked, s.open)
		}
	})
}

func TestDownUpstreamFailsFast(t *testing.T) {
	srv := serve(t, func(http.ResponseWriter, *http.Request) {})
	srv.Close()
	started := time.Now()
	_, err := Retry(5, 10*time.Second, nil)(newClient(t, Options{})).Fetch(t.Context(), &Request{URL: srv.URL})
	if ue := (*chantal.UpstreamError)(nil); !errors.As(err, &ue) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("error %v, want an UpstreamError", err)
	}
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestLimitHoldsPlacesUntilBodiesAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := 0, 0
		hosts, mostHost := map[string]int{}, 0
		src := Limit(3, 2)(SourceFunc(func(_ context.Context, r *Request) (*Response, error) {
			host := r.Repo
			mu.Lock()
			now++
			most = max(most, now)
			hosts[host]++
			mostHost = max(mostHost, hosts[host])
			mu.Unlock()
			return &Response{Body: &wrapBody{Reader: strings.NewReader(""), close: func() error {
				mu.Lock()
				now--
				hosts[host]--
				mu.Unlock()
				return nil
			}}}, nil
		}))
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				host := fmt.Sprintf("m%d.example.org", i%2) // three places and two hosts: one host has two of them
				resp, err := src.Fetch(t.Context(), &Request{Repo: host, URL: "http://" + host + "/"})
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Second)
				resp.Body.Close()
				resp.Body.Close()
			})
		}
		wg.Wait()
		if most != 3 || mostHost != 2 {
			t.Errorf("at most %d at a time and %d a host; want 3 and 2", most, mostHost)
		}
		if n := len(src.(*limiter).busy); n != 0 {
			t.Errorf("%d hosts are still kept", n)
		}
	})
}

func TestLimitGivesPlacesBackAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := &script{steps: []any{200, errors.New("no"), 200}}
		src := Limit(1, 1)(hold)
		first, err := src.Fetch(t.Context(), &Request{URL: "http://mirror.example.org/"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := src.Fetch(ctx, &Request{URL: "http://mirror.example.org/"}); !errors.Is(err, context.DeadlineExceeded) || hold.asked != 1 {
			t.Errorf("second: error %v, asked %d; want to have waited in vain", err, hold.asked)
		}
		first.Body.Close()
		if _, err := src.Fetch(t.Context(), &Request{URL: "http://mirror.example.org/"}); err == nil || err.Error() != "no" {
			t.Errorf("third: error %v, want the source's", err)
		}
		if _, err := src.Fetch(t.Context(), &Request{URL: "http://mirror.example.org/"}); err != nil {
			t.Errorf("fourth: %v", err)
		}
	})
}

func TestBandwidthIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 5000
		src := Bandwidth([]Window{{Rate: 1000}}, time.Now)(SourceFunc(func(context.Context, *Request) (*Response, error) {
			return &Response{Body: io.NopCloser(strings.NewReader(strings.Repeat("x", size)))}, nil
		}))
		started := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, body, err := get(t, src, &Request{}); err != nil || len(body) != size {
					t.Errorf("read %d bytes, %v", len(body), err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(started); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("10000 bytes at 1000 a second took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		resp, err := src.Fetch(ctx, &Request{})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, context.DeadlineExceeded) || n >= size {
			t.Errorf("with a deadline: %d bytes, %v; want the context's error", n, err)
		}
		if time.Since(started) > 13*time.Second {
			t.Error("the deadline did not end the wait")
		}
	})
}

func TestOfflineAsksNobody(t *testing.T) {
	s := &script{steps: []any{200}}
	_, err := Offline()(s).Fetch(t.Context(), &Request{URL: "http://u:secret@mirror.example.org/x"})
	var ue *chantal.UpstreamError
	if !errors.As(err, &ue) || !errors.Is(err, chantal.ErrOffline) || ue.URL != "http://mirror.example.org/x" || s.asked != 0 {
		t.Errorf("error %v, asked %d", err, s.asked)
	}
}
