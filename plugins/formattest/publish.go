package formattest

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

// PublishingFormat is a Format that is a Publisher too.
type PublishingFormat interface {
	chantal.Format
	chantal.Publisher
}

// published is when the editions of the laws are made.
var published = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// TestPublisher runs the laws of chantal.Publisher on f. Each of sources is a
// generation with several packages and nothing but what f reads; it is
// published alone.
func TestPublisher(t *testing.T, f PublishingFormat, sources ...*Memory) {
	t.Helper()
	for _, s := range sources {
		t.Run(s.Of.Name, func(t *testing.T) { testPublisher(t, f, s) })
	}
}

func testPublisher(t *testing.T, f PublishingFormat, s *Memory) {
	all := packages(t, s)
	if len(all) < 2 {
		t.Fatalf("the source has %d packages; two are the least to choose from", len(all))
	}
	whole := publish(t, f, KeepAll, s)
	if diff := cmp.Diff(all, packages(t, whole)); diff != "" {
		t.Errorf("with all packages held, others are listed (-source +published):\n%s", diff)
	}
	for name, keep := range map[string]func(*chantal.Promise) bool{
		"half of them": half,
		"the others":   func(p *chantal.Promise) bool { return !half(p) },
		"none":         func(*chantal.Promise) bool { return false },
		"one":          func(p *chantal.Promise) bool { return p.Path == slices.Min(paths(all)) },
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string]chantal.Promise{}
			for path, p := range all {
				if keep(&p) {
					want[path] = p
				}
			}
			got := publish(t, f, func(_ int, p *chantal.Promise, _ func(string) string) (bool, error) { return keep(p), nil }, s)
			if diff := cmp.Diff(want, packages(t, got)); diff != "" {
				t.Errorf("other packages are listed than held (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("again", func(t *testing.T) {
		if diff := cmp.Diff(whole.Files, publish(t, f, KeepAll, s).Files); diff != "" {
			t.Errorf("publishing twice gives two results (-first +second):\n%s", diff)
		}
		if diff := cmp.Diff(whole.Files, publish(t, f, KeepAll, whole).Files); diff != "" {
			t.Errorf("publishing what was published changes it (-first +second):\n%s", diff)
		}
	})
	t.Run("twice the same source", func(t *testing.T) {
		if diff := cmp.Diff(all, packages(t, publish(t, f, KeepAll, s, s))); diff != "" {
			t.Errorf("put together with itself it lists other packages (-alone +twice):\n%s", diff)
		}
	})
	t.Run("fields", func(t *testing.T) {
		publish(t, f, func(_ int, p *chantal.Promise, field func(string) string) (bool, error) {
			if got := field("no such field"); got != "" {
				t.Errorf("%s: a field that does not exist is %q", p.Path, got)
			}
			return true, nil
		}, s)
	})
	t.Run("errors", func(t *testing.T) { testPublishErrors(t, f, s) })
}

// testPublishErrors tests that what fails below is what Publish fails with.
func testPublishErrors(t *testing.T, f PublishingFormat, s *Memory) {
	broken := errors.New("broken")
	out := func() *Publication { return &Publication{When: published} }
	refuse := func(int, *chantal.Promise, func(string) string) (bool, error) { return false, broken }
	if _, err := f.Publish([]chantal.Contents{s}, refuse, out()); !errors.Is(err, broken) {
		t.Errorf("Keep failed, and Publish with %v", err)
	}
	counted := out()
	if _, err := f.Publish([]chantal.Contents{s}, KeepAll, counted); err != nil {
		t.Fatal(err)
	}
	for n := range len(counted.Written) {
		if _, err := f.Publish([]chantal.Contents{s}, KeepAll, &Publication{When: published, Fails: broken, Allowed: n}); !errors.Is(err, broken) {
			t.Errorf("Write number %d failed, and Publish with %v", n+1, err)
		}
	}
	read := 0
	for _, index := range s.Listed() {
		if index.Kind != chantal.Meta {
			continue
		}
		for _, why := range []error{broken, fs.ErrNotExist} {
			b := breaking{Memory: s, path: index.Path, err: why, opened: new(bool)}
			o := out()
			roots, err := f.Publish([]chantal.Contents{b}, KeepAll, o)
			if *b.opened {
				read++
			}
			if err == nil {
				// There may be another form of the same index.
				m, err := o.Of(f, s.Of, roots, s)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(packages(t, s), packages(t, m)); diff != "" {
					t.Errorf("%s: %v, and Publish did not fail but lost packages:\n%s", index.Path, why, diff)
				}
			} else if !errors.Is(err, why) {
				t.Errorf("%s: %v, and Publish failed with %v", index.Path, why, err)
			}
		}
	}
	if len(counted.Written) > 0 && read == 0 {
		t.Error("indexes were written and none was read")
	}
}

// KeepAll is a chantal.Keep that holds everything.
func KeepAll(int, *chantal.Promise, func(string) string) (bool, error) { return true, nil }

// publish returns what clients get of an edition, which has to check.
func publish(t *testing.T, f PublishingFormat, keep chantal.Keep, sources ...*Memory) *Memory {
	t.Helper()
	out := &Publication{When: published}
	var contents []chantal.Contents
	for _, s := range sources {
		contents = append(contents, s)
	}
	tree := sources[0].Of
	roots, err := f.Publish(contents, keep, out)
	if err != nil {
		t.Fatal(err)
	}
	if roots == nil {
		return &Memory{Format: f, Of: tree}
	}
	for name := range roots {
		if !slices.Contains(tree.Roots, name) {
			t.Fatalf("%s was published, which is no root of %s", name, tree.Name)
		}
	}
	v, err := f.Check(tree, roots, nil, published)
	if err != nil {
		t.Fatalf("what was published does not check: %v", err)
	}
	if len(v.Roots) != len(roots) {
		t.Errorf("%d roots were published, of which %q check", len(roots), v.Roots)
	}
	m, err := out.Of(f, tree, roots, contents...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// packages returns what a generation promises of packages, by path.
func packages(t *testing.T, m *Memory) map[string]chantal.Promise {
	t.Helper()
	all := map[string]chantal.Promise{}
	for _, listed := range m.Listed() {
		if listed.Kind == chantal.Artifact && listed.Package != nil {
			all[listed.Path] = listed
		}
		if listed.Kind != chantal.Meta || m.Files[listed.Path] == nil {
			continue
		}
		for p, err := range m.Promises(listed) {
			if err != nil {
				t.Fatal(err)
			}
			if p.Kind == chantal.Artifact && p.Package != nil {
				all[p.Path] = p
			}
		}
	}
	return all
}

func paths(all map[string]chantal.Promise) []string {
	var paths []string
	for path := range all {
		paths = append(paths, path)
	}
	return paths
}

// half reports whether p belongs to the one half of all packages.
func half(p *chantal.Promise) bool { return crc32.ChecksumIEEE([]byte(p.Path))&1 == 0 }

// breaking is a generation of which one index cannot be read.
type breaking struct {
	*Memory
	path   string
	err    error
	opened *bool
}

// Open implements chantal.Contents.
func (b breaking) Open(index chantal.Promise) (io.ReadCloser, error) {
	r, err := b.Memory.Open(index)
	if err != nil || index.Path != b.path {
		return r, err
	}
	*b.opened = true
	if errors.Is(b.err, fs.ErrNotExist) {
		return nil, b.err
	}
	start := make([]byte, 20)
	n, _ := io.ReadFull(r, start)
	return io.NopCloser(io.MultiReader(bytes.NewReader(start[:n]), iotest.ErrReader(b.err))), r.Close()
}

// Promises implements chantal.Contents.
func (b breaking) Promises(index chantal.Promise) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		r, err := b.Open(index)
		if err != nil {
			yield(chantal.Promise{}, err)
			return
		}
		if seq := b.Format.Parse(index.Path, r); seq != nil {
			seq(yield)
		}
	}
}
