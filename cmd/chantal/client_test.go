package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func TestClientLines(t *testing.T) {
	golden, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for name, line := range map[string]string{
		"apt":            "client apt",
		"apt-ref":        "client apt debian@2026-11-23T08:15:00Z",
		"apt-unseen":     "client apt new",
		"apt-edition":    "client apt debian@web",
		"apt-signed":     "client apt debian@prod+signed",
		"dnf-edition":    "client dnf @web",
		"apt-proxy":      "client apt --proxy",
		"apt-proxy-ref":  "client apt debian@2026-11-23T08:15:00Z --proxy",
		"apt-snapshots":  "client apt --snapshots",
		"dnf":            "client dnf",
		"dnf-ref":        "client dnf epel@prod",
		"dnf-proxy":      "client dnf --proxy",
		"dnf-proxy-ref":  "client dnf @prod --proxy",
		"dnf-proxy-repo": "client dnf epel@live~build-4711 --proxy",
		"pip":            "client pip",
		"pip-ref":        "client pip pypi@day1",
		"pip-proxy":      "client pip @day1 --proxy",
		"uv":             "client uv",
		"uv-proxy":       "client uv @day1 --proxy",
	} {
		t.Run(name, func(t *testing.T) {
			s := newShell(t)
			s.shelf.snapshots["web"] = snapshotReport{Name: "web", Repos: []snapshotRepo{{Repo: "debian", Edition: true}, {Repo: "epel", Edition: true}}}
			code, got, stderr := s.run(t.Context(), strings.Fields(line)...)
			if code != 0 || stderr != "" {
				t.Fatalf("exit %d, %s", code, stderr)
			}
			file := filepath.Join(golden, name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestClientAddress(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ running, config, want string }{
		{"127.0.0.1:9999", "", "http://127.0.0.1:9999"},
		{"", "listen: 127.0.0.1:81", "http://127.0.0.1:81"},
		{"", "", "http://127.0.0.1:8180"},
		{"[::1]:8180", "", "http://[::1]:8180"},
		{"0.0.0.0:8180", "", "http://" + host + ":8180"},
		{"[::]:8180", "", "http://" + host + ":8180"},
		{":8180", "", "http://" + host + ":8180"},
	} {
		s := newShell(t)
		s.shelf.listen = test.running
		if err := os.WriteFile("chantal.yaml", []byte(test.config), 0o644); err != nil {
			t.Fatal(err)
		}
		_, got, stderr := s.run(t.Context(), "client", "dnf", "epel")
		if !strings.Contains(got, "baseurl="+test.want+"/epel/\n") {
			t.Errorf("%+v: got %s%s", test, got, stderr)
		}
	}
}

func TestBannerNamesEveryClient(t *testing.T) {
	got := banner("127.0.0.1:8180")
	for _, want := range []string{"apt ", "dnf ", "pip ", "uv ", `Acquire::http::Proxy "http://127.0.0.1:8180";`, "proxy=http://127.0.0.1:8180"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
