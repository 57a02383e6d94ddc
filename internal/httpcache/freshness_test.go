package httpcache

import (
	"math"
	"net/http"
	"testing"
	"time"

	"chantal/internal/fetch"
)

func TestLifetime(t *testing.T) {
	received := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return received.Add(d).Format(http.TimeFormat) }
	for name, tc := range map[string]struct {
		h    http.Header
		want time.Duration
	}{
		"nothing":                     {http.Header{}, 0},
		"max-age":                     {http.Header{"Cache-Control": {"public, Max-Age=60"}}, time.Minute},
		"quoted":                      {http.Header{"Cache-Control": {`max-age="60"`}}, time.Minute},
		"s-maxage wins":               {http.Header{"Cache-Control": {"max-age=60", "s-maxage=120"}}, 2 * time.Minute},
		"first of two":                {http.Header{"Cache-Control": {"max-age=60, max-age=600"}}, time.Minute},
		"nonsense is stale":           {http.Header{"Cache-Control": {"max-age=-1"}, "Expires": {at(time.Hour)}}, 0},
		"max-age before Expires":      {http.Header{"Cache-Control": {"max-age=60"}, "Expires": {at(time.Hour)}}, time.Minute},
		"Expires from Date":           {http.Header{"Expires": {at(time.Hour)}, "Date": {at(-time.Hour)}}, 2 * time.Hour},
		"Expires without Date":        {http.Header{"Expires": {at(time.Hour)}}, time.Hour},
		"Expires past":                {http.Header{"Expires": {at(-time.Hour)}}, 0},
		"Expires 0":                   {http.Header{"Expires": {"0"}, "Last-Modified": {at(-time.Hour)}}, 0},
		"a tenth":                     {http.Header{"Last-Modified": {at(-10 * time.Hour)}}, time.Hour},
		"a tenth, at most a day":      {http.Header{"Last-Modified": {at(-10000 * time.Hour)}}, 24 * time.Hour},
		"Last-Modified in the future": {http.Header{"Last-Modified": {at(time.Hour)}}, 0},
		"more than can be counted":    {http.Header{"Cache-Control": {"max-age=99999999999"}}, math.MaxInt32 * time.Second},
		"inside a quoted value":       {http.Header{"Cache-Control": {`no-cache="a, max-age=5"`}}, 0},
	} {
		if got := lifetime(tc.h, received); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestAge(t *testing.T) {
	received := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		date, age string
		want      time.Duration
	}{
		"by the clock only":        {"", "", 102 * time.Second},
		"told, and the delay":      {"", "50", 152 * time.Second},
		"by Date":                  {received.Add(-80 * time.Second).Format(http.TimeFormat), "50", 180 * time.Second},
		"Date in the future":       {received.Add(time.Hour).Format(http.TimeFormat), "", 102 * time.Second},
		"nonsense counts for zero": {"soon", "-5", 102 * time.Second},
		"the first of several":     {"", "50, 500", 152 * time.Second},
		"more than can be counted": {"", "99999999999", math.MaxInt32*time.Second + 102*time.Second},
	} {
		e := &entry{Header: http.Header{"Date": {tc.date}, "Age": {tc.age}}, Requested: received.Add(-2 * time.Second), Received: received}
		if got := e.age(received.Add(100 * time.Second)); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestNoCacheAlwaysAsks(t *testing.T) {
	now := time.Now()
	for _, fields := range []http.Header{{"Cache-Control": {"no-cache, max-age=60"}}, {"Pragma": {"no-cache"}, "Expires": {now.Add(time.Hour).Format(http.TimeFormat)}}} {
		e := &entry{Header: fields, Requested: now, Received: now}
		if e.usable(directives{}, now) {
			t.Errorf("%v: usable without asking", fields)
		}
	}
	e := &entry{Header: http.Header{"Cache-Control": {"max-age=60"}}, Requested: now, Received: now}
	for asked, want := range map[string]bool{"": true, "no-cache": false, "max-age=0": false, "max-age=1": true, "min-fresh=59": true, "min-fresh=60": false} {
		if got := e.usable(parseControl(http.Header{"Cache-Control": {asked}}), now); got != want {
			t.Errorf("asked %q: usable %v, want %v", asked, got, want)
		}
	}
}

func TestHowStaleIsForTheClientToSay(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		kept, asked string
		usable      bool // 30 s after it ceased to be fresh
	}{
		{"max-age=60", "", false},
		{"max-age=60", "max-stale", true},
		{"max-age=60", "max-stale=30", true},
		{"max-age=60", "max-stale=29", false},
		{"max-age=60", "max-stale=soon", false},
		{"max-age=60", "max-stale=30, max-age=89", false},
		{"max-age=60", "max-stale=30, min-fresh=1", false},
		{"max-age=60", "max-stale, no-cache", false},
		{"max-age=60, must-revalidate", "max-stale", false},
		{"max-age=60, proxy-revalidate", "max-stale", false},
		{"s-maxage=60", "max-stale", false},
	} {
		e := &entry{Header: http.Header{"Cache-Control": {tc.kept}}, Requested: now, Received: now}
		if got := e.usable(parseControl(http.Header{"Cache-Control": {tc.asked}}), now.Add(90*time.Second)); got != tc.usable {
			t.Errorf("kept %q, asked %q: usable %v", tc.kept, tc.asked, got)
		}
	}
	e := &entry{Header: http.Header{"Cache-Control": {"max-age=60"}}, Requested: now, Received: now}
	for asked, want := range map[string]bool{"": true, "stale-if-error=30": true, "stale-if-error=29": false} {
		if got := e.usableStale(parseControl(http.Header{"Cache-Control": {asked}}), now.Add(90*time.Second)); got != want {
			t.Errorf("asked %q: stands in %v", asked, got)
		}
	}
}

func TestWhatAnAnswerAllows(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		header     http.Header
		fresh      time.Duration
		told, keep bool
	}{
		"nothing said":    {http.Header{"Last-Modified": {now.AddDate(-1, 0, 0).Format(http.TimeFormat)}}, 0, false, true},
		"for a while":     {http.Header{"Cache-Control": {"max-age=60"}, "Age": {"20"}}, 40 * time.Second, true, true},
		"that is over":    {http.Header{"Cache-Control": {"max-age=60"}, "Age": {"90"}}, 0, true, true},
		"no-cache":        {http.Header{"Cache-Control": {"no-cache, max-age=60"}}, 0, true, true},
		"no-store":        {http.Header{"Cache-Control": {"no-store"}}, 0, false, false},
		"private":         {http.Header{"Cache-Control": {"private, max-age=60"}}, time.Minute, true, false},
		"a cookie":        {http.Header{"Set-Cookie": {"a=b"}}, 0, false, true}, // no client's: nobody gets it
		"for one request": {http.Header{"Vary": {"Accept, *"}, "Cache-Control": {"max-age=60"}}, 0, true, true},
	} {
		fresh, told, keep := Fresh(&fetch.Response{Header: tc.header}, now, now)
		if fresh != tc.fresh || told != tc.told || keep != tc.keep {
			t.Errorf("%s: %s, %v, %v; want %s, %v, %v", name, fresh, told, keep, tc.fresh, tc.told, tc.keep)
		}
	}
}
