package config

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chantal"
)

var update = flag.Bool("update", false, "write the golden files")

// environment answers from a map.
func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

var comparePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// Each NAME.yaml has the mistakes that NAME.err lists; a file without any has
// no NAME.err.
func TestMistakesAreAllReportedWithTheirPositions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	getenv := environment(map[string]string{"SET": "debian"})
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".err"
			got := ""
			if _, err := Parse(name, text, getenv); err != nil {
				var list Errors
				if !errors.As(err, &list) {
					t.Fatalf("not Errors: %T", err)
				}
				got = err.Error() + "\n"
			}
			if *update && got != "" {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestEverySettingIsRead(t *testing.T) {
	text, err := os.ReadFile("testdata/contract.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("chantal.yaml", text, environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		File: "chantal.yaml", Listen: "127.0.0.1:8180", Data: "/var/lib/chantal",
		Listeners: []Listener{{Address: "127.0.0.1:8181", Ref: "prod"}},
		Clients:   prefixes("127.0.0.0/8", "::1/128", "10.0.0.0/8"),
		History:   30 * 24 * time.Hour,
		Cache:     Cache{MaxSize: 200 << 30},
		Forward:   Forward{Discover: true, Other: Deny, Connect: Tunnel, Intercept: Off},
		Egress:    Egress{AllowPrivate: prefixes("10.1.0.0/16")},
		Download:  Download{Parallel: 8, PerHost: 4, Bandwidth: []Bandwidth{{To: day, Rate: 50 << 20}}, Retries: 5, Timeout: 30 * time.Second},
		Scrub:     Scrub{Every: 30 * 24 * time.Hour, Bandwidth: 10 << 20},
		GC:        GC{Every: 24 * time.Hour},
		Repos: []Repo{
			{
				Name: "debian", Type: Apt, Refresh: time.Minute,
				Upstream: []string{"http://mirror-a.example.org/debian", "http://mirror-b.example.org/debian"},
				Keyring:  "/usr/share/keyrings/debian-archive-keyring.gpg",
				Sync: &Sync{
					Selection: chantal.Selection{
						Suites: []string{"bookworm"}, Components: []string{"main"}, Architectures: []string{"amd64"}, Packages: []string{"nginx*"},
					},
					Every: 6 * time.Hour,
				},
			},
			{
				Name: "epel", Type: RPM, Refresh: time.Minute,
				Upstream: []string{"https://mirror.example.org/epel/9/Everything/x86_64/"},
				Keyring:  "/etc/pki/rpm-gpg/RPM-GPG-KEY-example",
				Sync:     &Sync{Selection: chantal.Selection{Packages: []string{"htop"}, Exclude: []string{"*-debuginfo"}, Newest: 1}},
			},
			{
				Name: "pypi", Type: PyPI, Refresh: time.Minute,
				Upstream: []string{"https://index.example.org/simple/"},
				Files:    []string{"https://files.example.org"},
				Sync: &Sync{Selection: chantal.Selection{
					Projects: []string{"six", "flask>=3"}, Wheels: true, Sdists: true,
					Python: []string{"cp311", "py3"}, Platforms: []string{"any", "manylinux*_x86_64"},
				}},
			},
		},
	}
	if diff := cmp.Diff(want, got, comparePrefix); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestMarshalReadsBack(t *testing.T) {
	text, err := os.ReadFile("testdata/contract.yaml")
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"contract": string(text), "full": string(full), "nothing": "", "scrub": "scrub: {every: 0s, bandwidth: 0}\n", "sizes": "cache: {max_size: 1000}\nhistory: 36h30m\nclients: []\n",
		"a list":   "repos: [{name: r, type: rpm, metalink: 'https://mirrors.example.org/metalink?repo=r&arch=x', list_refresh: 1h}]",
		"no hosts": "repos: [{name: p, type: pypi, upstream: 'https://index.example.org/', files: []}]",
	} {
		t.Run(name, func(t *testing.T) {
			want, err := Parse("f", []byte(text), environment(nil))
			if err != nil {
				t.Fatal(err)
			}
			shown, err := want.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse("f", shown, environment(nil))
			if err != nil {
				t.Fatalf("%v in\n%s", err, shown)
			}
			if diff := cmp.Diff(want, got, comparePrefix, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(ListFile{}, "Line", "Column")); diff != "" {
				t.Errorf("-want +got\n%s\n%s", diff, shown)
			}
			if strings.Contains(text, "files: []") && got.Repos[0].Files == nil {
				t.Errorf("no other hosts allowed became any host allowed:\n%s", shown)
			}
		})
	}
}

func TestMarshalHasNoPasswords(t *testing.T) {
	c, err := Parse("f", []byte(`egress: {proxy: "http://me:secret@proxy.example.org:3128"}
repos:
  - {name: p, type: pypi, upstream: "https://me:secret@index.example.org/"}
  - {name: q, type: pypi, upstream: "https://secret@index.example.org/", credentials: {username: secret, password: secret}}
  - {name: r, type: pypi, upstream: "https://index.example.org/", credentials: {token: secret}, files: "https://a:secret@files.example.org"}
  - {name: l, type: rpm, metalink: "https://me:secret@mirrors.example.org/metalink?repo=r"}
`), environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	json, err := c.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{string(text), string(json)} {
		if strings.Contains(shown, "secret") || !strings.Contains(shown, "index.example.org") {
			t.Errorf("shown as\n%s", shown)
		}
	}
}

func TestVariablesExpandInValuesOnly(t *testing.T) {
	text := `# ${UNSET} in a comment is no mistake
listen: ${HOST:-0.0.0.0}:${PORT}
data: "${HOME}/${EMPTY:-}x"
clients: [${NET:-10.0.0.0/8}, ${LOOP}]
repos:
  - {name: "${NAME}", type: generic, upstream: ${UP}}
`
	_, err := Parse("f", []byte(text), environment(map[string]string{
		"PORT": "81", "HOME": "/home/me", "LOOP": "::1", "NAME": "files", "UP": "http://mirror.example.org/{x}/# y",
	}))
	if err == nil {
		t.Fatal("a URL with a fragment was accepted")
	}
	c, err := Parse("f", []byte(text), environment(map[string]string{
		"PORT": "81", "HOME": "/home/me", "LOOP": "::1", "NAME": "files", "UP": "http://mirror.example.org/%7Bx: y",
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Listen, c.Data, c.Clients[0].String(), c.Clients[1].String(), c.Repos[0].Name, c.Repos[0].Upstream[0]}
	want := []string{"0.0.0.0:81", "/home/me/x", "10.0.0.0/8", "::1/128", "files", "http://mirror.example.org/%7Bx: y"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestKeysWithoutValueLeaveTheDefault(t *testing.T) {
	got, err := Parse("f", []byte("listen:\nforward:\nclients:\nrepos:\nhistory: ''\n"), environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.File = "f"
	if diff := cmp.Diff(want, got, comparePrefix); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30d": 30 * day, "1m": time.Minute, "6h": 6 * time.Hour, "1d12h": 36 * time.Hour, "2w": 14 * day, "0": 0, "1.5h": 90 * time.Minute,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
		if got, err := parseDuration(showDuration(want)); err != nil || got != want {
			t.Errorf("%v is shown as %q, which reads as %v, %v", want, showDuration(want), got, err)
		}
	}
	for _, text := range []string{"", "30", "d", "-1d", "1d-2h", "-5m", "999999999999d", "30 d", "1y"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q reads as %v", text, got)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, test := range []struct {
		word, want string
		near       bool
	}{{"upstreem", "upstream", true}, {"naem", "name", true}, {"xyzzy", "type", false}, {"Upstream", "upstream", true}} {
		got, near := Nearest(test.word, []string{"name", "type", "upstream"})
		if near != test.near || (test.near && got != test.want) || got == "" {
			t.Errorf("%q: got %q, %v", test.word, got, near)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text, func(name string) string { return strings.ToLower(name) })
		if (c == nil) == (err == nil) {
			t.Errorf("got %v and %v", c, err)
		}
	})
}

func TestMessagesHaveNoSecrets(t *testing.T) {
	text, err := os.ReadFile("testdata/secrets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("f", text, environment(nil))
	if err == nil || strings.Contains(err.Error(), "s3") || strings.Contains(err.Error(), "cret@") {
		t.Errorf("messages are\n%v", err)
	}
}

func TestTheEnvironmentIsTheDefaultOfEgress(t *testing.T) {
	env := environment(map[string]string{"NETRC": "/home/me/.netrc", "no_proxy": "localhost, .example.org"})
	for text, want := range map[string]Egress{
		"": {Netrc: []string{"/home/me/.netrc"}, NoProxy: []string{"localhost", ".example.org"}},
		"egress: {netrc: [/etc/chantal/netrc], no_proxy: [], proxy: 'http://me:pw@proxy.example.org:3128'}": {
			Netrc: []string{"/etc/chantal/netrc"}, NoProxy: []string{}, Proxy: "http://me:pw@proxy.example.org:3128",
		},
		"egress: {netrc: []}": {Netrc: []string{}, NoProxy: []string{"localhost", ".example.org"}},
	} {
		c, err := Parse("f", []byte(text), env)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, c.Egress); diff != "" {
			t.Errorf("%q -want +got\n%s", text, diff)
		}
	}
}

func TestScrub(t *testing.T) {
	got, err := Parse("chantal.yaml", []byte("scrub: {every: 7d, bandwidth: 1MiB/s}"), environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Scrub{Every: 7 * 24 * time.Hour, Bandwidth: 1 << 20}); got.Scrub != want {
		t.Errorf("got %+v, want %+v", got.Scrub, want)
	}
}
