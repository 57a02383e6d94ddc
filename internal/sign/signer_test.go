package sign

import (
	"bytes"
	"crypto"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

var signedAt = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func TestWhatIsSignedVerifies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "signing")
	s, made, err := OwnSigner(dir, signedAt)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "key.asc")); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	again, made, err := OwnSigner(dir, signedAt.Add(time.Hour))
	if err != nil || made || again.Fingerprint() != s.Fingerprint() || !bytes.Equal(again.PublicKey(), s.PublicKey()) {
		t.Fatalf("the key is made anew: %v %v", made, err)
	}
	text := []byte("Origin: Example\n- not a header  \n\nFrom here\nDate: now\n")
	for _, public := range [][]byte{s.PublicKey(), s.BinaryKey()} {
		ring, err := NewKeyring(bytes.NewReader(public))
		if err != nil {
			t.Fatal(err)
		}
		detached, err := again.DetachSign(text, signedAt.Add(-time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		sig, err := ring.Verify(text, detached, signedAt)
		if err != nil || sig.Fingerprint != s.Fingerprint() || !sig.Signed.Equal(signedAt.Add(-time.Minute)) {
			t.Fatalf("%+v %v", sig, err)
		}
		if _, err := ring.Verify(append([]byte("x"), text...), detached, signedAt); err == nil {
			t.Error("a signature over other text is good")
		}
		clear, err := again.ClearSign(text, signedAt)
		if err != nil {
			t.Fatal(err)
		}
		block, rest := clearsign.Decode(clear)
		if block == nil || len(rest) > 0 || !strings.Contains(string(clear), "Hash: SHA512") {
			t.Fatalf("%s", clear)
		}
		if keys, _ := openpgp.ReadArmoredKeyRing(bytes.NewReader(s.PublicKey())); len(keys) != 1 || len(keys[0].Subkeys) > 0 {
			t.Errorf("more than a key to sign with: %v", keys)
		}
		var body bytes.Buffer
		if _, err := body.ReadFrom(block.ArmoredSignature.Body); err != nil {
			t.Fatal(err)
		}
		if _, err := ring.Verify(block.Bytes, body.Bytes(), signedAt); err != nil {
			t.Error(err)
		}
		if want := "Origin: Example\n- not a header\n\nFrom here\nDate: now"; string(block.Plaintext) != want {
			t.Errorf("%q", block.Plaintext)
		}
		// gpgv wants the checksum.
		for _, armor := range []string{string(clear), string(detached)} {
			lines := strings.Split(strings.TrimSpace(armor), "\n")
			if sum := lines[len(lines)-2]; len(sum) != 5 || sum[0] != '=' {
				t.Errorf("the signature ends with %q", lines[len(lines)-2:])
			}
		}
	}
}

// keyFile writes a private key made with config into a file.
func keyFile(t *testing.T, config *packet.Config, change func(*openpgp.Entity)) string {
	t.Helper()
	e, err := openpgp.NewEntity("test", "", "", config)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.SerializePrivate(&bytes.Buffer{}, config); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(e)
	}
	if err := e.SerializePrivateWithoutSigning(&b, config); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.gpg")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestKeysThatAreNotFitToSign(t *testing.T) {
	at := func(t time.Time) func() time.Time { return func() time.Time { return t } }
	ed := func() *packet.Config {
		return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, DefaultHash: crypto.SHA512, Time: at(signedAt.Add(-time.Hour))}
	}
	good := keyFile(t, ed(), nil)
	if _, err := LoadSigner(good, nil, signedAt); err != nil {
		t.Fatal(err)
	}
	encrypted := keyFile(t, ed(), func(e *openpgp.Entity) {
		if err := e.EncryptPrivateKeys([]byte("secret"), nil); err != nil {
			t.Fatal(err)
		}
	})
	if s, err := LoadSigner(encrypted, []byte("secret\n"), signedAt); err != nil {
		t.Error(err)
	} else if _, err := s.DetachSign([]byte("x"), signedAt); err != nil {
		t.Error(err)
	}
	public := filepath.Join(t.TempDir(), "public.asc")
	s, err := LoadSigner(good, nil, signedAt)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(public, s.PublicKey(), 0o600); err != nil {
		t.Fatal(err)
	}
	short := &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 1024, Time: at(signedAt.Add(-time.Hour))}
	old := ed()
	old.KeyLifetimeSecs = 60
	future := ed()
	future.Time = at(signedAt.Add(time.Hour))
	none := filepath.Join(t.TempDir(), "none")
	if err := os.WriteFile(none, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	v6 := ed()
	v6.Algorithm, v6.V6Keys = packet.PubKeyAlgoEd25519, true
	for what, c := range map[string]struct {
		path       string
		passphrase []byte
		say        string
	}{
		"encrypted": {encrypted, nil, "signing.passphrase_file"}, "another passphrase": {encrypted, []byte("other"), "passphrase"},
		"public": {public, nil, "public half"}, "short": {keyFile(t, short, nil), nil, "1024 bits"},
		"expired": {keyFile(t, old, nil), nil, "expired"}, "of the future": {keyFile(t, future, nil), nil, "valid key"},
		"no key": {none, nil, "0 OpenPGP keys"}, "version 6": {keyFile(t, v6, nil), nil, "version 6"},
	} {
		if _, err := LoadSigner(c.path, c.passphrase, signedAt); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := LoadSigner(filepath.Join(t.TempDir(), "key"), nil, signedAt); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
