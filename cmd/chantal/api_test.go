package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// serveShelf serves the shell's shelf on a socket in its data directory, and
// makes opening that directory fail as it would while serve runs.
func serveShelf(t *testing.T, s *shell, data string) {
	t.Helper()
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := listenSocket(filepath.Join(data, socketName))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: apiHandler(s.shelf, true)}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-done })
}

func TestCommandsAnswerAlikeOverTheSocket(t *testing.T) {
	for _, line := range []string{
		"list --json", "list generations", "list snapshots --json", "list channels", "status --json", "status debian",
		"snapshot create day1 --json --label k=v --note text", "snapshot create taken", "snapshot create late",
		"snapshot show nope", "snapshot show a/b", "snapshot delete nope", "diff day1 day2", "diff day1 live --json --exit-code", "diff day1 nope", "publish gone www", "publish nope www --json",
		"verify", "verify nope", "verify corrupt gone --json", "verify --repair --rebuild corrupt", "explain http://mirror.example.org/a?b=c&d", "ca show", "client apt debian@day1",
	} {
		direct, served := newShell(t), newShell(t)
		served.shelf.asked = nil
		serveShelf(t, served, served.vars["CHANTAL_DATA"])
		open := served.shelf
		served.shelf = nil // whoever opened it would crash
		args := strings.Fields(line)
		wantCode, wantOut, wantErr := direct.run(t.Context(), args...)
		code, out, stderr := served.run(t.Context(), args...)
		if diff := cmp.Diff([]any{wantCode, wantOut, wantErr}, []any{code, out, stderr}); diff != "" {
			t.Errorf("%s: -direct +served\n%s", line, diff)
		}
		if diff := cmp.Diff(direct.shelf.created, open.created); diff != "" {
			t.Errorf("%s: request -direct +served\n%s", line, diff)
		}
	}
}

func TestSocketPathsMayBeLong(t *testing.T) {
	s := newShell(t)
	data := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	serveShelf(t, s, data)
	s.shelf = nil
	if code, out, stderr := s.run(t.Context(), "--data", data, "list", "--json"); code != 0 || !strings.Contains(out, "debian") {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	stat, err := os.Stat(filepath.Join(data, socketName))
	if err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", stat.Mode(), err)
	}
}

func TestStaleSocketMeansNoServer(t *testing.T) {
	s := newShell(t)
	data := s.vars["CHANTAL_DATA"]
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	listener, err := listenSocket(filepath.Join(data, socketName))
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if code, out, stderr := s.run(t.Context(), "list"); code != 0 || !strings.Contains(out, "debian") {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
}

func TestAddressAnswersQuestionsOnly(t *testing.T) {
	s := newShell(t)
	server := httptest.NewServer(apiHandler(s.shelf, false))
	defer server.Close()
	s.vars["CHANTAL_SERVER"] = server.URL
	if code, out, stderr := s.run(t.Context(), "list", "--json"); code != 0 || !strings.Contains(out, "debian") {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	for _, line := range []string{"snapshot create day1", "snapshot delete day1", "snapshot publish live day1", "snapshot merge day2 live day1", "verify"} {
		if code, _, stderr := s.run(t.Context(), strings.Fields(line)...); code != 1 || !strings.Contains(stderr, "chantal.sock") {
			t.Errorf("%s: exit %d, %q", line, code, stderr)
		}
	}
	if s.shelf.created.Name != "" || len(s.shelf.snapshots) != 0 {
		t.Errorf("something was made: %+v", s.shelf.created)
	}
	if _, out, _ := s.run(t.Context(), "client", "dnf", "--proxy"); !strings.Contains(out, "proxy="+server.URL+"\n") {
		t.Errorf("the client is not sent to the server that was named: %s", out)
	}
}

func TestProblems(t *testing.T) {
	for _, test := range []struct {
		method, path, body string
		writable           bool
		status             int
	}{
		{"GET", "nothing", "", true, 404},
		{"GET", "snapshots/nope", "", false, 404},
		{"GET", "repos/debian", "", false, 404},
		{"PUT", "snapshots", "", true, 405},
		{"POST", "repos", "", true, 405},
		{"POST", "snapshots", "{}", false, 403},
		{"POST", "verify", "{}", false, 403},
		{"POST", "verify", "nonsense", true, 400},
		{"POST", "verify/x", "{}", true, 405},
		{"DELETE", "verify", "", true, 405},
		{"GET", "verify", "", true, 404},
		{"DELETE", "snapshots/x", "", false, 403},
		{"POST", "snapshots", `{"nmae":"x"}`, true, 400},
		{"POST", "snapshots", `{"name":"taken"}`, true, 409},
		{"DELETE", "snapshots", "", true, 400},
		{"DELETE", "snapshots/nope", "", true, 404},
	} {
		w := httptest.NewRecorder()
		apiHandler(newShelf(), test.writable).ServeHTTP(w, httptest.NewRequest(test.method, apiPrefix+test.path, strings.NewReader(test.body)))
		var p problem
		err := json.Unmarshal(w.Body.Bytes(), &p)
		if w.Code != test.status || err != nil || p.Status != test.status || p.Detail == "" || p.Next == "" || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d %s, %v", test.method, test.path, w.Code, w.Body, err)
		}
	}
}

func TestServerThatEndsEarlyIsAFailure(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"progress":"waiting"}` + "\n"))
	}))
	defer server.Close()
	r, err := newRemote(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var lines []string
	_, err = r.CreateSnapshot(t.Context(), createRequest{Name: "x"}, func(line string) { lines = append(lines, line) })
	var f *failure
	if !errors.As(err, &f) || !strings.Contains(f.Message, "ended before") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"waiting"}, lines); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestInterruptReachesTheServer(t *testing.T) {
	s := newShell(t)
	serveShelf(t, s, s.vars["CHANTAL_DATA"])
	shelf := s.shelf
	s.shelf = nil
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-shelf.entered
		cancel()
	}()
	if code, _, stderr := s.run(ctx, "snapshot", "create", "never"); code != 130 {
		t.Errorf("exit %d, %q", code, stderr)
	}
	<-shelf.left
}

func TestSomethingElseThanChantalIsTold(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	s := newShell(t)
	code, _, stderr := s.run(t.Context(), "list", "--server", server.URL)
	if host, _, _ := net.SplitHostPort(strings.TrimPrefix(server.URL, "http://")); code != 1 || !strings.Contains(stderr, host) || !strings.Contains(stderr, "404") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
