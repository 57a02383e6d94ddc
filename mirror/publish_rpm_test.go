package mirror

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"chantal/internal/catalog"
	"chantal/plugins/formattest"
)

// Roots that promise indexes by one digest alone, weak or strong, lead to those
// that were written for an edition. What describes the tree to install from is a
// tree of its own, and part of it.
func TestIndexesOfAnEditionAreFoundByWhateverDigest(t *testing.T) {
	const base = "http://a.mirror.example.org/el9/"
	for _, algo := range []string{"sha1", "sha512"} {
		t.Run(algo, func(t *testing.T) {
			w := newWorld(t)
			files := map[string][]byte{".treeinfo": []byte("[general]\nname = x\n[checksums]\nrepodata/repomd.xml = sha256:00\n")}
			repomd := "<repomd>"
			for kind, content := range map[string]string{
				"primary": `<metadata packages="2">` +
					`<package><name>a</name><checksum type="sha256">` + strings.Repeat("a", 64) + `</checksum><location href="a.rpm"/></package>` +
					`<package><name>b</name><checksum type="sha256">` + strings.Repeat("b", 64) + `</checksum><location href="b.rpm"/></package></metadata>`,
				"other": `<otherdata packages="2"><package pkgid="` + strings.Repeat("a", 64) + `"/><package pkgid="` + strings.Repeat("b", 64) + `"/></otherdata>`,
			} {
				packed, err := formattest.Pack(".gz", []byte(content))
				if err != nil {
					t.Fatal(err)
				}
				files["repodata/"+kind+".xml.gz"] = packed
				repomd += fmt.Sprintf(`<data type=%q><checksum type=%q>%s</checksum><location href="repodata/%s.xml.gz"/></data>`,
					kind, algo, formattest.Digest(algo, packed).Hex(), kind)
			}
			files["repodata/repomd.xml"] = []byte(repomd + "</repomd>")
			for path, content := range files {
				w.up.put(base+path, content)
			}
			r := w.add(Settings{Name: "el9", Type: "rpm", Upstream: []string{base}})
			wantGet(t, r.Live(Client{}), "repodata/repomd.xml", files["repodata/repomd.xml"])
			wantGet(t, r.Live(Client{}), ".treeinfo", files[".treeinfo"])
			wantGet(t, r.Live(Client{}), "repodata/other.xml.gz", files["repodata/other.xml.gz"])

			key, err := signer()
			if err != nil {
				t.Fatal(err)
			}
			at, err := w.catalog.Clock()
			if err != nil {
				t.Fatal(err)
			}
			made, err := w.m.Publish(t.Context(), Publishing{
				Sources: []catalog.Frozen{{Repo: "el9", At: at}}, Keep: only("a"), Signer: key, Date: SigningDate(w.clock.now()),
			}, func(string) {})
			if err != nil {
				t.Fatal(err)
			}
			if made.Kept != 1 || made.Seen != 2 || len(made.Generations) != 2 {
				t.Errorf("%d of %d are held, in %d trees", made.Kept, made.Seen, len(made.Generations))
			}
			if at, err = w.catalog.Clock(); err != nil {
				t.Fatal(err)
			}
			f := catalog.Frozen{Repo: "el9", Edition: "part", At: at, Generations: made.Generations}
			if err := w.catalog.PutSnapshot(catalog.Snapshot{Name: "part", Repos: []catalog.Frozen{f}}, false); err != nil {
				t.Fatal(err)
			}
			w.restart(true)
			v := w.add(Settings{Name: "el9", Type: "rpm", Upstream: []string{base}}).At(f.Line(), at, false)
			for _, name := range []string{"primary", "other"} {
				body, _ := mustGet(t, v, "repodata/"+name+".xml.gz")
				if text := unzipped(t, body); strings.Count(text, "<package>")+strings.Count(text, "<package ") != 1 || strings.Contains(text, "bbb") {
					t.Errorf("%s has %s", name, text)
				}
			}
			for _, root := range []string{"repodata/repomd.xml", "repodata/repomd.xml.asc", "repodata/repomd.xml.key"} {
				mustGet(t, v, root)
			}
			if body, _ := mustGet(t, v, ".treeinfo"); bytes.Contains(body, []byte("repomd.xml")) || !bytes.Contains(body, []byte("name = x")) {
				t.Errorf(".treeinfo is %s", body)
			}
		})
	}
}

// unzipped returns what a .gz has in it.
func unzipped(t *testing.T, body []byte) string {
	t.Helper()
	r, err := decompress("x.gz", bytes.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}
