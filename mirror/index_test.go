package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/testenv"
	"chantal/plugins/formattest"

	"github.com/google/go-cmp/cmp"
)

// stanza is an entry of Packages.
func stanza(path string, d chantal.Digest, size int) string {
	return fmt.Sprintf("Package: p\nVersion: 1\nArchitecture: all\nFilename: %s\nSize: %d\nSHA256: %s\n\n", path, size, d.Hex())
}

func TestDerivedLinesFindWhatAMapHolds(t *testing.T) {
	w := newWorld(t)
	r := w.debian(baseA)
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[string][]chantal.Promise{}
	var text bytes.Buffer
	for i := range 3000 {
		// Short ones, ones that begin alike, ones longer than a block, twins.
		path := fmt.Sprintf("p/%x", rng.IntN(2000))
		switch i % 7 {
		case 1:
			path += strings.Repeat("x", rng.IntN(30))
		case 2:
			path += "/" + strings.Repeat("long", 1500+rng.IntN(500))
		}
		d := sha256Of([]byte{byte(i), byte(i >> 8)})
		size := rng.IntN(1 << 20)
		fmt.Fprint(&text, stanza(path, d, size))
		want[path] = append(want[path], chantal.Promise{Path: path, Kind: chantal.Artifact, Digests: []chantal.Digest{d}, Size: int64(size),
			Package: &chantal.Package{Name: "p", Version: "1", Arch: "all"}})
	}
	blob, err := w.store.Put(cas.Want{Repo: "debian", Path: packagesPlain, Size: int64(text.Len())}, text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	lines, err := r.lines(packagesPlain, blob)
	if err != nil {
		t.Fatal(err)
	}
	defer lines.Close()
	collect := func(path string) (all []chantal.Promise) {
		for p, err := range lines.find(path) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
		return all
	}
	byDigest := func(a, b chantal.Promise) int { return strings.Compare(string(a.Digests[0]), string(b.Digests[0])) }
	for _, path := range slices.Sorted(maps.Keys(want)) {
		slices.SortFunc(want[path], byDigest)
		if diff := cmp.Diff(want[path], collect(path)); diff != "" {
			t.Fatalf("%.40s (-want +got):\n%s", path, diff)
		}
		for _, absent := range []string{path + "\x01", path[:len(path)-1] + "~", path + "/"} {
			if got := collect(absent); got != nil && want[absent] == nil {
				t.Fatalf("%.40q: found %v", absent, got)
			}
		}
	}
	for _, absent := range []string{"", "a", "zzz", "p", "p/"} {
		if got := collect(absent); got != nil {
			t.Errorf("%q: found %v", absent, got)
		}
	}
	n := 0
	for _, err := range lines.each() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3000 {
		t.Errorf("each yields %d", n)
	}
}

func TestAnEmptyIndexPromisesNothing(t *testing.T) {
	w := newWorld(t)
	r := w.debian(baseA)
	blob, err := w.store.Put(cas.Want{Repo: "debian", Path: packagesPlain, Size: 0}, nil)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := r.lines(packagesPlain, blob)
	if err != nil {
		t.Fatal(err)
	}
	defer lines.Close()
	for p, err := range lines.find("x") {
		t.Errorf("found %v, %v", p, err)
	}
}

func TestALineIsReadAsItWasWritten(t *testing.T) {
	d := sha256Of(nil)
	for _, p := range []chantal.Promise{
		{Path: "a", Size: -1},
		{Path: "a b/ü", Kind: chantal.Meta, Size: 0, Digests: []chantal.Digest{d, "md5:d41d8cd98f00b204e9800998ecf8427e"}},
		{Path: "a", URL: "https://mirror.example.org/a?b=c d", Kind: chantal.Artifact, Size: 1 << 40, Package: &chantal.Package{Name: "n", Version: "1:2~3", Arch: "amd64", Section: "misc"}},
	} {
		got, err := parseLine(string(appendLine(nil, &p)))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Error(diff)
		}
	}
	for _, line := range []string{"", "\n", "a\tb\n", "a\t\tx\t0\t\t\n", "a\t\t1\t\t\t\n"} {
		if p, err := parseLine(line); err == nil {
			t.Errorf("%q is read as %+v", line, p)
		}
	}
}

func TestBombsAreNotReadToTheirEnd(t *testing.T) {
	const size = 1 << 30
	for name, bomb := range map[string][]byte{
		"Packages.gz":     formattest.GzipBomb(64 << 20),
		"primary.xml.zst": formattest.ZstdBomb(size),
		"other.zst":       formattest.ZstdWindowBomb(),
		"Packages.xz":     formattest.XZBomb(),
		"Packages.lzma":   {0x5d, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"short.lzma":      {0x5d},
		"not.gz":          []byte("plain"),
		"not.xz":          []byte("plain"),
		"Packages.bz2":    []byte("BZh9"),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := decompress(name, bytes.NewReader(bomb), int64(len(bomb)))
			if err != nil {
				return
			}
			defer r.Close()
			n, err := io.Copy(io.Discard, r)
			if err == nil {
				t.Errorf("all %d bytes were read", n)
			}
			if limit := max(freeRatio, int64(len(bomb))*maxRatio); n > limit {
				t.Errorf("%d bytes of at most %d were read", n, limit)
			}
		})
	}
}

func TestAHugeWindowIsRefused(t *testing.T) {
	for log, fits := range map[byte]bool{26: true, 27: false} {
		// A zstd frame (RFC 8878, 3.1.1): window of 2^log bytes, one raw block of one byte.
		frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3, 1 | 1<<3, 0, 0, 'x'}
		r, err := decompress("Packages.zst", bytes.NewReader(frame), int64(len(frame)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if read := err == nil && string(got) == "x"; read != fits {
			t.Errorf("window of 2^%d bytes: %q, %v", log, got, err)
		}
	}
}

func TestAHugeDictionaryIsRefusedBeforeItIsMade(t *testing.T) {
	// Properties, a dictionary of 512 MiB, no size; and a body that can begin.
	file := append([]byte{0x5d, 0, 0, 0, 0x20}, bytes.Repeat([]byte{0xff}, 8)...)
	file = append(file, make([]byte, 64)...)
	if _, err := decompress("Packages.lzma", bytes.NewReader(file), int64(len(file))); err == nil || !strings.Contains(err.Error(), "dictionary of 536870912 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestABombIsServedAsItIsAndReadByNobody(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	bomb := formattest.GzipBomb(256 << 20)
	s.Index = map[string][]byte{"main/binary-amd64/Packages.gz": bomb}
	at := s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	live := w.debian(baseA).Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, packagesGZ, bomb)
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
	wantGet(t, live, at, s.content(at))
}

func TestPathsNeverLeaveTheRepository(t *testing.T) {
	w := newWorld(t)
	s, r, live := started(t, w, baseA)
	w.up.forget()
	for _, p := range []string{"..", "../x", "a/../../x", "pool/../../etc/passwd", "/etc/passwd", "a\x00b", "a\nb", "dists/../../InRelease"} {
		for _, v := range []chantal.View{live, r.At(r.Name, w.clock.now(), true)} {
			var refused *chantal.RefusedError
			if _, _, err := get(t, v, p); !errors.As(err, &refused) {
				t.Errorf("%q: got %v", p, err)
			}
		}
	}
	if asked := w.up.requests(""); len(asked) != 0 {
		t.Errorf("upstream was asked: %v", asked)
	}
	// Metadata that tries is not believed, and the rest of the world goes on.
	for _, filename := range []string{"../../etc/passwd", "/etc/passwd", "pool/../../x", "pool/\x01x"} {
		s.Stanzas = stanza(filename, sha256Of([]byte("secret")), 6)
		s.publish(w.up, baseA)
		w.due()
		wantGet(t, live, inRelease, s.content(inRelease))
		w.up.forget()
		if body, _, err := get(t, live, strings.TrimLeft(strings.ReplaceAll(filename, "../", ""), "/")); err == nil {
			t.Errorf("%q: got %q", filename, body)
		}
		for _, asked := range w.up.requests("") {
			if !strings.HasPrefix(asked.URL, baseA) || strings.Contains(asked.URL, "..") {
				t.Errorf("%q: upstream was asked for %s", filename, asked.URL)
			}
		}
	}
}

func TestMetadataMayNotSendUsAnywhere(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		upstream, link string
		files          []string
		ok             bool
	}{
		{"http://a.example.org/", "http://a.example.org/x", []string{}, true},
		{"http://a.example.org/", "http://b.example.org/x", nil, true},
		{"http://a.example.org/", "http://b.example.org/x", []string{"c.example.org"}, false},
		{"http://a.example.org/", "http://B.example.org/x", []string{"b.example.org"}, true},
		{"https://a.example.org/", "http://a.example.org/x", nil, false},
		{"http://a.example.org/", "file:///etc/passwd", nil, false},
		{"http://a.example.org/", "ftp://b.example.org/x", nil, false},
		{"http://a.example.org/", "x", nil, false},
	} {
		r := w.add(Settings{Name: "r", Type: "pypi", Upstream: []string{test.upstream}, Files: test.files})
		if err := r.mayLink(test.link); (err == nil) != test.ok {
			t.Errorf("%s links to %s, files %v: got %v", test.upstream, test.link, test.files, err)
		}
	}
}
