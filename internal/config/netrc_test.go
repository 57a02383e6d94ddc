package config

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const netrc = `# comment with machine mirror.example.org login no password no
machine mirror.example.org login alice password s3cret
	machine	index.example.org
	  login bob
	  account ignored
	  password "a \"b\\ # c"
macdef init
machine macro.example.org login no password no

machine half.example.org
machine ports.example.org:8080 login eighty password p
machine https://tls.example.org login tls password p
machine paths.example.org/deb login deb password p
machine paths.example.org/rpm/el9/ login rpm password p
machine MIRROR.example.org login second password p
unknown words machine token.example.org password only
default login anybody password p
`

func TestNetrcEntriesAreForTheirHosts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(path, []byte(netrc), 0o600); err != nil {
		t.Fatal(err)
	}
	n, open, err := LoadNetrc([]string{path})
	if err != nil || len(open) > 0 {
		t.Fatalf("open to others %v, %v", open, err)
	}
	for raw, want := range map[string]Credentials{
		"http://mirror.example.org/debian":       {Username: "alice", Password: "s3cret"},
		"https://Mirror.Example.ORG:8443/debian": {Username: "alice", Password: "s3cret"},
		"https://index.example.org/simple/":      {Username: "bob", Password: `a "b\ # c`},
		"http://macro.example.org/":              {},
		"http://half.example.org/":               {},
		"http://ports.example.org:8080/":         {Username: "eighty", Password: "p"},
		"http://ports.example.org/":              {},
		"https://tls.example.org/":               {Username: "tls", Password: "p"},
		"http://tls.example.org/":                {},
		"http://paths.example.org/deb/":          {Username: "deb", Password: "p"},
		"http://paths.example.org/debian":        {},
		"http://paths.example.org/rpm/el9":       {Username: "rpm", Password: "p"},
		"http://paths.example.org/":              {},
		"http://token.example.org/":              {Password: "only"},
		"http://a.mirror.example.org/":           {},
		"http://other.example.org/":              {}, // default is for nobody
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, n.Find(u)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", raw, diff)
		}
	}
}

func TestNetrcFilesThatOthersMayReadAreNamed(t *testing.T) {
	dir := t.TempDir()
	closed, open := filepath.Join(dir, "closed"), filepath.Join(dir, "open")
	for path, mode := range map[string]os.FileMode{closed: 0o640, open: 0o644} {
		if err := os.WriteFile(path, []byte("machine mirror.example.org login "+filepath.Base(path)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	n, named, err := LoadNetrc([]string{open, closed})
	if diff := cmp.Diff([]string{open}, named); err != nil || diff != "" {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	if got := n.Find(&url.URL{Scheme: "http", Host: "mirror.example.org"}); got.Username != "open" {
		t.Errorf("the entry of the second file came first: %v", got.Username)
	}
	if _, _, err := LoadNetrc([]string{filepath.Join(dir, "none")}); err == nil {
		t.Error("a file that is not there was read")
	}
}

func FuzzNetrc(f *testing.F) {
	f.Add(netrc)
	f.Add(`machine "`)
	f.Add("macdef")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseNetrc(text) {
			m.covers(&url.URL{Scheme: "http", Host: "mirror.example.org", Path: "/debian"})
		}
	})
}
