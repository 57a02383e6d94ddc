// Package formattest is the suite that every chantal.Format passes, and the
// hostile input that everything which reads upstream's bytes is tried with.
//
// It knows no format: what a format's files look like comes in as Fixtures.
package formattest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"chantal"

	"github.com/google/go-cmp/cmp"
)

// Fixtures is what a format gives the suite to work on.
type Fixtures struct {
	// Files are the inputs of Parse.
	Files []File

	// Paths are further inputs of Classify, besides those of Files, the
	// promised ones and HostilePaths: one of each shape the format knows.
	Paths []string

	// Hostile returns a file of the format, well-formed but for an entry that
	// is called name. Nil where no path is ever taken from content. Parse has
	// to end such a file with an error or make a harmless path of the name.
	Hostile func(name string) (path string, content []byte)
}

// File is one input of Parse.
type File struct {
	Path    string // relative to the repository
	Content []byte // decompressed
	Want    int    // the number of promises in it
	Cuts    []int  // lengths to which Content, cut short, has to be an error; see Cuts
}

// Cuts returns up to n different lengths from 1 to len(content)-1, evenly
// spread and always with the longest, leaving out white space at the end:
// for formats of which no beginning is a whole file.
func Cuts(content []byte, n int) []int {
	top := len(bytes.TrimRight(content, " \t\r\n")) - 1
	var cuts []int
	for i := 1; i <= n && top > 0; i++ {
		if cut := max(1, top*i/n); len(cuts) == 0 || cuts[len(cuts)-1] != cut {
			cuts = append(cuts, cut)
		}
	}
	return cuts
}

// Test runs the suite on f.
func Test(t *testing.T, f chantal.Format, fx Fixtures) {
	t.Helper()
	t.Run("Classify", func(t *testing.T) { testClassify(t, f, fx) })
	t.Run("Parse", func(t *testing.T) {
		for _, file := range fx.Files {
			t.Run(file.Path, func(t *testing.T) { testParse(t, f, file) })
		}
	})
	if fx.Hostile != nil {
		t.Run("Hostile", func(t *testing.T) {
			for _, name := range HostilePaths() {
				path, content := fx.Hostile(name)
				if _, err := collect(f, path, bytes.NewReader(content)); isLaw(err) {
					t.Errorf("an entry called %q: %v", name, err)
				}
			}
		})
	}
}

func testClassify(t *testing.T, f chantal.Format, fx Fixtures) {
	paths := slices.Concat(HostilePaths(), fx.Paths)
	for _, file := range fx.Files {
		paths = append(paths, file.Path)
	}
	for _, p := range paths {
		if err := CheckClassify(f, p); err != nil {
			t.Error(err)
		}
		// Every beginning of a path is a path that someone may ask for; of
		// the very long ones the first 300 bytes are enough.
		for i := range p[:min(len(p), 300)] {
			if err := CheckClassify(f, p[:i]); err != nil {
				t.Error(err)
			}
		}
	}
}

func testParse(t *testing.T, f chantal.Format, file File) {
	first, err := collect(f, file.Path, bytes.NewReader(file.Content))
	if err != nil {
		t.Fatal(err)
	}
	if got := len(first); got != file.Want {
		t.Errorf("got %d promises, want %d", got, file.Want)
	}
	for name, r := range map[string]io.Reader{
		"a second time":              bytes.NewReader(file.Content),
		"byte by byte":               iotest.OneByteReader(bytes.NewReader(file.Content)),
		"with io.EOF beside content": iotest.DataErrReader(bytes.NewReader(file.Content)),
	} {
		again, err := collect(f, file.Path, r)
		if err != nil {
			t.Errorf("read %s: %v", name, err)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("read %s, Parse yields other promises (-first +again):\n%s", name, diff)
		}
	}
	for _, cut := range file.Cuts {
		if _, err := collect(f, file.Path, bytes.NewReader(file.Content[:cut])); err == nil {
			t.Errorf("cut to %d of %d bytes, ending in %q: no error", cut, len(file.Content), tail(file.Content[:cut]))
		}
	}
	if f.Parse(file.Path, bytes.NewReader(file.Content)) == nil {
		return
	}
	broken := errors.New("the disk is gone")
	r := io.MultiReader(bytes.NewReader(file.Content[:len(file.Content)/2]), iotest.ErrReader(broken))
	if _, err := collect(f, file.Path, r); err == nil {
		t.Error("the reader failed and Parse did not")
	}
	for range f.Parse(file.Path, bytes.NewReader(file.Content)) {
		break // a consumer may leave early; one that is called again panics
	}
}

func tail(b []byte) []byte { return b[max(0, len(b)-20):] }

// collect returns all promises of a file, each of which has to obey the laws;
// an error of Parse itself is returned as it is, a broken law as a lawError.
func collect(f chantal.Format, path string, r io.Reader) ([]chantal.Promise, error) {
	seq := f.Parse(path, r)
	if seq == nil {
		return nil, nil
	}
	var promises []chantal.Promise
	var failed error
	for p, err := range seq {
		if failed != nil {
			return nil, lawError{"the sequence goes on after its error " + failed.Error()}
		}
		if failed = err; err != nil {
			continue
		}
		if err := CheckPromise(f, p); err != nil {
			return nil, err
		}
		promises = append(promises, p)
	}
	return promises, failed
}
