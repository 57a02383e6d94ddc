package e2e

import (
	"bytes"
	compare "cmp"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"chantal"
	aptformat "chantal/plugins/apt"
	"chantal/plugins/formattest"
	pypiformat "chantal/plugins/pypi"
	rpmformat "chantal/plugins/rpm"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// versionPairs returns pairs of versions that are made of the given pieces.
// Most differ in one piece, for those that have nothing in common need no rules
// to be told apart. They are the same in every run.
func versionPairs(n int, pieces []string) [][2]string {
	random := rand.New(rand.NewPCG(2026, uint64(len(pieces))))
	piece := func() string { return pieces[random.IntN(len(pieces))] }
	pairs := make([][2]string, 0, n)
	for range n {
		a := []string{strconv.Itoa(random.IntN(3))}
		for range random.IntN(6) {
			a = append(a, piece())
		}
		b := append([]string(nil), a...)
		for range 1 + random.IntN(2) {
			at := random.IntN(len(b))
			switch random.IntN(3) {
			case 0:
				b[at] = piece()
			case 1:
				b = append(b[:at+1], append([]string{piece()}, b[at+1:]...)...)
			case 2:
				b = b[:at+1]
			}
		}
		pairs = append(pairs, [2]string{strings.Join(a, ""), strings.Join(b, "")})
	}
	return pairs
}

// compareAll has a tool compare pairs: it gets them as lines of two words, and
// prints for each -1, 0, 1, or "?" where one of the two is no version.
func compareAll(t *testing.T, f chantal.Comparer, pairs [][2]string, cmd func(file string) *exec.Cmd) {
	t.Helper()
	var lines bytes.Buffer
	for _, p := range pairs {
		lines.WriteString(p[0] + " " + p[1] + "\n")
	}
	file := filepath.Join(t.TempDir(), "pairs")
	if err := os.WriteFile(file, lines.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	c := cmd(file)
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(pairs) {
		t.Fatalf("%d answers to %d pairs\n%s", len(answers), len(pairs), stderr.Bytes())
	}
	said := make(map[string]int)
	for i, want := range answers {
		said[want]++
		got := strconv.Itoa(compare.Compare(f.CompareVersions(pairs[i][0], pairs[i][1]), 0))
		if want != "?" && got != want {
			t.Errorf("%q to %q is %s, and %s says %s", pairs[i][0], pairs[i][1], got, filepath.Base(c.Path), want)
		}
	}
	t.Logf("%v", said)
	if said["-1"] < len(pairs)/8 || said["1"] < len(pairs)/8 || said["0"] < len(pairs)/100 || said["?"] > len(pairs)/2 {
		t.Errorf("the pairs prove little: %v", said)
	}
}

// dpkg is asked once for each pair, whether it agrees; only where it does not
// it is asked more.
func TestVersionsCompareAsDpkgHasIt(t *testing.T) {
	t.Parallel()
	program(t, "dpkg", exec.LookPath)
	f := new(aptformat.Format)
	pairs := versionPairs(2500, []string{"0", "1", "9", "10", "01", ".", ".", "-", "~", "+", "a", "b", "rc", "Z", ".0", "~rc1",
		"+dfsg", "-1", "-0ubuntu1", "+deb12u1", "~bpo12+1", "+b1"})
	for i, p := range pairs {
		if i%3 == 0 {
			pairs[i] = [2]string{strconv.Itoa(i%2) + ":" + p[0], "0:" + p[1]}
		}
		for j, v := range pairs[i] {
			if strings.HasSuffix(v, "-") { // dpkg would refuse it
				pairs[i][j] = v + "2"
			}
		}
	}
	installed, err := exec.CommandContext(t.Context(), "dpkg-query", "-W", "-f", `${Version}\n`).Output()
	if err != nil {
		t.Fatal(err)
	}
	recorded := strings.Fields(string(installed))
	for i := range min(len(recorded)-1, 500) {
		pairs = append(pairs, [2]string{recorded[i], recorded[i+1]})
	}
	compareAll(t, f, pairs, func(file string) *exec.Cmd {
		guessed, err := os.Create(file + ".guessed")
		if err != nil {
			t.Fatal(err)
		}
		defer guessed.Close()
		for _, p := range pairs {
			c := compare.Compare(f.CompareVersions(p[0], p[1]), 0)
			if _, err := guessed.WriteString(p[0] + " " + [...]string{"lt -1", "eq 0", "gt 1"}[c+1] + " " + p[1] + "\n"); err != nil {
				t.Fatal(err)
			}
		}
		return exec.CommandContext(t.Context(), "sh", "-c", `while read -r a op n b; do
			if dpkg --compare-versions "$a" $op "$b"; then echo $n
			elif dpkg --compare-versions "$a" lt "$b"; then echo -1
			elif dpkg --compare-versions "$a" eq "$b"; then echo 0
			else echo 1; fi
		done <"$0"`, guessed.Name())
	})
}

func TestVersionsCompareAsRPMHasIt(t *testing.T) {
	t.Parallel()
	program(t, "rpm", exec.LookPath)
	pairs := versionPairs(20000, []string{"0", "1", "9", "10", "01", ".", ".", "_", "~", "^", "+", "a", "b", "rc", "Z", ".0", "~rc1",
		"^git1", ".el9", "-1", "-2.el9", "-1.el9_3", ".fc40", "%", "é"})
	for i, p := range pairs {
		if i%3 == 0 {
			pairs[i] = [2]string{strconv.Itoa(i%2) + ":" + p[0], "0:" + p[1]}
		}
	}
	compareAll(t, rpmformat.Format{}, pairs, func(file string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "rpm", "--eval", `%{lua:
			for line in io.lines("`+file+`") do
				local a, b = string.match(line, "^(%S+) (%S+)$")
				local known, order = pcall(rpm.vercmp, a, b)
				print((known and order or "?") .. "\n")
			end}`)
	})
}

func TestVersionsCompareAsPackagingHasIt(t *testing.T) {
	t.Parallel()
	python := program(t, "python3", python)
	pairs := versionPairs(20000, []string{".0", ".1", ".9", ".10", "0", "01", "a1", "b2", "rc1", "rc2", "-alpha.3", "_BETA", "c1", "preview",
		".post1", "-1", "-rev2", ".post", ".dev0", ".dev3", "-dev", "+local", "+a.1", ".a", "+7", "-x"})
	for i, p := range pairs {
		if i%5 == 0 {
			pairs[i] = [2]string{strconv.Itoa(i%2) + "!" + p[0], "0!v" + p[1]}
		}
	}
	compareAll(t, pypiformat.Format{}, pairs, func(file string) *exec.Cmd {
		return exec.CommandContext(t.Context(), python, "-c", `
import sys
from pip._vendor.packaging.version import Version, InvalidVersion

def version(s):
    try:
        return Version(s)
    except InvalidVersion:
        return None

for line in open(sys.argv[1]):
    a, b = map(version, line.split())
    if a is None and b is None:
        print("?")
    elif a is None or b is None:
        print(1 if b is None else -1)
    else:
        print((a > b) - (a < b))
`, file)
	})
}

// Of files of a project those belong to a selection whose versions packaging's
// specifiers admit, pre-releases included or not. Its releases differ in what
// ">" says of versions that have something behind the very release it names.
func TestSpecifiersAdmitWhatPackagingAdmits(t *testing.T) {
	t.Parallel()
	python := program(t, "python3", python)
	pieces := []string{".0", ".1", ".2", ".10", "a1", "rc1", "rc2", ".post1", ".post2", ".dev0", ".dev3", "+local", "+a.1"}
	var versions []string
	seen := map[string]bool{}
	for _, p := range versionPairs(4000, pieces) {
		for _, v := range p {
			if _, err := pypiSelected("=="+v, nil); err == nil && !seen[v] {
				seen[v] = true
				versions = append(versions, v)
			}
		}
	}
	random := rand.New(rand.NewPCG(2026, 7))
	operators := []string{"==", "!=", "<=", ">=", "<", ">", "~=", "==*", "!=*", ">=1,<", "!=1.0,>", "==="}
	var lines bytes.Buffer
	const specs = 600
	for range specs {
		v := versions[random.IntN(len(versions))]
		if random.IntN(2) == 0 {
			v = strconv.Itoa(random.IntN(3)) + "." + strconv.Itoa(random.IntN(2))
		}
		spec := operators[random.IntN(len(operators))] + v
		if op, ok := strings.CutSuffix(spec[:len(spec)-len(v)], "*"); ok {
			spec = op + v + ".*"
		}
		offered := make([]string, 30)
		for i := range offered {
			offered[i] = versions[random.IntN(len(versions))]
		}
		lines.WriteString(spec + " " + strings.Join(offered, " ") + "\n")
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", `
import re, sys
from pip._vendor.packaging.specifiers import SpecifierSet, InvalidSpecifier
from pip._vendor.packaging.version import Version
for line in sys.stdin:
    spec, *versions = line.split()
    above = [Version(v).base_version for v in re.findall(r">([^=,]+)", spec)]
    versions = [v for v in versions if Version(v).base_version not in above]
    try:
        print(*sorted(set(SpecifierSet(spec).filter(versions))), sep=" ", end=" of ")
        print(*versions)
    except InvalidSpecifier:
        print("no specifier of")
`)
	cmd.Stdin = bytes.NewReader(lines.Bytes())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	filled := 0
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	for i, line := range strings.Split(strings.TrimSuffix(lines.String(), "\n"), "\n") {
		spec, _, _ := strings.Cut(line, " ")
		want, offered, _ := strings.Cut(answers[i], "of")
		got, err := pypiSelected(spec, strings.Fields(offered))
		if err != nil {
			got = []string{"no", "specifier"}
		}
		if diff := cmp.Diff(strings.Fields(want), got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s of %s (-packaging +got):\n%s", spec, offered, diff)
		}
		if len(got) > 0 && err == nil {
			filled++
		}
	}
	if filled < specs/2 {
		t.Errorf("only %d of %d specifiers admit anything", filled, specs)
	}
}

// pypiSelected returns which of the versions a specifier admits, sorted.
func pypiSelected(specifier string, versions []string) ([]string, error) {
	sel := &chantal.Selection{Projects: []string{"x" + specifier}, Sdists: true}
	page := `{"meta":{"api-version":"1.0"},"name":"x","files":[`
	for i, v := range versions {
		if i > 0 {
			page += ","
		}
		page += `{"filename":"x-` + v + `.tar.gz","url":"https://files.example.org/x-` + v + `.tar.gz","hashes":{}}`
	}
	f := pypiformat.Format{}
	tree := f.Classify("simple/x/").Tree
	c := &formattest.Memory{Format: f, Of: tree, Files: map[string][]byte{tree.Roots[0]: []byte(page + "]}")}}
	belongs, err := f.Artifacts(sel, c)
	if err != nil {
		return nil, err
	}
	var held []string
	for _, p := range c.Listed() {
		if belongs(&p) {
			held = append(held, strings.TrimSuffix(p.Path[strings.Index(p.Path, "/x-")+3:], ".tar.gz"))
		}
	}
	slices.Sort(held)
	return slices.Compact(held), nil
}
