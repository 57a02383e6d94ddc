package fetch

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

func TestRedirectsAreFollowedUpToTen(t *testing.T) {
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err != nil || n == 0 {
			fmt.Fprint(w, r.Method+" end")
			return
		}
		code, _ := strconv.Atoi(r.URL.Path[1:])
		http.Redirect(w, r, fmt.Sprintf("%s?n=%d", r.URL.Path, n-1), code)
	})
	c := newClient(t, Options{})
	for _, code := range []int{301, 302, 303, 307, 308} {
		resp, body, err := get(t, c, &Request{URL: fmt.Sprintf("%s/%d?n=10", srv.URL, code)})
		if err != nil || body != "GET end" || resp.URL != fmt.Sprintf("%s/%d?n=0", srv.URL, code) {
			t.Errorf("%d: %q, %+v, %v; want the end", code, body, resp, err)
		}
	}
	_, _, err := get(t, c, &Request{URL: srv.URL + "/302?n=11"})
	var ue *chantal.UpstreamError
	if !errors.As(err, &ue) || ue.Status != 302 {
		t.Errorf("eleven redirects: error %v, want an UpstreamError with status 302", err)
	}
	resp, _, err := get(t, c, &Request{URL: srv.URL + "/302?n=1", NoFollow: true})
	if err != nil || resp.Status != 302 || resp.Header.Get("Location") != "/302?n=0" {
		t.Errorf("NoFollow: %+v, %v; want the redirect itself", resp, err)
	}
	if resp, _, err = get(t, c, &Request{URL: srv.URL + "/300?n=1"}); err != nil || resp.Status != 300 {
		t.Errorf("300: %+v, %v; want it as it is", resp, err)
	}
}

func TestRedirectsThatAreErrors(t *testing.T) {
	plain := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "plain") })
	to := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(302)
	}
	tls := httptest.NewTLSServer(http.HandlerFunc(to))
	t.Cleanup(tls.Close)
	srv := serve(t, to)
	pool := x509.NewCertPool()
	pool.AddCert(tls.Certificate())
	c := newClient(t, Options{Roots: pool})
	for _, u := range []string{
		tls.URL + "/?to=" + plain.URL, // down to http
		srv.URL + "/?to=file:///etc/passwd",
		srv.URL + "/?to=http://[::1", // not a URL
	} {
		_, _, err := get(t, c, &Request{URL: u})
		var ue *chantal.UpstreamError
		if !errors.As(err, &ue) || ue.Status != 302 {
			t.Errorf("%s: error %v, want an UpstreamError with status 302", u, err)
		}
	}
	circle := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/"+r.URL.Path[2:]+r.URL.Path[1:2], http.StatusFound)
	})
	if _, _, err := get(t, c, &Request{URL: circle.URL + "/abc"}); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("circle: error %v, want one that says so", err)
	}
}

func TestCredentialsStayWithTheirRepositoryAndHost(t *testing.T) {
	seen := map[string]string{}
	var order []string
	note := func(name string, r *http.Request) {
		user, _, isBasic := r.BasicAuth()
		if !isBasic {
			user = r.Header.Get("Authorization")
		}
		seen[name] = user + r.Header.Get("Cookie")
		order = append(order, name)
	}
	var first *httptest.Server
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		note("other", r)
		if r.URL.Path == "/back" {
			http.Redirect(w, r, first.URL+"/end", http.StatusFound)
		}
	})
	first = serve(t, func(w http.ResponseWriter, r *http.Request) {
		note("first"+r.URL.Path, r)
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, other.URL, http.StatusFound)
		case "/here":
			http.Redirect(w, r, "/end", http.StatusFound)
		}
	})
	c := newClient(t, Options{})
	withUser := strings.Replace(first.URL, "http://", "http://alice:pw@", 1)
	c.SetCredentials([]Credential{
		{Repo: "debian", Origin: mustURL(t, first.URL+"/debian"), Username: "alice", Password: "pw"},
		{Repo: "debian", Origin: mustURL(t, first.URL+"/other"), Username: "second", Password: "pw"},
		{Repo: "tokens", Origin: mustURL(t, first.URL), Token: "t0ken"},
		{Repo: "", Origin: mustURL(t, first.URL), Token: "for nobody"},
	})
	own := http.Header{"Authorization": {"Basic Ym9iOnB3"}, "Cookie": {"+c"}} // bob
	for _, tc := range []struct {
		name string
		req  Request
		want map[string]string
	}{
		{"the repository's", Request{Repo: "debian", URL: first.URL + "/x"}, map[string]string{"first/x": "alice"}},
		{"a token", Request{Repo: "tokens", URL: first.URL + "/away"}, map[string]string{"first/away": "Bearer t0ken", "other": ""}},
		{"there and back", Request{Repo: "debian", URL: other.URL + "/back"}, map[string]string{"other": "", "first/end": "alice"}},
		{"another repository's", Request{Repo: "epel", URL: first.URL + "/x"}, map[string]string{"first/x": ""}},
		{"nobody's", Request{URL: first.URL + "/x"}, map[string]string{"first/x": ""}},
		{"another host", Request{Repo: "debian", URL: other.URL}, map[string]string{"other": ""}},
		{"redirected here", Request{Repo: "debian", URL: first.URL + "/here"}, map[string]string{"first/here": "alice", "first/end": "alice"}},
		{"redirected away", Request{Repo: "debian", URL: first.URL + "/away"}, map[string]string{"first/away": "alice", "other": ""}},
		{"in the URL", Request{URL: withUser + "/away"}, map[string]string{"first/away": "alice", "other": ""}},
		{"the client's own", Request{URL: first.URL + "/away", Header: own}, map[string]string{"first/away": "bob+c", "other": ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			clear(seen)
			if _, _, err := get(t, c, &tc.req); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, seen); diff != "" {
				t.Errorf("users (-want +got):\n%s", diff)
			}
		})
	}
	c.SetCredentials(nil)
	clear(seen)
	if _, _, err := get(t, c, &Request{Repo: "debian", URL: first.URL + "/x"}); err != nil || seen["first/x"] != "" {
		t.Errorf("taken away: sent %q, %v", seen["first/x"], err)
	}
}

func TestErrorsDoNotShowUserinfo(t *testing.T) {
	c := newClient(t, Options{})
	for _, r := range []Request{
		{URL: "http://alice:secret@127.0.0.1:1/x"},
		{URL: "http://alice:secret/@127.0.0.1:1/x"},
		{URL: "http://alice:secret%@127.0.0.1:1/x"},
		{URL: "ftp://alice:secret@127.0.0.1:1/x"},
		{URL: "http://alice:secret@127.0.0.1:1/x", Method: "POST"},
	} {
		_, err := c.Fetch(t.Context(), &r)
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "alice") {
			t.Errorf("%s: error is %v", r.URL, err)
		}
	}
}
