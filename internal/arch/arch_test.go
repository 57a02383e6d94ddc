package arch

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestEveryPackageKeepsItsLayer(t *testing.T) {
	root := os.DirFS("../..")
	if _, err := root.Open("go.mod"); err != nil {
		t.Fatalf("this is not the module's root: %v", err)
	}
	broken, err := Check(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range broken {
		t.Error(b)
	}
}

// Each case is a file that breaks a rule, or just does not.
func TestCheckSeesWhatIsForbidden(t *testing.T) {
	for _, tc := range []struct {
		file, imports string
		want          []string // what is forbidden
	}{
		{"plugins/apt/apt.go", "bytes chantal", nil},
		{"plugins/apt/apt.go", "chantal/internal/fetch", []string{"chantal/internal/fetch"}},
		{"plugins/apt/apt.go", "chantal/plugins/rpm", []string{"chantal/plugins/rpm"}},
		{"plugins/apt/apt.go", "chantal/plugins/formattest", []string{"chantal/plugins/formattest"}},
		{"plugins/apt/apt_test.go", "os chantal/plugins/formattest", nil},
		{"plugins/apt/apt_test.go", "chantal/mirror", []string{"chantal/mirror"}},
		{"plugins/apt/apt_test.go", "chantal/plugins/apt", nil}, // an external test of the package itself
		{"plugins/rpm/rpm.go", "os", []string{"os"}},
		{"plugins/rpm/rpm.go", "net/http", []string{"net/http"}},
		{"plugins/rpm/rpm.go", "net/url", nil},
		{"plugins/new/new.go", "chantal", []string{"not in the table"}},
		{"internal/cas/store.go", "chantal chantal/internal/disk", nil},
		{"internal/cas/store.go", "os", []string{"os"}},
		{"internal/catalog/db.go", "os", []string{"os"}},
		{"internal/disk/disk.go", "os", nil},
		{"internal/cas/store.go", "chantal/internal/catalog", []string{"chantal/internal/catalog"}},
		{"internal/cas/store.go", "go.etcd.io/bbolt", []string{"go.etcd.io/bbolt"}},
		{"internal/catalog/db.go", "go.etcd.io/bbolt go.etcd.io/bbolt/errors", nil},
		{"mirror/open.go", "chantal/internal/cas chantal/internal/catalog chantal/internal/fetch", nil},
		{"mirror/open.go", "net/http chantal/proxy", []string{"net/http", "chantal/proxy"}},
		{"mirror/open.go", "os/exec", []string{"os/exec"}},
		{"mirror/open_test.go", "os net/http chantal/internal/testenv", nil},
		{"snapshot/create.go", "chantal/mirror", []string{"chantal/mirror"}},
		{"proxy/connect.go", "github.com/elazarl/goproxy", nil},
		{"proxy/handler.go", "github.com/elazarl/goproxy", []string{"github.com/elazarl/goproxy"}},
		{"proxy/ca.go", "os", nil},
		{"proxy/handler.go", "os", []string{"os"}},
		{"proxy/handler.go", "chantal/internal/cas", []string{"chantal/internal/cas"}},
		{"proxy/handler.go", "github.com/urfave/cli/v2", []string{"github.com/urfave/cli/v2"}},
		{"cmd/chantal/main.go", "os github.com/urfave/cli/v2 chantal/mirror chantal/internal/sign", nil},
		{"cmd/chantal/main.go", "go.etcd.io/bbolt", []string{"go.etcd.io/bbolt"}},
		{"chantal.go", "net/url", nil},
		{"chantal.go", "golang.org/x/sync/errgroup", []string{"golang.org/x/sync/errgroup"}},
		{"chantal.go", "chantal/mirror", []string{"chantal/mirror"}},
		{"mirror/testdata/x.go", "chantal/proxy", nil},
		{".venv/x.go", "chantal/proxy", nil},
	} {
		source := "package p\n"
		for p := range strings.FieldsSeq(tc.imports) {
			source += "import _ \"" + p + "\"\n"
		}
		broken, err := Check(fstest.MapFS{tc.file: {Data: []byte(source)}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, b := range broken {
			name, rest, _ := strings.Cut(b, " ")
			if i < len(tc.want) && strings.TrimSuffix(name, ":") == tc.file && strings.Contains(rest, tc.want[i]) {
				b = tc.want[i]
			}
			got = append(got, b)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s importing %s (-want +got):\n%s", tc.file, tc.imports, diff)
		}
	}
}

func TestNothingGoesAroundTheSeamToTheDisk(t *testing.T) {
	for _, tc := range []struct {
		file, imports, code, want string
	}{
		{"internal/cas/a.go", `"path/filepath"`, `var _ = filepath.Join("a", "b")`, ""},
		{"internal/cas/a.go", `"path/filepath"`, `var _ = filepath.WalkDir`, "filepath.WalkDir"},
		{"internal/catalog/a.go", `"path/filepath"`, `var _ = filepath.Glob`, "filepath.Glob"},
		{"internal/cas/a_test.go", `"path/filepath"`, `var _ = filepath.WalkDir`, ""},
		{"internal/cas/a.go", `"syscall"`, `var _ syscall.Stat_t`, ""},
		{"internal/cas/a.go", `"syscall"`, `func f() { syscall.Unlink("x") }`, "syscall.Unlink"},
		{"internal/cas/a.go", `"golang.org/x/sys/unix"`, `var _ = unix.Rename`, "unix.Rename"},
		{"internal/cas/a.go", `fp "path/filepath"`, `var _ = fp.WalkDir`, "another name"},
		{"internal/cas/a.go", `. "path/filepath"`, `var _ = WalkDir`, "another name"},
		{"internal/config/a.go", `"path/filepath"`, `var _ = filepath.WalkDir`, ""},
	} {
		source := "package p\nimport " + tc.imports + "\n" + tc.code + "\n"
		broken, err := Check(fstest.MapFS{tc.file: {Data: []byte(source)}})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(broken, "\n"); (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s with %s: got %q, want something about %q", tc.file, tc.code, got, tc.want)
		}
	}
}

func TestCheckReportsFilesThatCannotBeRead(t *testing.T) {
	if _, err := Check(fstest.MapFS{"chantal.go": {Data: []byte("no Go at all")}}); err == nil {
		t.Error("got no error for a file that does not parse")
	}
}
