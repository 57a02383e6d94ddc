package formattest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"chantal"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// lines is a format whose only index, "index", names one file a line and ends
// in "end". Its fields break one law each.
type lines struct {
	anyPath  bool // take any path
	goesOn   bool // go on after an error
	deaf     bool // take any end
	loseRoot bool // leave the root out of its tree
}

func (f lines) Classify(p string) chantal.Class {
	if p != "index" {
		return chantal.Class{Kind: chantal.Artifact, Path: p}
	}
	c := chantal.Class{Kind: chantal.Root, Path: p, Tree: chantal.Tree{Name: ".", Roots: []string{"index"}}}
	if f.loseRoot {
		c.Tree.Roots = []string{"other"}
	}
	return c
}

func (lines) Check(chantal.Tree, map[string][]byte, chantal.Keyring, time.Time) (chantal.Verdict, error) {
	return chantal.Verdict{}, nil
}

func (f lines) Parse(p string, r io.Reader) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		content, err := io.ReadAll(r)
		if err == nil && !f.deaf && !strings.HasSuffix(string(content), "end") {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			if yield(chantal.Promise{}, err) && f.goesOn {
				yield(chantal.Promise{}, err)
			}
			return
		}
		for name := range strings.Lines(string(content)) {
			name = strings.TrimSuffix(name, "\n")
			if name == "end" {
				return
			}
			if !f.anyPath && !ValidPath(name) {
				yield(chantal.Promise{}, errors.New("bad path"))
				return
			}
			if !yield(chantal.Promise{Path: name, Kind: chantal.Artifact, Size: -1}, nil) {
				return
			}
		}
	}
}

// spelled is a format that knows one file under three names.
type spelled struct{ lines }

func (spelled) Classify(p string) chantal.Class {
	c := chantal.Class{Kind: chantal.Artifact, Path: "x"}
	switch p {
	case "by-digest/x":
		c.Digest = chantal.Digest("sha256:" + strings.Repeat("0", 64))
	case "other/x":
		c.Kind = chantal.Meta
	}
	return c
}

func TestAFormatThatKeepsTheLaws(t *testing.T) {
	content := []byte("a/b\nc\nend")
	Test(t, lines{}, Fixtures{
		Files:   []File{{Path: "index", Content: content, Want: 2, Cuts: Cuts(content, 20)}},
		Paths:   []string{"a/b"},
		Hostile: func(name string) (string, []byte) { return "index", []byte(name + "\nend") },
	})
}

func TestBrokenLawsAreNoticed(t *testing.T) {
	if _, err := collect(lines{anyPath: true}, "index", strings.NewReader("../x\nend")); !isLaw(err) {
		t.Errorf("a path that leaves the repository: got %v", err)
	}
	if _, err := collect(lines{goesOn: true}, "index", strings.NewReader("x")); !isLaw(err) {
		t.Errorf("a second error: got %v", err)
	}
	if _, err := collect(lines{}, "index", strings.NewReader("x")); err == nil || isLaw(err) {
		t.Errorf("an error of Parse itself: got %v", err)
	}
	if err := CheckClassify(lines{loseRoot: true}, "index"); err == nil {
		t.Error("a root that is not in its tree: no error")
	}
	if err := CheckClassify(spelled{}, "by-digest/x"); err != nil {
		t.Errorf("a spelling that names a digest: %v", err)
	}
	if err := CheckClassify(spelled{}, "other/x"); err == nil {
		t.Error("a spelling that is another kind than its path: no error")
	}
	md5 := chantal.Digest("md5:" + strings.Repeat("0", 32))
	sha := chantal.Digest("sha256:" + strings.Repeat("0", 64))
	good := chantal.Promise{Path: "x", Kind: chantal.Meta, Digests: []chantal.Digest{sha, md5}, Size: 0}
	if err := CheckPromise(lines{}, good); err != nil {
		t.Error(err)
	}
	described := good
	described.Package = &chantal.Package{Name: "x"}
	if err := CheckPromise(lines{}, described); err != nil {
		t.Errorf("metadata that belongs to a package: %v", err)
	}
	for name, change := range map[string]func(*chantal.Promise){
		"order":       func(p *chantal.Promise) { p.Digests = []chantal.Digest{md5, sha} },
		"twice":       func(p *chantal.Promise) { p.Digests = []chantal.Digest{md5, md5} },
		"not hex":     func(p *chantal.Promise) { p.Digests = []chantal.Digest{"md5:x"} },
		"size":        func(p *chantal.Promise) { p.Size = -2 },
		"kind":        func(p *chantal.Promise) { p.Kind = chantal.Root },
		"empty path":  func(p *chantal.Promise) { p.Path = "" },
		"alternative": func(p *chantal.Promise) { p.Alt = "y" },
		"no name":     func(p *chantal.Promise) { p.Package = new(chantal.Package) },
	} {
		p := good
		if change(&p); CheckPromise(lines{}, p) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestValidPath(t *testing.T) {
	for p, want := range map[string]bool{
		"a": true, "a/b": true, "simple/six/": true, "..a/b": true, "a\\b": true, "é": true,
		"": false, ".": false, "..": false, "/a": false, "../a": false, "a/../b": false, "a//b": false,
		"a//": false, "/": false, "./a": false, "a\x00": false, "a\nb": false,
	} {
		if got := ValidPath(p); got != want {
			t.Errorf("ValidPath(%q) = %v, want %v", p, got, want)
		}
	}
}

func TestCuts(t *testing.T) {
	if diff := cmp.Diff([]int{3, 6, 9}, Cuts([]byte("0123456789\n\n"), 3)); diff != "" {
		t.Error(diff)
	}
	if got := Cuts([]byte("a\n"), 5); got != nil {
		t.Errorf("one character cannot be cut, got %v", got)
	}
}

func TestXZBomb(t *testing.T) {
	bomb := XZBomb()
	if len(bomb) >= 100 {
		t.Errorf("the bomb has %d bytes", len(bomb))
	}
	if _, err := readXZ(bomb, 64<<20); err != xz.ErrMemlimit {
		t.Errorf("a reader with a limit: got %v, want %v", err, xz.ErrMemlimit)
	}
	// The same file with a small dictionary is read: nothing else is wrong.
	if got, err := readXZ(xzFile(8, []byte("fine")), 64<<20); err != nil || string(got) != "fine" {
		t.Errorf("got %q, %v", got, err)
	}
}

func readXZ(b []byte, limit uint32) ([]byte, error) {
	r, err := xz.NewReader(bytes.NewReader(b), limit)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestGzipBomb(t *testing.T) {
	bomb := GzipBomb(10 << 20)
	r, err := gzip.NewReader(bytes.NewReader(bomb))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	if err != nil || n != 10<<20 || n/int64(len(bomb)) < 500 {
		t.Errorf("%d bytes become %d, %v", len(bomb), n, err)
	}
}

func TestZstdBombs(t *testing.T) {
	bomb := ZstdBomb(10 << 20)
	r, err := zstd.NewReader(bytes.NewReader(bomb))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if err != nil || n != 10<<20 || n/int64(len(bomb)) < 20000 {
		t.Errorf("%d bytes become %d, %v", len(bomb), n, err)
	}
	if err := r.Reset(bytes.NewReader(ZstdWindowBomb())); err == nil {
		_, err = io.Copy(io.Discard, r)
		if !errors.Is(err, zstd.ErrWindowSizeExceeded) {
			t.Errorf("the window of the other one: got %v", err)
		}
	}
	small := append(zstdHeader(0), ZstdWindowBomb()[6:]...)
	if err := r.Reset(bytes.NewReader(small)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "quiet" {
		t.Errorf("with a small window: got %q, %v", got, err)
	}
}
