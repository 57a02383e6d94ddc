package httpcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal"
)

func TestMissesForOneURLAreOneRequest(t *testing.T) {
	body := strings.Repeat("0123456789", 100<<10)
	release := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(rw, body[:200<<10])
		rw.(http.Flusher).Flush()
		<-release
		fmt.Fprint(rw, body[200<<10:])
	})
	var wg sync.WaitGroup
	var started sync.WaitGroup
	for range 50 {
		started.Add(1)
		wg.Go(func() {
			a, err := w.cache.Open(t.Context(), Request{URL: w.url + "/f"})
			started.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			if got, err := io.ReadAll(a.File.Content); err != nil || string(got) != body {
				t.Errorf("read %d bytes, %v; want all %d", len(got), err, len(body))
			}
		})
	}
	started.Wait() // all have an answer while the file is still arriving
	close(release)
	wg.Wait()
	w.cache.work.Wait()
	if n := w.asked.Load(); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
	w.want("afterwards", "/f", nil, result{200, chantal.Hit, body, true, 1})
}

func TestFillOutlivesItsClient(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		answering(200, "one", "Cache-Control: max-age=60")(rw, r)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := w.cache.Open(ctx, Request{URL: w.url + "/f"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	close(release)
	w.cache.work.Wait()
	w.want("the next client", "/f", nil, result{200, chantal.Hit, "one", true, 1})
}

func TestAnswerForOneIsGivenToOneOnly(t *testing.T) {
	const clients = 8
	arrived, release := make(chan struct{}, clients), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		answering(200, "yours", "Cache-Control: private", "Set-Cookie: a=b")(rw, r)
	})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			a, err := w.cache.Open(t.Context(), Request{URL: w.url + "/f"})
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			if b, err := io.ReadAll(a.Body); err != nil || string(b) != "yours" {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
	<-arrived
	w.waiting(clients)
	close(release)
	wg.Wait()
	if n := w.asked.Load(); n != clients {
		t.Errorf("upstream was asked %d times for %d clients", n, clients)
	}
}

func TestFailureIsSharedAndNotRemembered(t *testing.T) {
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	w := newWorld(t, func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
		panic(http.ErrAbortHandler)
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := w.cache.Open(t.Context(), Request{URL: w.url + "/f"})
			if ue := (*chantal.UpstreamError)(nil); !errors.As(err, &ue) {
				t.Errorf("error %v, want an UpstreamError", err)
			}
		})
	}
	<-arrived
	w.waiting(8)
	close(release)
	wg.Wait()
	if n := w.asked.Load(); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
	w.upstream(answering(200, "one", "Cache-Control: max-age=60"))
	w.want("once up", "/f", nil, result{200, chantal.Miss, "one", true, 2})
}

// An answer that nobody waits for any more must not keep its connection.
func TestUnwantedAnswerIsClosed(t *testing.T) {
	arrived, release, cut := make(chan struct{}), make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		rw.Header().Set("Cache-Control", "no-store")
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
		close(cut)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if _, err := w.cache.Open(ctx, Request{URL: w.url + "/f"}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	close(release)
	select {
	case <-cut:
	case <-time.After(10 * time.Second):
		t.Error("the request upstream still goes on")
	}
}

// waiting returns when n clients wait for the one flight.
func (w *world) waiting(n int) {
	w.t.Helper()
	for range 1000 {
		w.cache.mu.Lock()
		for _, f := range w.cache.flights {
			f.mu.Lock()
			if f.waiters == n {
				f.mu.Unlock()
				w.cache.mu.Unlock()
				return
			}
			f.mu.Unlock()
		}
		w.cache.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatalf("never %d waiters", n)
}
