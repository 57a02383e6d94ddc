package sign

import (
	"bytes"
	"crypto"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/google/go-cmp/cmp"

	"chantal"
)

// Of the files in testdata; see README there.
const (
	rsa   = "E08EB13B582A5AF291E0AB6D57019F606049096E"
	ed    = "B2ACCA495B5CC25DA357E5205740DB6A720797AA"
	ec    = "33CEB9FAAD368F3CB4ADDF452799A38D7F4CC12E"
	short = "9F73F9609D86003EEE6231DEF4D2DFD326982931"
	gone  = "F1AECDF222B03771558F205CAE64D0C9E3A12D8B"
)

var (
	made  = time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	today = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t *testing.T, name string) *Keyring {
	t.Helper()
	k, err := LoadKeyring(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ringOf is the keyring of several files' keys.
func ringOf(t *testing.T, names ...string) *Keyring {
	t.Helper()
	var all bytes.Buffer
	for _, name := range names {
		all.Write(read(t, name))
	}
	k, err := NewKeyring(&all)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVerifyWhatGnuPGSigned(t *testing.T) {
	text := string(read(t, "signed.txt"))
	crlf := strings.ReplaceAll(text, "\n", "\r\n")
	armored := func(name string) []byte {
		var b bytes.Buffer
		w, err := armor.Encode(&b, openpgp.SignatureType, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(read(t, name))
		w.Close()
		return b.Bytes()
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, []byte("\n")) }
	packets := func(names ...string) []byte {
		var b []byte
		for _, name := range names {
			b = append(b, read(t, name)...)
		}
		return b
	}
	tests := map[string]struct {
		ring      *Keyring
		signed    string
		signature []byte
		now       time.Time
		want      string // fingerprint
		fails     string
	}{
		"RSA":                        {ring: load(t, "rsa.asc"), signature: packets("rsa.sig"), want: rsa},
		"armored":                    {ring: load(t, "rsa.asc"), signature: armored("rsa.sig"), want: rsa},
		"Ed25519 by a subkey":        {ring: load(t, "ed.gpg"), signature: packets("ed.sig"), want: ed},
		"P-256, second of several":   {ring: load(t, "several.asc"), signature: packets("ec.sig"), want: ec},
		"text type":                  {ring: load(t, "rsa.asc"), signature: read(t, "text.asc"), want: rsa},
		"text type, CR LF":           {ring: load(t, "rsa.asc"), signed: crlf, signature: read(t, "text.asc"), want: rsa},
		"binary type minds CR LF":    {ring: load(t, "rsa.asc"), signed: crlf, signature: packets("rsa.sig"), fails: "no good signature"},
		"other bytes":                {ring: load(t, "rsa.asc"), signed: text + " ", signature: packets("rsa.sig"), fails: rsa},
		"unknown key":                {ring: load(t, "ed.gpg"), signature: packets("rsa.sig"), fails: "does not have key " + rsa[24:]},
		"unknown, then known":        {ring: load(t, "rsa.asc"), signature: packets("other.sig", "ed.sig", "rsa.sig"), want: rsa},
		"bad, then good":             {ring: ringOf(t, "several.asc", "rsa.asc"), signature: packets("sha1.sig", "late.sig", "ec.sig"), want: ec},
		"armored one by one":         {ring: load(t, "ed.gpg"), signature: join(armored("rsa.sig"), []byte("-----BEGIN PGP SIGNATURE-----\n\n!\n"), armored("ed.sig")), want: ed},
		"SHA-1":                      {ring: load(t, "rsa.asc"), signature: packets("sha1.sig"), fails: "insecure"},
		"RSA 1024":                   {ring: load(t, "several.asc"), signature: packets("weak.sig"), fails: "rsa length"},
		"expired since":              {ring: load(t, "several.asc"), signature: packets("short.sig"), want: short},
		"expired at signing":         {ring: load(t, "several.asc"), signature: packets("late.sig"), fails: "expired"},
		"before the key was retired": {ring: load(t, "gone-before.asc"), signature: packets("gone.sig"), want: gone},
		"retired since":              {ring: load(t, "gone.asc"), signature: packets("gone.sig"), fails: "revoked"},
		"retired, as of before":      {ring: load(t, "gone.asc"), signature: packets("gone.sig"), now: made, want: gone},
		"a day ahead":                {ring: load(t, "rsa.asc"), signature: packets("rsa.sig"), now: made.Add(-24 * time.Hour), want: rsa},
		"more than a day ahead":      {ring: load(t, "rsa.asc"), signature: packets("rsa.sig"), now: made.Add(-24*time.Hour - time.Second), fails: "future"},
		"nothing":                    {ring: load(t, "rsa.asc"), fails: "none at all"},
		"a portal":                   {ring: load(t, "rsa.asc"), signature: []byte("<html>"), fails: "none at all"},
		"cut short":                  {ring: load(t, "rsa.asc"), signature: packets("rsa.sig")[:100], fails: "damaged"},
		"a key":                      {ring: load(t, "rsa.asc"), signature: read(t, "rsa.asc"), fails: "none at all"},
		"too many":                   {ring: load(t, "rsa.asc"), signature: append(bytes.Repeat(packets("sha1.sig"), maxAttempts), packets("rsa.sig")...), fails: "more than 32"},
	}
	for title, tt := range tests {
		t.Run(title, func(t *testing.T) {
			if tt.signed == "" {
				tt.signed = text
			}
			if tt.now.IsZero() {
				tt.now = today
			}
			got, err := tt.ring.Verify([]byte(tt.signed), tt.signature, tt.now)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("got %+v, %v; want an error with %q", got, err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&chantal.Signature{Fingerprint: tt.want, Signed: made, Checked: tt.now}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A clear-signed text is handed over as clearsign gives it: the canonical
// bytes, and the signature out of its armor.
func TestVerifyClearSigned(t *testing.T) {
	for name, ring := range map[string]*Keyring{"clear.asc": load(t, "rsa.asc"), "clear-ed.asc": load(t, "ed.gpg")} {
		block, rest := clearsign.Decode(read(t, name))
		if block == nil || len(rest) != 0 {
			t.Fatalf("%s: not clear-signed, or more than that: %q", name, rest)
		}
		signature, err := io.ReadAll(block.ArmoredSignature.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ring.Verify(block.Bytes, signature, today); err != nil || !got.Signed.Equal(made) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		changed := bytes.Replace(block.Bytes, []byte("stable"), []byte("absent"), 1)
		if got, err := ring.Verify(changed, signature, today); err == nil {
			t.Errorf("%s: another text is good too: %+v", name, got)
		}
	}
}

func TestReadKeys(t *testing.T) {
	tests := map[string]struct {
		body  []byte
		want  []string
		fails string
	}{
		"binary":             {body: read(t, "ed.gpg"), want: []string{ed}},
		"text around blocks": {body: append([]byte("# keys\n"), read(t, "gone.asc")...), want: []string{gone}},
		"one is damaged":     {body: append([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n????\n-----END PGP PUBLIC KEY BLOCK-----\n"), read(t, "rsa.asc")...), want: []string{rsa}},
		"all are damaged":    {body: read(t, "rsa.asc")[:300], fails: "no usable"},
		"no key":             {body: []byte("none"), fails: "no OpenPGP key"},
		"nothing":            {fails: "no OpenPGP key"},
		"signatures only":    {body: read(t, "text.asc"), fails: "no OpenPGP key"},
		"keybox":             {body: []byte("\x00\x00\x00\x20\x01\x01\x00\x02KBXf\x00\x00"), fails: "gpg --export"},
		"too long":           {body: make([]byte, maxKeyring+1), fails: "longer than"},
	}
	for title, tt := range tests {
		k, err := NewKeyring(bytes.NewReader(tt.body))
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%s: got %v, want an error with %q", title, err, tt.fails)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", title, err)
			continue
		}
		if diff := cmp.Diff(tt.want, k.Fingerprints()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", title, diff)
		}
	}
	if _, err := LoadKeyring("testdata/missing.gpg"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if got := load(t, "several.asc").Fingerprints(); len(got) != 3 || got[0] != ec || got[1] != short {
		t.Errorf("several.asc has %v", got)
	}
}

func TestVerifyWithGeneratedKeys(t *testing.T) {
	curve := func(algo packet.PublicKeyAlgorithm, c packet.Curve) *packet.Config {
		return &packet.Config{Algorithm: algo, Curve: c}
	}
	for title, config := range map[string]*packet.Config{
		"RSA 3072":    {Algorithm: packet.PubKeyAlgoRSA, RSABits: 3072},
		"EdDSA":       curve(packet.PubKeyAlgoEdDSA, packet.Curve25519),
		"ECDSA P-384": curve(packet.PubKeyAlgoECDSA, packet.CurveNistP384),
		"version 6":   {Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true},
	} {
		t.Run(title, func(t *testing.T) {
			config.Time = func() time.Time { return made }
			config.DefaultHash = crypto.SHA512
			entity, err := openpgp.NewEntity("Example", "", "key@mirror.example.org", config)
			if err != nil {
				t.Fatal(err)
			}
			var public, signature bytes.Buffer
			if err := entity.Serialize(&public); err != nil {
				t.Fatal(err)
			}
			ring, err := NewKeyring(&public)
			if err != nil {
				t.Fatal(err)
			}
			const text = "a\nb\n"
			if err := openpgp.DetachSign(&signature, []*openpgp.Entity{entity}, strings.NewReader(text), config); err != nil {
				t.Fatal(err)
			}
			got, err := ring.Verify([]byte(text), signature.Bytes(), today)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&chantal.Signature{Fingerprint: ring.Fingerprints()[0], Signed: made, Checked: today}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got, err := ring.Verify([]byte(text+"c"), signature.Bytes(), today); err == nil {
				t.Errorf("another text is good too: %+v", got)
			}
		})
	}
}

func TestSignatureThatRanOutIsRefused(t *testing.T) {
	config := &packet.Config{Time: func() time.Time { return made }, SigLifetimeSecs: 3600}
	entity, err := openpgp.NewEntity("Example", "", "key@mirror.example.org", &packet.Config{Time: config.Time})
	if err != nil {
		t.Fatal(err)
	}
	ring := &Keyring{keys: openpgp.EntityList{entity}}
	var signature bytes.Buffer
	if err := openpgp.DetachSign(&signature, []*openpgp.Entity{entity}, strings.NewReader("x"), config); err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Verify([]byte("x"), signature.Bytes(), made.Add(59*time.Minute)); err != nil {
		t.Errorf("in time: %v", err)
	}
	if got, err := ring.Verify([]byte("x"), signature.Bytes(), made.Add(61*time.Minute)); err == nil {
		t.Errorf("too late, and good: %+v", got)
	}
}

func TestVerifyConcurrently(t *testing.T) {
	ring, text, signature := load(t, "gone.asc"), read(t, "signed.txt"), read(t, "gone.sig")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := ring.Verify(text, signature, today); err == nil {
				t.Errorf("a revoked key is good: %+v", got)
			}
		})
	}
	wg.Wait()
}

func FuzzVerify(f *testing.F) {
	for _, name := range []string{"rsa.sig", "text.asc", "sha1.sig", "ed.sig"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	ring, err := LoadKeyring("testdata/rsa.asc")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, signature []byte) {
		if got, err := ring.Verify([]byte("nobody signed this"), signature, today); err == nil {
			t.Fatalf("good: %+v", got)
		}
	})
}
