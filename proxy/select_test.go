package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func asking(method string, fields ...string) *http.Request {
	r := httptest.NewRequest(method, "/", nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

func TestConditions(t *testing.T) {
	modified := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return modified.Add(d).Format(http.TimeFormat) }
	has := validators{`"a"`, modified, true}
	many := has
	many.dated = false
	weak := validators{`W/"a"`, modified, true}
	part := []string{"Range", "bytes=2-3"}
	for _, test := range []struct {
		what   string
		v      validators
		fields []string
		want   int
	}{
		{"nothing", has, nil, 200},
		{"If-Match", has, []string{"If-Match", `"b", "a"`}, 200},
		{"If-Match in two fields", has, []string{"If-Match", `"b"`, "If-Match", `"a"`}, 200},
		{"If-Match of any", has, []string{"If-Match", "*"}, 200},
		{"If-Match of another", has, []string{"If-Match", `"b"`}, 412},
		{"If-Match, weak", has, []string{"If-Match", `W/"a"`}, 412},
		{"If-Match of a weak tag", weak, []string{"If-Match", `W/"a"`}, 412},
		{"If-Match without quotes", has, []string{"If-Match", "a"}, 412},
		{"If-Match goes before the date", has, []string{"If-Match", `"a"`, "If-Unmodified-Since", date(-time.Hour)}, 200},
		{"If-Unmodified-Since", has, []string{"If-Unmodified-Since", date(0)}, 200},
		{"If-Unmodified-Since earlier", has, []string{"If-Unmodified-Since", date(-time.Second)}, 412},
		{"If-Unmodified-Since nonsense", has, []string{"If-Unmodified-Since", "yesterday"}, 200},
		{"If-None-Match", has, []string{"If-None-Match", `"b" , W/"a"`}, 304},
		{"If-None-Match of a weak tag", weak, []string{"If-None-Match", `"a"`}, 304},
		{"If-None-Match of another", has, []string{"If-None-Match", `"b"`}, 200},
		{"If-None-Match with a comma in it", has, []string{"If-None-Match", `"x,"a"`}, 200},
		{"If-None-Match without end", has, []string{"If-None-Match", `"a`}, 200},
		{"If-None-Match goes before the date", has, []string{"If-None-Match", `"b"`, "If-Modified-Since", date(0)}, 200},
		{"If-Match goes before If-None-Match", has, []string{"If-Match", `"b"`, "If-None-Match", `"a"`}, 412},
		{"If-None-Match and a part", has, append([]string{"If-None-Match", `"a"`}, part...), 304},
		{"If-Modified-Since", has, []string{"If-Modified-Since", date(0)}, 304},
		{"If-Modified-Since later", has, []string{"If-Modified-Since", date(time.Second)}, 200},
		{"If-Modified-Since of a URL with more states", many, []string{"If-Modified-Since", date(0)}, 200},
		{"a part", has, part, 206},
		{"If-Range without a part", has, []string{"If-Range", `"b"`}, 200},
		{"If-Range", has, append([]string{"If-Range", `"a"`}, part...), 206},
		{"If-Range of another", has, append([]string{"If-Range", `"b"`}, part...), 200},
		{"If-Range, weak", has, append([]string{"If-Range", `W/"a"`}, part...), 200},
		{"If-Range of a weak tag", weak, append([]string{"If-Range", `W/"a"`}, part...), 200},
		{"If-Range by date", has, append([]string{"If-Range", date(0)}, part...), 206},
		{"If-Range by a later date", has, append([]string{"If-Range", date(time.Second)}, part...), 200},
		{"If-Range by an earlier date", has, append([]string{"If-Range", date(-time.Second)}, part...), 200},
		{"If-Range by date of a URL with more states", many, append([]string{"If-Range", date(0)}, part...), 200},
		{"If-Range with nonsense", has, append([]string{"If-Range", "a"}, part...), 200},
		{"If-Range with nothing known", validators{dated: true}, append([]string{"If-Range", `""`}, part...), 200},
		{"If-Range of another, beyond the end", has, []string{"If-Range", `"b"`, "Range", "bytes=99-"}, 200},
	} {
		if got := choose(asking(http.MethodGet, test.fields...), test.v, 10); got.status != test.want {
			t.Errorf("%s: got %d, want %d", test.what, got.status, test.want)
		}
	}
	if got := choose(asking(http.MethodHead, part...), has, 10); got.status != http.StatusOK {
		t.Errorf("HEAD has no parts: got %d", got.status)
	}
}

func TestWhatRangesSelect(t *testing.T) {
	for _, test := range []struct {
		spec string
		size int64
		want selection
	}{
		{"bytes=0-9", 100, selection{206, []part{{0, 10}}}},
		{"Bytes=0-9", 100, selection{206, []part{{0, 10}}}},
		{"bytes=90-", 100, selection{206, []part{{90, 100}}}},
		{"bytes=-10", 100, selection{206, []part{{90, 100}}}},
		{"bytes=-1000", 100, selection{206, []part{{0, 100}}}},
		{"bytes=99-99999999999999999999", 100, selection{206, []part{{99, 100}}}},
		{"bytes=-99999999999999999999", 100, selection{206, []part{{0, 100}}}},
		{"bytes=0-0,-1", 100, selection{206, []part{{0, 1}, {99, 100}}}},
		{"bytes= 5-6 ,\t1-2,", 100, selection{206, []part{{5, 7}, {1, 3}}}},
		{"bytes=10-19,0-9", 100, selection{206, []part{{10, 20}, {0, 10}}}},
		{"bytes=0-9,100-,20-29", 100, selection{206, []part{{0, 10}, {20, 30}}}},
		{"bytes=50-59,0-9,55-70,5-5", 100, selection{206, []part{{50, 71}, {0, 10}}}},
		{"bytes=0-99,-1", 100, selection{206, []part{{0, 100}}}},
		{"bytes=100-", 100, selection{status: 416}},
		{"bytes=-0", 100, selection{status: 416}},
		{"bytes=99999999999999999999-", 100, selection{status: 416}},
		{"bytes=", 100, selection{status: 416}},
		{"bytes=-", 100, selection{status: 416}},
		{"bytes=5-2", 100, selection{status: 416}},
		{"bytes=0-1,x", 100, selection{status: 416}},
		{"bytes=+1-2", 100, selection{status: 416}},
		{"bytes=1--2", 100, selection{status: 416}},
		{"lines=0-9", 100, selection{status: 200}},
		{"nonsense", 100, selection{status: 200}},
		{"bytes=0-", 0, selection{status: 200}},
		{"bytes=-5", 0, selection{status: 200}},
		{"bytes=7-", 0, selection{status: 200}},
	} {
		got := selected(test.spec, test.size)
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(selection{}, part{})); diff != "" {
			t.Errorf("%s of %d bytes (-want +got):\n%s", test.spec, test.size, diff)
		}
	}
}

// However many ranges are asked for, what comes is hardly longer than the file.
func TestRangesDoNotAmplify(t *testing.T) {
	many := func(n int, one func(i int) string) string {
		var all []string
		for i := range n {
			all = append(all, one(i))
		}
		return "bytes=" + strings.Join(all, ",")
	}
	for what, test := range map[string]struct {
		spec  string
		parts int // 0: the whole file instead
	}{
		"zchunk":         {many(256, func(i int) string { return fmt.Sprintf("%d-%d", 100*i, 100*i+50) }), 256},
		"zchunk, more":   {many(300, func(i int) string { return fmt.Sprintf("%d-%d", 300*i, 300*i+99) }), 300},
		"single bytes":   {many(12_000, func(i int) string { return fmt.Sprintf("%d-%[1]d", 2*i) }), 0},
		"the same":       {many(5000, func(int) string { return "0-" }), 1},
		"nested":         {many(5000, func(i int) string { return fmt.Sprintf("%d-", i) }), 1},
		"nested, turned": {many(5000, func(i int) string { return fmt.Sprintf("%d-", 5000-i) }), 1},
		"staggered":      {many(5000, func(i int) string { return fmt.Sprintf("%d-%d", i, i+1000) }), 1},
	} {
		const size = 100_000
		s := selected(test.spec, size)
		if len(s.parts) != test.parts {
			t.Errorf("%s: %d with %d parts, want %d", what, s.status, len(s.parts), test.parts)
		}
		var sum int64
		for _, p := range s.parts {
			sum += p.to - p.from
		}
		if sum > size {
			t.Errorf("%s: %d bytes of %d", what, sum, size)
		}
	}
}

// Where ranges neither overlap nor are odd, net/http answers the same.
func TestPartsAreThoseOfNetHTTP(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	content := make([]byte, 200_000)
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	url, _ := serveFiles(t, map[string][]byte{"f.bin": content})
	fill(t, url+"f.bin")
	reference := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer reference.Close()
	for range 60 {
		cuts := make([]int, 2*(1+random.IntN(40)))
		for i := range cuts {
			cuts[i] = random.IntN(len(content) + 1000)
		}
		slices.Sort(cuts)
		cuts = slices.Compact(cuts)
		var all []string
		for i := 0; i+1 < len(cuts); i += 2 {
			all = append(all, fmt.Sprintf("%d-%d", cuts[i], cuts[i+1]-1))
		}
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		spec := "bytes=" + strings.Join(all, ",")
		want, wantBody := fetched(t, http.MethodGet, reference.URL, "Range", spec)
		got, body := fetched(t, http.MethodGet, url+"f.bin", "Range", spec)
		if got.StatusCode != want.StatusCode || got.Header.Get("Content-Range") != want.Header.Get("Content-Range") {
			t.Fatalf("%s: got %s %q, want %s %q", spec, got.Status, got.Header.Get("Content-Range"), want.Status, want.Header.Get("Content-Range"))
		}
		if got.StatusCode != http.StatusPartialContent {
			continue
		}
		if got.ContentLength != int64(len(body)) {
			t.Fatalf("%s: %d bytes announced, %d came", spec, got.ContentLength, len(body))
		}
		if diff := cmp.Diff(pieces(t, want, wantBody), pieces(t, got, body)); diff != "" {
			t.Fatalf("%s: other parts (-want +got):\n%.2000s", spec, diff)
		}
	}
}

// pieces takes a 206 apart: "Content-Range Content-Type" and the bytes, in turn.
func pieces(t *testing.T, resp *http.Response, body []byte) (all []string) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "multipart/byteranges" {
		return []string{resp.Header.Get("Content-Range") + " " + kind, string(body)}
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		p, err := parts.NextPart()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p.Header.Get("Content-Range")+" "+p.Header.Get("Content-Type"), string(b))
	}
}
