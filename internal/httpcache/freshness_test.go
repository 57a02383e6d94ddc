package httpcache

import (
	"net/http"
	"testing"
	"time"
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
