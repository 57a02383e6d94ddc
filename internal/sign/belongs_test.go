package sign

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

func TestBelongsNeedsNoKey(t *testing.T) {
	text := read(t, "signed.txt")
	other := append(bytes.Clone(text), "one more line\n"...)
	for _, name := range []string{"rsa.sig", "ed.sig", "ec.sig", "text.asc"} {
		if err := Belongs(text, read(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := Belongs(other, read(t, name)); err == nil || !strings.Contains(err.Error(), "other bytes") {
			t.Errorf("%s over other bytes: %v", name, err)
		}
	}
	var armored bytes.Buffer
	w, err := armor.Encode(&armored, openpgp.SignatureType, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(read(t, "rsa.sig"))
	w.Close()
	if Belongs(text, armored.Bytes()) != nil || Belongs(other, armored.Bytes()) == nil {
		t.Error("armored, it is judged otherwise")
	}
	// One of several suffices.
	both := append(bytes.Clone(read(t, "other.sig")), read(t, "rsa.sig")...)
	if err := Belongs(text, both); err != nil {
		t.Error(err)
	}
	for _, junk := range []string{"", "<html>", "-----BEGIN PGP SIGNATURE-----\n\n!\n-----END PGP SIGNATURE-----\n", "\xff\xff\xff"} {
		if Belongs(text, []byte(junk)) == nil {
			t.Errorf("%q belongs to everything", junk)
		}
	}
}
