package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// wire sends bytes on one connection, and after them a request that ends it. It
// returns the status of every answer that came, in order; the last is 200 where
// server and client agreed on where the requests end, and missing where the
// server closed the connection before.
func (s *site) wire(t *testing.T, raw string) []int {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go io.WriteString(conn, raw+"GET /-/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	var got []int
	for in := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Fatalf("after %v neither an answer nor the end came", got)
			}
			return got
		}
		got = append(got, resp.StatusCode)
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return got
		}
	}
}

const (
	hostLine = "Host: localhost\r\n"
	evil     = "GET http://o.example.org/pub/evil HTTP/1.1\r\nHost: o.example.org\r\n\r\n"
)

// Whatever could be read in two ways is refused, and the connection closed; or
// it is read in one way, and the next request is where it should be.
func TestRequestsThatCouldBeReadInTwoWays(t *testing.T) {
	s, o := generic(t, func(o *Options) { o.PassOther = true })
	o.put("/pub/a", "a file", "Cache-Control: max-age=600")
	s.wants(o, "first", "/files/a", "a file", fresh, []string{"GET /pub/a"})
	get := "GET /files/a HTTP/1.1\r\n" + hostLine
	post := "POST /files/a HTTP/1.1\r\n" + hostLine
	for name, tc := range map[string]struct {
		raw  string
		want []int
	}{
		"nothing odd": {get + "\r\n", []int{200, 200}},

		"two hosts":                   {"GET /files/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", []int{400}},
		"two equal hosts":             {get + hostLine + "\r\n", []int{400}},
		"no host":                     {"GET /files/a HTTP/1.1\r\n\r\n", []int{400}},
		"a list of hosts":             {"GET /files/a HTTP/1.1\r\nHost: a, b\r\n\r\n", []int{400}},
		"a host with a space":         {"GET /files/a HTTP/1.1\r\nHost: a b\r\n\r\n", []int{400}},
		"absolute form, two hosts":    {"GET http://o.example.org/pub/a HTTP/1.1\r\nHost: o.example.org\r\nHost: b\r\n\r\n", []int{400}},
		"absolute form, another host": {"GET http://o.example.org/pub/a HTTP/1.1\r\nHost: other.example.org\r\n\r\n", []int{200, 200}},
		"absolute form, a user":       {"GET http://u:p@o.example.org/pub/a HTTP/1.1\r\nHost: o.example.org\r\n\r\n", []int{400, 200}},
		"absolute form, a fragment":   {"GET http://o.example.org/pub/a#b HTTP/1.1\r\nHost: o.example.org\r\n\r\n", []int{400, 200}},
		"absolute form, a false name": {"GET http://[o.example.org]/pub/a HTTP/1.1\r\nHost: o.example.org\r\n\r\n", []int{400}},

		"length and chunks":           {post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, []int{405}},
		"chunks and length":           {post + "Transfer-Encoding: chunked\r\nContent-Length: 200\r\n\r\n0\r\n\r\n" + evil, []int{405}},
		"chunks of GET":               {get + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, []int{400}},
		"chunks, folded":              {post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + evil, []int{405}},
		"chunks, with a control":      {post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + evil, []int{400}},
		"chunks, then something":      {post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + evil, []int{501}},
		"another coding":              {post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + evil, []int{501}},
		"two codings":                 {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + evil, []int{501}},
		"chunks in HTTP/1.0":          {"POST /files/a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, []int{405}},
		"two lengths":                 {post + "Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + evil, []int{400}},
		"a list of lengths":           {post + "Content-Length: 0, 5\r\n\r\n" + evil, []int{400}},
		"a list of equal lengths":     {post + "Content-Length: 0, 0\r\n\r\n" + evil, []int{400}},
		"a length with a sign":        {post + "Content-Length: +0\r\n\r\n" + evil, []int{400}},
		"a length below zero":         {post + "Content-Length: -1\r\n\r\n" + evil, []int{400}},
		"a length in hexadecimal":     {post + "Content-Length: 0x0\r\n\r\n" + evil, []int{400}},
		"a length without end":        {post + "Content-Length: 99999999999999999999\r\n\r\n" + evil, []int{400}},
		"GET with content":            {get + "Content-Length: 73\r\n\r\n" + evil, []int{400}},
		"HEAD with content":           {"HEAD /files/a HTTP/1.1\r\n" + hostLine + "Content-Length: 73\r\n\r\n" + evil, []int{400}},
		"GET with nothing as content": {get + "Content-Length: 0\r\n\r\n", []int{200, 200}},

		"folded":                  {get + "X-A: b\r\n c\r\n\r\n", []int{200, 200}},
		"folded at the beginning": {"GET /files/a HTTP/1.1\r\n X-A: b\r\n" + hostLine + "\r\n", []int{400}},
		"space before the colon":  {get + "Content-Length : 73\r\n\r\n" + evil, []int{400}},
		"tab before the colon":    {get + "Content-Length\t: 73\r\n\r\n" + evil, []int{400}},
		"no name":                 {get + ": 73\r\n\r\n", []int{400}},
		"no colon":                {get + "Content-Length\r\n\r\n", []int{400}},
		"bare CR in a value":      {get + "X-A: b\rContent-Length: 73\r\n\r\n" + evil, []int{400}},
		"bare CR in a name":       {get + "X\r-A: b\r\n\r\n", []int{400}},
		"NUL in a value":          {get + "X-A: b\x00c\r\n\r\n", []int{400}},
		"NUL in a name":           {get + "X\x00A: b\r\n\r\n", []int{400}},
		"bare LF for every end":   {strings.ReplaceAll(get+"X-A: b\r\n\r\n", "\r\n", "\n"), []int{200, 200}},

		"NUL in the target":           {"GET /files/a\x00b HTTP/1.1\r\n" + hostLine + "\r\n", []int{400}},
		"a control in the target":     {"GET /files/a\x01 HTTP/1.1\r\n" + hostLine + "\r\n", []int{400}},
		"CR in the target":            {"GET /files/a\rHTTP/1.1 HTTP/1.1\r\n" + hostLine + "\r\n", []int{400}},
		"a space in the target":       {"GET /files/a b HTTP/1.1\r\n" + hostLine + "\r\n", []int{400}},
		"encoded NUL in the target":   {"GET /files/a%00b HTTP/1.1\r\n" + hostLine + "\r\n", []int{403, 200}},
		"encoded in a wrong way":      {"GET /files/%zz HTTP/1.1\r\n" + hostLine + "\r\n", []int{400}},
		"half of an encoding":         {"GET /files/%a HTTP/1.1\r\n" + hostLine + "\r\n", []int{400}},
		"encoded line end":            {"GET /files/a%0d%0aX-A:%20b HTTP/1.1\r\n" + hostLine + "\r\n", []int{403, 200}},
		"no version":                  {"GET /files/a\r\n\r\n", []int{400}},
		"another version":             {"GET /files/a HTTP/3.0\r\n" + hostLine + "\r\n", []int{505}},
		"the preface of HTTP/2":       {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{505}},
		"a version in lower case":     {"GET /files/a http/1.1\r\n" + hostLine + "\r\n", []int{400}},
		"a method that is none":       {"GE(T /files/a HTTP/1.1\r\n" + hostLine + "\r\n", []int{400}},
		"an expectation that is none": {get + "Expect: the unexpected\r\n\r\n", []int{417}},

		"a second one after a refused first": {"GET /nope/x HTTP/1.1\r\n" + hostLine + "\r\n" + get + "\r\n", []int{404, 200, 200}},
		"many":                               {strings.Repeat(get+"\r\n", 50), slices.Repeat([]int{200}, 51)},
		"a huge field":                       {get + "X-A: " + strings.Repeat("b", 80<<10) + "\r\n\r\n", []int{431}},
		"many fields":                        {get + strings.Repeat("X-A: "+strings.Repeat("b", 70)+"\r\n", 1200) + "\r\n", []int{431}},
		"a huge target":                      {"GET /files/" + strings.Repeat("b", 80<<10) + " HTTP/1.1\r\n" + hostLine + "\r\n", []int{431}},
	} {
		t.Run(name, func(t *testing.T) {
			o.requests()
			if diff := cmp.Diff(tc.want, s.wire(t, tc.raw)); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
			if asked := o.requests(); len(asked) != 0 {
				t.Errorf("upstream got %q", asked)
			}
		})
	}
}
