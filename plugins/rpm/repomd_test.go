package rpm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

// collect reads everything that Parse yields for body under name.
func collect(t *testing.T, name, body string) ([]chantal.Promise, error) {
	t.Helper()
	seq := Format{}.Parse(name, strings.NewReader(body))
	if seq == nil {
		t.Fatalf("Parse(%q) returned nil", name)
	}
	var got []chantal.Promise
	for p, err := range seq {
		if err != nil {
			return got, err
		}
		got = append(got, p)
	}
	return got, nil
}

const (
	hexA = "69830705742aa0055140fb0d8e873c4143031c2a19d0aaa9805efaa6fce8c814"
	hexB = "b35c0ec7731c59b3919660a3519dec1c64e936612d13383e882d9d334bb56dd9"
	sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
)

func repomdOf(data ...string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>any text</revision>` + strings.Join(data, "\n") + "</repomd>\n"
}

func TestParseRepomd(t *testing.T) {
	meta := func(path string, size int64, digests ...chantal.Digest) chantal.Promise {
		return chantal.Promise{Path: path, Kind: chantal.Meta, Size: size, Digests: digests}
	}
	tests := map[string]struct {
		name, data string
		want       chantal.Promise
	}{
		"plain": {"repodata/repomd.xml", `<data type="primary"><checksum type="sha256">` + hexA + `</checksum><location href="repodata/p.xml.gz"/><size>720</size></data>`,
			meta("repodata/p.xml.gz", 720, "sha256:"+hexA)},
		"below a folder": {"9/os/repodata/repomd.xml", `<data type="x"><location href="repodata/x"/></data>`,
			meta("9/os/repodata/x", -1)},
		"sha is sha1, unknown type is kept": {"repodata/repomd.xml", `<data type="never-heard"><checksum type="sha"> ` + strings.ToUpper(sha1) + "\n" + `</checksum><location href="repodata/x"/><size> 5 </size></data>`,
			meta("repodata/x", 5, "sha1:"+sha1)},
		"unknown algorithm promises nothing": {"repodata/repomd.xml", `<data><checksum type="sha3">00</checksum><location href="repodata/x"/></data>`,
			meta("repodata/x", -1)},
		"open-checksum is another file's": {"repodata/repomd.xml", `<data><open-checksum type="sha256">` + hexB + `</open-checksum><checksum type="sha256">` + hexA + `</checksum><open-size>9</open-size><location href="repodata/x"/></data>`,
			meta("repodata/x", -1, "sha256:"+hexA)},
		"prefixed": {"repodata/repomd.xml", `<r:data xmlns:r="http://linux.duke.edu/metadata/repo"><r:location href="repodata/x"/><r:size>1</r:size></r:data>`,
			meta("repodata/x", 1)},
		"query": {"repodata/repomd.xml", `<data><location href="repodata/x.gz?a=1&amp;b=2"/></data>`,
			meta("repodata/x.gz", -1)},
		"escape": {"repodata/repomd.xml", `<data><location href="repodata/x%2by"/></data>`,
			meta("repodata/x+y", -1)},
		"up and down inside the repository": {"9/os/repodata/repomd.xml", `<data><location href="../common/x"/></data>`,
			meta("9/common/x", -1)},
		"elsewhere": {"9/repodata/repomd.xml", `<data><location href="http://other.example.org/a/../x.gz?t=1"/></data>`,
			chantal.Promise{Path: "9/repodata/x.gz", URL: "http://other.example.org/a/../x.gz?t=1", Kind: chantal.Meta, Size: -1}},
		"based elsewhere": {"9/repodata/repomd.xml", `<data><location href="repodata/x.gz" xml:base="https://other.example.org/b"/></data>`,
			chantal.Promise{Path: "9/repodata/x.gz", URL: "https://other.example.org/b/repodata/x.gz", Kind: chantal.Meta, Size: -1}},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			got, err := collect(t, tt.name, repomdOf(tt.data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]chantal.Promise{tt.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseWhatCreaterepoWrites(t *testing.T) {
	body, err := os.ReadFile("testdata/createrepo/repomd.xml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := collect(t, "el/9/repodata/repomd.xml", string(body))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != bytes.Count(body, []byte("<data ")) {
		t.Errorf("%d records, want %d", len(got), bytes.Count(body, []byte("<data ")))
	}
	for _, p := range got {
		named := Format{}.Classify(p.Path)
		if named.Kind != chantal.Meta || named.Digest != p.SHA256() || named.Digest == "" || p.Size <= 0 {
			t.Errorf("%+v does not agree with its name: %+v", p, named)
		}
	}
	if required := (Format{}).Required(got); len(required) != 1 {
		t.Errorf("required: %+v, want the one primary", required)
	}
}

func TestBadRepomd(t *testing.T) {
	good := `<data type="x"><location href="repodata/x"/></data>`
	tests := map[string]string{
		"empty":               "",
		"not XML":             "Not found",
		"a portal":            "<html><body>Log in</body></html>",
		"a portal, HTML5":     "<!DOCTYPE html><html><head><meta charset=utf-8><title>x</title></head></html>",
		"no records":          repomdOf(),
		"second root":         repomdOf(good) + "<repomd/>",
		"text then another":   repomdOf(good) + "<html>",
		"not ended":           strings.TrimSuffix(repomdOf(good), "</repomd>\n"),
		"no location":         repomdOf(`<data type="x"><size>1</size></data>`),
		"leaves":              repomdOf(`<data><location href="../x"/></data>`),
		"leaves later":        repomdOf(`<data><location href="repodata/../../x"/></data>`),
		"leaves by escape":    repomdOf(`<data><location href="%2e%2e/x"/></data>`),
		"NUL by escape":       repomdOf(`<data><location href="repodata/%00"/></data>`),
		"newline by entity":   repomdOf(`<data><location href="repodata/a&#10;b"/></data>`),
		"the repository":      repomdOf(`<data><location href="."/></data>`),
		"a folder":            repomdOf(`<data><location href="repodata/"/></data>`),
		"size in words":       repomdOf(`<data><location href="repodata/x"/><size>big</size></data>`),
		"negative size":       repomdOf(`<data><location href="repodata/x"/><size>-1</size></data>`),
		"digest of wrong len": repomdOf(`<data><location href="repodata/x"/><checksum type="sha256">00</checksum></data>`),
		"strange encoding":    `<?xml version="1.0" encoding="EBCDIC"?><repomd>` + good + `</repomd>`,
	}
	for title, body := range tests {
		if got, err := collect(t, "repodata/repomd.xml", body); err == nil {
			t.Errorf("%s: no error from Parse, but %+v", title, got)
		}
		files := map[string][]byte{"repodata/repomd.xml": []byte(body)}
		if v, err := (Format{}).Check(tree("repodata"), files, nil, time.Now()); err == nil {
			t.Errorf("%s: no error from Check, but %+v", title, v)
		}
	}
}

func TestTruncatedRepomdIsAnError(t *testing.T) {
	body := repomdOf(`<data type="x"><checksum type="sha256">` + hexA + `</checksum><location href="repodata/x"/><size>12</size></data>`)
	for n := range len(body) - 1 { // the last byte is a newline
		if got, err := collect(t, "repodata/repomd.xml", body[:n]); err == nil {
			t.Fatalf("%d of %d bytes: no error, but %+v", n, len(body), got)
		}
	}
}

// ring accepts "signed: " and the very bytes.
type ring struct{}

func (ring) Verify(signed, signature []byte, now time.Time) (*chantal.Signature, error) {
	if string(signature) != "signed: "+string(signed) {
		return nil, errors.New("bad signature")
	}
	return &chantal.Signature{Fingerprint: "F", Checked: now}, nil
}

func TestCheck(t *testing.T) {
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	stamped := func(times ...any) string {
		var data []string
		for i, at := range times {
			data = append(data, fmt.Sprintf(`<data type="t%d"><location href="repodata/%d"/><timestamp>%v</timestamp></data>`, i, i, at))
		}
		return repomdOf(data...)
	}
	hour := now.Add(-time.Hour)
	body := stamped(hour.Add(-time.Hour).Unix(), fmt.Sprint(hour.Unix())+".75", "soon", "", -5,
		now.Add(48*time.Hour).Unix(), "99999999999999")
	const main, asc, key = "repodata/repomd.xml", "repodata/repomd.xml.asc", "repodata/repomd.xml.key"
	good := "signed: " + body
	tests := map[string]struct {
		files map[string]string
		keys  chantal.Keyring
		want  chantal.Verdict
		fails string
	}{
		"unsigned":              {files: map[string]string{main: body}, want: chantal.Verdict{Roots: []string{main}, Date: hour}},
		"taken as given":        {files: map[string]string{main: body, asc: "?", key: "?"}, want: chantal.Verdict{Roots: []string{main, asc, key}, Date: hour}},
		"no date":               {files: map[string]string{main: stamped("")}, want: chantal.Verdict{Roots: []string{main}}},
		"signed":                {files: map[string]string{main: body, asc: good}, keys: ring{}, want: chantal.Verdict{Roots: []string{main, asc}, Date: hour, Signer: &chantal.Signature{Fingerprint: "F", Checked: now}}},
		"not ours":              {files: map[string]string{main: body, "x": "?"}, want: chantal.Verdict{Roots: []string{main}, Date: hour, Rejected: map[string]string{"x": "not a root file of repodata"}}},
		"signature missing":     {files: map[string]string{main: body, key: "?"}, keys: ring{}, fails: "not signed"},
		"signature of others":   {files: map[string]string{main: body + " ", asc: good}, keys: ring{}, fails: "bad signature"},
		"nothing":               {fails: "is missing"},
		"only the signature":    {files: map[string]string{asc: good}, fails: "is missing"},
		"damaged, though equal": {files: map[string]string{main: "<repomd>", asc: "signed: <repomd>"}, keys: ring{}, fails: "EOF"},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			files := make(map[string][]byte)
			for name, content := range tt.files {
				files[name] = []byte(content)
			}
			got, err := Format{}.Check(tree("repodata"), files, tt.keys, now)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("got %+v, %v; want an error with %q", got, err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
