package apt

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"chantal"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"
)

var signedAt = time.Date(2026, 7, 11, 10, 0, 0, 0, time.UTC)

func config() *packet.Config { return &packet.Config{Time: func() time.Time { return signedAt }} }

func newKey(t *testing.T) *openpgp.Entity {
	t.Helper()
	key, err := openpgp.NewEntity("Archive", "", "archive@example.org", config())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func clearsigned(t *testing.T, key *openpgp.Entity, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, config())
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return append(b.Bytes(), '\n')
}

func detached(t *testing.T, key *openpgp.Entity, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, key, strings.NewReader(text), config()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ring is a keyring of one key.
type ring struct{ key *openpgp.Entity }

func (r ring) Verify(signed, signature []byte, now time.Time) (*chantal.Signature, error) {
	var body io.Reader = bytes.NewReader(signature)
	if block, err := armor.Decode(bytes.NewReader(signature)); err == nil {
		body = block.Body
	}
	if _, err := openpgp.CheckDetachedSignature(openpgp.EntityList{r.key}, bytes.NewReader(signed), body, config()); err != nil {
		return nil, err
	}
	return &chantal.Signature{Fingerprint: "OURS", Checked: now}, nil
}

func TestCheck(t *testing.T) {
	ours, other := newKey(t), newKey(t)
	text := releaseText() + "Description: - a dash - \n"
	in, rel, gpg := clearsigned(t, ours, text), []byte(text), detached(t, ours, text)
	weak := strings.NewReplacer("SHA256:", "SHA1:", hexes("a", 64), hexes("a", 40), hexes("A", 64), hexes("a", 40),
		hexes("b", 64), hexes("b", 40), hexes("c", 64), hexes("c", 40)).Replace(text)
	changed := append(bytes.Clone(rel), "Label: Other\n"...)
	type files = map[string][]byte
	const i, r, g = "dists/stable/InRelease", "dists/stable/Release", "dists/stable/Release.gpg"
	for _, test := range []struct {
		name     string
		files    files
		unsigned bool     // no keyring
		roots    []string // nil: an error
		rejected []string
		err      string // what the error says
	}{
		{name: "all three", files: files{i: in, r: rel, g: gpg}, roots: []string{i, r, g}},
		{name: "InRelease alone", files: files{i: in}, roots: []string{i}},
		{name: "other line ends", files: files{i: in, r: bytes.ReplaceAll(rel, []byte("\n"), []byte(" \r\n"))}, roots: []string{i, r}},
		{name: "Release of another run", files: files{i: in, r: changed, g: detached(t, ours, string(changed))}, roots: []string{i}, rejected: []string{r, g}},
		{name: "Release.gpg of another run", files: files{i: in, r: rel, g: detached(t, ours, "x")}, roots: []string{i, r}, rejected: []string{g}},
		{name: "Release.gpg alone beside InRelease", files: files{i: in, g: gpg}, roots: []string{i}, rejected: []string{g}},
		{name: "Release and signature", files: files{r: rel, g: gpg}, roots: []string{r, g}},
		{name: "Release of another run alone", files: files{r: changed, g: gpg}, err: "checking dists/stable/Release"},
		{name: "Release, not signed", files: files{r: rel}, err: "not signed"},
		{name: "Release, not signed, no keyring", files: files{r: rel}, unsigned: true, roots: []string{r}},
		{name: "Release and a page for a signature", files: files{r: rel, g: []byte("<html>")}, unsigned: true, roots: []string{r}, rejected: []string{g}},
		{name: "Release and signature, no keyring", files: files{r: rel, g: gpg}, unsigned: true, roots: []string{r, g}},
		{name: "unknown key", files: files{i: clearsigned(t, other, text)}, err: "checking dists/stable/InRelease"},
		{name: "unknown key, no keyring", files: files{i: clearsigned(t, other, text)}, unsigned: true, roots: []string{i}},
		{name: "changed after signing", files: files{i: bytes.Replace(in, []byte("Example"), []byte("Exomple"), 1)}, err: "checking dists/stable/InRelease"},
		{name: "text before the frame", files: files{i: append([]byte("Origin: Evil\n"), in...)}, err: "before"},
		{name: "text behind the frame", files: files{i: append(bytes.Clone(in), "Origin: Evil\n"...)}, err: "behind"},
		{name: "two frames", files: files{i: append(bytes.Clone(in), in...)}, unsigned: true, err: "behind"},
		{name: "captive portal", files: files{i: []byte("<html><body>Log in</body></html>\n"), r: rel, g: gpg}, unsigned: true, err: "not a clear-signed"},
		{name: "captive portal as Release", files: files{r: []byte("<html><a href=\"http://x\">\n")}, unsigned: true, err: "no field"},
		{name: "not a Release", files: files{i: clearsigned(t, ours, "Package: x\n")}, err: "not a Release"},
		{name: "empty", files: files{i: nil}, unsigned: true, err: "not a clear-signed"},
		{name: "nothing", files: files{g: gpg}, unsigned: true, err: "neither"},
		{name: "SHA1 alone", files: files{i: clearsigned(t, ours, weak)}, err: "insufficiently secured"},
		{name: "SHA1 alone, no keyring", files: files{i: clearsigned(t, ours, weak)}, unsigned: true, roots: []string{i}},
		{name: "no indexes", files: files{i: clearsigned(t, ours, releaseHead)}, roots: []string{i}},
		{name: "hostile path", files: files{i: clearsigned(t, ours, releaseText()+" "+hexes("a", 64)+" 1 ../../x\n")}, err: "leaves"},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := chantal.Verdict{Roots: test.roots, Rejected: map[string]string{},
				Date: time.Date(2026, 7, 11, 10, 16, 37, 0, time.UTC), Signer: &chantal.Signature{Fingerprint: "OURS", Checked: signedAt}}
			var keys chantal.Keyring = ring{ours}
			if test.unsigned {
				keys, want.Signer = nil, nil
			}
			got, err := new(Format).Check(new(Format).Classify(i).Tree, test.files, keys, signedAt)
			if test.roots == nil {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want an error that says %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range test.rejected {
				if got.Rejected[p] == "" {
					t.Errorf("%s is not rejected", p)
				}
				want.Rejected[p] = got.Rejected[p]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestWithoutAKeyringASignatureOfAnotherStateIsTold: beside an InRelease it is
// left out, as nobody needs it; without one it is doubted, for clients do.
func TestWithoutAKeyringASignatureOfAnotherStateIsTold(t *testing.T) {
	const text = "Suite: bookworm\nDate: Sat, 11 Jul 2026 10:00:00 UTC\nSHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages\n"
	key := newKey(t)
	tree := chantal.Tree{Name: "dists/bookworm", Roots: []string{"dists/bookworm/InRelease", "dists/bookworm/Release", "dists/bookworm/Release.gpg"}}
	files := map[string][]byte{tree.Roots[0]: clearsigned(t, key, text), tree.Roots[1]: []byte(text), tree.Roots[2]: detached(t, key, text)}
	f := &Format{Belongs: func(signed, signature []byte) error { return errors.New("over other bytes") }}
	const why = "not a signature of Release: over other bytes"

	v, err := f.Check(tree, files, nil, signedAt)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{tree.Roots[2]: why}, v.Rejected); diff != "" || len(v.Roots) != 2 || len(v.Doubtful) != 0 {
		t.Errorf("beside InRelease: roots %v, doubtful %v, rejected (-want +got):\n%s", v.Roots, v.Doubtful, diff)
	}
	delete(files, tree.Roots[0])
	if v, err = f.Check(tree, files, nil, signedAt); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{tree.Roots[2]: why}, v.Doubtful); diff != "" || len(v.Roots) != 2 || len(v.Rejected) != 0 {
		t.Errorf("without InRelease: roots %v, rejected %v, doubtful (-want +got):\n%s", v.Roots, v.Rejected, diff)
	}
}

func TestParseDate(t *testing.T) {
	want := time.Date(2026, 7, 1, 10, 16, 37, 0, time.UTC)
	for _, s := range []string{"Wed, 01 Jul 2026 10:16:37 UTC", "Wed,  1 Jul 2026 10:16:37 +0000", "Wed, 1 Jul 2026 10:16:37 GMT"} {
		if got := parseDate(s); !got.Equal(want) {
			t.Errorf("%q is %v, want %v", s, got, want)
		}
	}
	if got := parseDate("Wed, 01 Jul 2026 10:16:37 EST"); !got.IsZero() {
		t.Errorf("a zone that only has a name is %v", got)
	}
}
