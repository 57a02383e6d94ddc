package rpm

import (
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"chantal"
	"chantal/plugins/formattest"
)

// What is published of any input is read again without an error, and names no
// package that was not held.
func FuzzPublish(f *testing.F) {
	all := lists("", three...)
	f.Add([]byte(all[0].content), []byte(all[1].content), []byte(advisories), []byte(streamsOf), []byte("<comps><group><id>g</id></group></comps>"))
	f.Add([]byte("<metadata/>"), []byte("<filelists packages='1'/>"), []byte("<updates/>"), []byte("---\n"), []byte("<comps/>"))
	f.Add([]byte(`<m:metadata xmlns:m='a' packages = "9" ><m:package ><name>a</name><location href='a'/></m:package ></m:metadata>`),
		[]byte(`<filelists><!-- <package> --><package pkgid='a'/></filelists>`), []byte("<updates><update><pkglist><collection><package/></collection></pkglist></update></updates>"),
		[]byte("document: modulemd\ndata:\n  artifacts:\n    rpms: [a, 'b' ]"), []byte("<comps><langpacks><match/></langpacks><langpacks/></comps>"))
	f.Fuzz(func(t *testing.T, primary, filelists, updateinfo, modules, comps []byte) {
		source := repository(t, "sha256", true, index{"primary", "primary.xml", string(primary)}, index{"filelists", "filelists.xml", string(filelists)},
			index{"updateinfo", "updateinfo.xml", string(updateinfo)}, index{"modules", "modules.yaml", string(modules)}, index{"group", "comps.xml", string(comps)})
		n := 0
		keep := func(int, *chantal.Promise, func(string) string) (bool, error) { n++; return n%2 == 0, nil }
		for _, sources := range [][]chantal.Contents{{source}, {source, source}} {
			out := &formattest.Publication{When: when}
			roots, err := Format{}.Publish(sources, keep, out)
			if err != nil {
				continue
			}
			m, err := out.Of(Format{}, source.Of, roots, source)
			if err != nil {
				t.Fatal(err)
			}
			for _, listed := range m.Listed() {
				for _, err := range m.Promises(listed) {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := (Format{}).Publish([]chantal.Contents{m}, formattest.KeepAll, &formattest.Publication{When: when}); err != nil {
				t.Fatalf("what was published cannot be published: %v", err)
			}
		}
	})
}

func TestHostilePackagesAreErrors(t *testing.T) {
	for _, name := range formattest.HostilePaths() {
		body := primaryOf(`<package><name>a</name><location href="` + escaped(t, name) + `"/></package>`)
		out := &formattest.Publication{When: when}
		source := repository(t, "sha256", true, index{"primary", "primary.xml", body})
		roots, err := Format{}.Publish([]chantal.Contents{source}, formattest.KeepAll, out)
		if err != nil {
			continue
		}
		m, err := out.Of(Format{}, source.Of, roots)
		if err != nil {
			t.Fatal(err)
		}
		for p, err := range m.Promises(m.Listed()[0]) {
			if err != nil || !formattest.ValidPath(p.Path) {
				t.Errorf("a package at %q is published at %q (%v)", name, p.Path, err)
			}
		}
	}
	many := repository(t, "sha256", true, slices.Repeat(lists("", three...), maxRecords)...)
	if _, err := (Format{}).Publish([]chantal.Contents{many}, formattest.KeepAll, &formattest.Publication{When: when}); err == nil {
		t.Error("a root with thousands of records gives no error")
	}
	for title, body := range map[string]string{
		"another encoding":   strings.Replace(primaryOf(), "UTF-8", "UTF-16", 1),
		"ends early":         strings.TrimSuffix(strings.TrimSpace(primaryOf()), ">"),
		"filelists":          "<filelists/>",
		"a package too long": primaryOf("<package><name>" + strings.Repeat("a", maxElement) + "</name></package>"),
		"a document type":    strings.Replace(primaryOf(), "<metadata", "<!DOCTYPE x [<!ENTITY a \"b\">]><metadata", 1),
	} {
		if _, err := (Format{}).Publish([]chantal.Contents{repository(t, "sha256", true, index{"primary", "primary.xml", body})},
			formattest.KeepAll, &formattest.Publication{When: when}); err == nil {
			t.Errorf("%s: no error", title)
		}
	}
}

// large is a repository of which the metadata is made while it is read.
type large struct {
	*formattest.Memory
	packages int
}

func (l large) Open(index chantal.Promise) (io.ReadCloser, error) {
	kind, root := "primary", "metadata"
	if strings.Contains(index.Path, "filelists") {
		kind, root = "filelists", "filelists"
	}
	entries, names := strings.Repeat("<rpm:entry name='x'/>", 50), strings.Repeat("<file>/usr/share/of/this/package</file>", 50)
	next, stop := iter.Pull(func(yield func(string) bool) {
		if !yield(fmt.Sprintf("<%s xmlns:rpm='r' packages='%d'>", root, l.packages)) {
			return
		}
		for i := range l.packages {
			id := fmt.Sprintf("%064x", i)
			element := fmt.Sprintf("<package><name>package-%d</name><arch>noarch</arch><version epoch='0' ver='1' rel='1'/>"+
				"<checksum type='sha256' pkgid='YES'>%s</checksum><size package='9'/><location href='Packages/package-%d-1-1.noarch.rpm'/>"+
				"<format><rpm:license>MIT</rpm:license><rpm:provides>%s</rpm:provides></format></package>\n", i, id, i, entries)
			if kind == "filelists" {
				element = "<package pkgid='" + id + "'>" + names + "</package>\n"
			}
			if !yield(element) {
				return
			}
		}
		yield("</" + root + ">")
	})
	return &pulled{next: next, stop: stop}, nil
}

type pulled struct {
	next func() (string, bool)
	stop func()
	rest string
}

func (p *pulled) Read(b []byte) (int, error) {
	for p.rest == "" {
		var ok bool
		if p.rest, ok = p.next(); !ok {
			return 0, io.EOF
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func (p *pulled) Close() error { p.stop(); return nil }

// measuring counts what is written, keeps nothing, and looks at the heap now
// and then.
type measuring struct {
	formattest.Publication
	mu   sync.Mutex
	most uint64
}

func (m *measuring) Write(suffix string, algos []string, fill func(io.Writer) error) (chantal.Written, error) {
	w := chantal.Written{}
	err := fill(writerFunc(func(b []byte) (int, error) {
		before := w.PlainSize
		w.PlainSize += int64(len(b))
		if before>>24 != w.PlainSize>>24 {
			var s runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&s)
			m.mu.Lock()
			m.most = max(m.most, s.HeapAlloc)
			m.mu.Unlock()
		}
		return len(b), nil
	}))
	d := formattest.Digest("sha256", nil)
	w.Digests, w.PlainDigests, w.Size = []chantal.Digest{d}, []chantal.Digest{d}, w.PlainSize
	return w, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// 60,000 packages with some 200 MB of metadata take what their names take.
func TestMemoryDoesNotGrowWithTheMetadata(t *testing.T) {
	source := large{repository(t, "sha256", true, index{"primary", "primary.xml", ""}, index{"filelists", "filelists.xml", ""}), 60_000}
	out := &measuring{Publication: formattest.Publication{When: when}}
	n := 0
	if _, err := (Format{}).Publish([]chantal.Contents{source}, func(_ int, _ *chantal.Promise, field func(string) string) (bool, error) {
		n++
		return field("license") == "MIT" && n%3 > 0, nil
	}, out); err != nil {
		t.Fatal(err)
	}
	if most := uint64(50 << 20); out.most == 0 || out.most > most {
		t.Errorf("%d packages took %d MiB, more than %d", n, out.most>>20, most>>20)
	}
	t.Logf("%d packages, %d MiB", n, out.most>>20)
}
