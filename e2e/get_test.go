package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// get sends one request and prints what came: status, headers, and a body of
// text unless a file takes it.
//
//	get [-o FILE] [-H 'Name: value']… [-X METHOD] [-proxy URL] URL
//
// It fails only where no whole answer came; whatever the status, look at it
// with "stdout". Redirects are not followed, the path is sent as typed, and
// each get is a client of its own: it has its own User-Agent, unless -H says.
func get(ts *testscript.TestScript, neg bool, args []string) {
	method, out, proxy, header := http.MethodGet, "", "", http.Header{}
	for len(args) > 1 {
		switch args[0] {
		case "-o":
			out = ts.MkAbs(args[1])
		case "-X":
			method = args[1]
		case "-proxy":
			proxy = args[1]
		case "-H":
			name, value, _ := strings.Cut(args[1], ":")
			header.Add(name, strings.TrimSpace(value))
		default:
			ts.Fatalf("get: no flag %s", args[0])
		}
		args = args[2:]
	}
	body, err := request(ts.Stdout(), method, args[0], proxy, header)
	switch {
	case err != nil && !neg:
		ts.Fatalf("get %s: %v%s", args[0], err, worldOf(ts).log())
	case err == nil && neg:
		ts.Fatalf("get %s: a whole answer came, and should not have", args[0])
	case out != "":
		ts.Check(os.WriteFile(out, body, 0o644))
	case !strings.ContainsRune(string(body), 0) && len(body) < 64<<10:
		fmt.Fprintf(ts.Stdout(), "\n%s\n", body)
	}
}

// request sends one request, prints status and headers to w, and returns the
// body.
func request(w io.Writer, method, target, proxy string, header http.Header) ([]byte, error) {
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	if proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil {
			return nil, err
		}
		transport.Proxy = http.ProxyURL(u)
	}
	client := &http.Client{
		Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	if header.Get("User-Agent") == "" {
		header.Set("User-Agent", fmt.Sprintf("get/%d", time.Now().UnixNano()))
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	fmt.Fprintln(w, resp.Status)
	var lines []string
	for name, values := range resp.Header {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	slices.Sort(lines)
	fmt.Fprintln(w, strings.Join(lines, "\n"))
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("body cut after %d bytes: %w", len(body), err)
	}
	return body, nil
}
