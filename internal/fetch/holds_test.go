package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chantal"
)

// busy answers 503 with Retry-After as its field says, and 200 where it is
// empty.
type busy struct {
	*httptest.Server
	after  atomic.Pointer[string]
	status atomic.Int32
	asked  atomic.Int32
}

func newBusy(t *testing.T, after string) *busy {
	b := &busy{}
	b.after.Store(&after)
	b.status.Store(503)
	b.Server = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		b.asked.Add(1)
		if after := *b.after.Load(); after != "" {
			w.Header().Set("Retry-After", after)
			w.WriteHeader(int(b.status.Load()))
		}
	})
	return b
}

func TestAnOriginThatWantsPeaceIsNotAskedByAnybody(t *testing.T) {
	for _, status := range []int32{429, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			one, other := newBusy(t, "60"), newBusy(t, "")
			one.status.Store(status)
			leads := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, one.URL+"/c", http.StatusFound) })
			c := newClient(t, Options{})
			resp, _, err := get(t, c, &Request{URL: one.URL + "/a"})
			if err != nil || resp.Status != int(status) {
				t.Fatalf("first: %+v, %v; want the answer itself", resp, err)
			}
			for _, r := range []Request{
				{URL: one.URL + "/a"}, {URL: one.URL + "/b", Repo: "debian", Urgent: true}, {URL: one.URL + "/b", Method: "HEAD", Fallback: true},
				{URL: leads.URL},
			} {
				started := time.Now()
				_, err := Retry(5, time.Minute, nil)(c).Fetch(t.Context(), &r)
				var ue *chantal.UpstreamError
				if !errors.As(err, &ue) || ue.Status != 0 || !strings.Contains(err.Error(), fmt.Sprintf("answered %d", status)) || strings.Count(err.Error(), "upstream") != 1 {
					t.Errorf("%s: error %v, want an UpstreamError that tells of the %d", r.URL, err, status)
				}
				if took := time.Since(started); took > time.Second {
					t.Errorf("%s: took %s", r.URL, took)
				}
			}
			if n := one.asked.Load(); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
			if resp, _, err := get(t, c, &Request{URL: other.URL}); err != nil || resp.Status != 200 {
				t.Errorf("another origin: %+v, %v", resp, err)
			}
		})
	}
}

func TestAShortPeaceIsWaitedFor(t *testing.T) {
	b := newBusy(t, "1")
	c := newClient(t, Options{})
	started := time.Now()
	if _, _, err := get(t, c, &Request{URL: b.URL}); err != nil {
		t.Fatal(err)
	}
	quiet := ""
	b.after.Store(&quiet)
	resp, _, err := get(t, Retry(5, time.Minute, nil)(c), &Request{URL: b.URL})
	if took := time.Since(started); err != nil || resp.Status != 200 || took < time.Second || b.asked.Load() != 2 {
		t.Errorf("%+v, %v after %s, asked %d times; want the file after a second", resp, err, took, b.asked.Load())
	}
}

func TestAnOriginThatCannotBeReachedCostsTimeOnce(t *testing.T) {
	addr, open := deaf(t)
	c := newClient(t, Options{Timeout: 4 * time.Second})
	fetch := func(fallback bool) (time.Duration, error) {
		started := time.Now()
		_, _, err := get(t, Retry(5, time.Minute, nil)(c), &Request{URL: "http://" + addr, Fallback: fallback})
		return time.Since(started), err
	}
	for i, fallback := range []bool{true, true, false, true} {
		took, err := fetch(fallback)
		var ue *chantal.UpstreamError
		if slow := i == 0 || !fallback; !errors.As(err, &ue) || ue.Status != 0 || strings.Contains(err.Error(), "moment ago") == slow || slow != (took > time.Second) {
			t.Errorf("request %d, fallback %v: %v after %s; want it to take its time: %v", i, fallback, err, took, slow)
		}
	}
	open()
	if _, err := fetch(false); err != nil {
		t.Errorf("when it is back: %v", err)
	}
	if _, err := fetch(true); err != nil {
		t.Errorf("after it answered: %v", err)
	}
}

func TestHowLongAnOriginIsLeftInPeace(t *testing.T) {
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	after := func(s string) func() http.Header {
		return func() http.Header { return http.Header{"Retry-After": {s}} }
	}
	for _, tc := range []struct {
		name   string
		status int
		header func() http.Header
		want   time.Duration
	}{
		{"seconds", 503, after("90"), 90 * time.Second},
		{"a date", 429, func() http.Header { return http.Header{"Retry-After": {at(time.Minute)}} }, time.Minute},
		{"a date by their clock", 503, func() http.Header {
			return http.Header{"Retry-After": {at(5 * time.Minute)}, "Date": {at(4 * time.Minute)}}
		}, time.Minute},
		{"a past date", 503, func() http.Header { return http.Header{"Retry-After": {at(-time.Minute)}} }, 0},
		{"for ever", 503, after("2000000000"), 10 * time.Minute},
		{"not at all", 503, after("0"), 0},
		{"no number", 503, after("-5"), 0},
		{"beyond numbers", 503, after("99999999999999999999"), 0},
		{"not said", 503, func() http.Header { return nil }, 0},
		{"another status", 500, after("90"), 0},
		{"a good answer", 200, after("90"), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, u := newHolds(), mustURL(t, "http://mirror.example.org/")
				h.note(u, &http.Response{StatusCode: tc.status, Header: tc.header()})
				if tc.want > 0 {
					time.Sleep(tc.want - 1)
					if h.check(u, false) == nil {
						t.Errorf("asked before %s", tc.want)
					}
					if err := h.check(mustURL(t, "https://mirror.example.org/"), true); err != nil {
						t.Errorf("https is another origin: %v", err)
					}
					time.Sleep(time.Nanosecond)
				}
				if err := h.check(u, true); err != nil {
					t.Errorf("after %s: %v", tc.want, err)
				}
			})
		})
	}
}
