package e2e

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// tamper puts somebody in the way who changes one byte of every file whose URL
// contains PART:
//
//	tamper PART            sets $TAMPERED, to be used in place of $CHANTAL
func tamper(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tamper PART")
	}
	to, err := url.Parse(ts.Getenv("CHANTAL"))
	ts.Check(err)
	way := httputil.NewSingleHostReverseProxy(to)
	way.ModifyResponse = func(r *http.Response) error {
		if r.StatusCode != http.StatusOK || !strings.Contains(r.Request.URL.Path, args[0]) {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		body[len(body)/2] ^= 1
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.Header.Set("Content-Length", strconv.Itoa(len(body)))
		return nil
	}
	server := httptest.NewServer(way)
	ts.Defer(server.Close)
	worldOf(ts).set(ts, "TAMPERED", server.URL)
}
