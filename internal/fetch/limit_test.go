package fetch

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// held answers every request with a body that takes its place until it is
// closed, and writes down the order.
func held(order *[]string) Source {
	return SourceFunc(func(_ context.Context, r *Request) (*Response, error) {
		*order = append(*order, r.Repo)
		return &Response{Body: io.NopCloser(strings.NewReader(""))}, nil
	})
}

// asking starts requests, each when the one before waits or has its answer.
func asking(t *testing.T, src Source, requests ...*Request) chan *Response {
	answers := make(chan *Response, len(requests))
	for _, r := range requests {
		go func() {
			resp, err := src.Fetch(t.Context(), r)
			if err != nil {
				t.Error(err)
			}
			answers <- resp
		}()
		synctest.Wait()
	}
	return answers
}

const host = "http://mirror.example.org/"

func TestWhatNobodyWaitsForGoesBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		nobody := make(chan struct{})
		wanted := make(chan struct{})
		src := Limit(8, 3)(held(&order))
		answers := asking(t, src,
			&Request{Repo: "behind 1", URL: host, Behind: nobody},
			&Request{Repo: "behind 2", URL: host, Behind: nobody},
			&Request{Repo: "behind 3", URL: host, Behind: nobody}, // one place is not for it
			&Request{Repo: "client 1", URL: host},
			&Request{Repo: "behind 4", URL: host, Behind: wanted},
			&Request{Repo: "client 2", URL: host},
		)
		if diff := cmp.Diff([]string{"behind 1", "behind 2", "client 1"}, order); diff != "" {
			t.Fatalf("began (-want +got):\n%s", diff)
		}
		close(wanted) // a client has come for it, after client 2
		synctest.Wait()
		for range 6 {
			(<-answers).Body.Close()
			synctest.Wait()
		}
		want := []string{"behind 1", "behind 2", "client 1", "client 2", "behind 4", "behind 3"}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		if n := src.(*limiter).all; n != 0 {
			t.Errorf("%d places are still taken", n)
		}
	})
}

func TestASlowHostKeepsNobodyFromAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		src := Limit(3, 1)(held(&order))
		answers := asking(t, src,
			&Request{Repo: "slow 1", URL: "http://slow.example.org/"},
			&Request{Repo: "slow 2", URL: "http://slow.example.org/"},
			&Request{Repo: "slow 3", URL: "http://slow.example.org/"},
			&Request{Repo: "other", URL: host},
			&Request{Repo: "behind", URL: "http://third.example.org/", Behind: make(chan struct{})},
		)
		if diff := cmp.Diff([]string{"slow 1", "other"}, order); diff != "" {
			t.Errorf("began (-want +got):\n%s", diff)
		}
		for range 5 {
			(<-answers).Body.Close()
			synctest.Wait()
		}
		if len(order) != 5 {
			t.Errorf("got %v", order)
		}
	})
}

func TestBandwidthChangesByTimeOfDay(t *testing.T) {
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.FixedZone("", 3600))
	windows := []Window{
		{From: 8 * time.Hour, To: 18 * time.Hour, Rate: 10},
		{From: 22*time.Hour + 30*time.Minute, To: 6 * time.Hour},
		{To: 24 * time.Hour, Rate: 50},
	}
	for clock, want := range map[string]int64{
		"00:00": 0, "05:59": 0, "06:00": 50, "07:59": 50, "08:00": 10, "17:59": 10, "18:00": 50, "22:29": 50, "22:30": 0, "23:59": 0,
	} {
		at, err := time.Parse("15:04", clock)
		if err != nil {
			t.Fatal(err)
		}
		if got := rateAt(windows, time.Date(2026, 3, 1, at.Hour(), at.Minute(), 0, 0, day.Location())); got != want {
			t.Errorf("%s: got %d, want %d", clock, got, want)
		}
	}
	if got := rateAt(windows[:1], day); got != 0 {
		t.Errorf("where no window holds: got %d, want no limit", got)
	}
}

func TestADownloadIsFasterWhenTheLimitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 20_000
		midnight := time.Now().Truncate(24 * time.Hour)
		windows := []Window{{To: 10 * time.Second, Rate: 1000}, {From: 10 * time.Second, To: 24 * time.Hour}}
		started := time.Now()
		src := Bandwidth(windows, func() time.Time { return midnight.Add(time.Since(started)).UTC() })(
			SourceFunc(func(context.Context, *Request) (*Response, error) {
				return &Response{Body: io.NopCloser(strings.NewReader(strings.Repeat("x", size)))}, nil
			}))
		if _, body, err := get(t, src, &Request{}); err != nil || len(body) != size {
			t.Fatalf("read %d bytes, %v", len(body), err)
		}
		if took := time.Since(started); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("took %s: 10 s at 1000 bytes a second, and the rest at once", took)
		}
	})
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	var connections atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "body") }))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	src := Limit(8, 2)(newClient(t, Options{PerHost: 2}))
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if _, body, err := get(t, src, &Request{URL: srv.URL}); err != nil || body != "body" {
				t.Errorf("got %q, %v", body, err)
			}
		})
	}
	wg.Wait()
	// A connection is free again a moment after its body has been read.
	if n := connections.Load(); n > 20 {
		t.Errorf("%d connections for 40 requests, two at a time", n)
	}
}
