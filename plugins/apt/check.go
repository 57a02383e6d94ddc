package apt

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"time"

	"chantal"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// Check implements chantal.Format. With an InRelease that is the main root,
// and it alone decides whether there is a generation, as it does for apt;
// without one Release is, with Release.gpg as its signature. Valid-Until is
// left to the clients: what upstream serves is what they get.
func (f *Format) Check(t chantal.Tree, files map[string][]byte, keys chantal.Keyring, now time.Time) (chantal.Verdict, error) {
	var (
		main       = path.Join(t.Name, inRelease)
		plain      = path.Join(t.Name, release)
		detached   = path.Join(t.Name, releaseGPG)
		text       []byte // of the main root
		v          = chantal.Verdict{Rejected: make(map[string]string)}
		err        error
		rel, isRel = files[plain]
	)
	switch in, ok := files[main]; {
	case ok:
		if text, err = checkInRelease(&v, in, keys, now); err != nil {
			return chantal.Verdict{}, fmt.Errorf("checking %s: %w", main, err)
		}
		v.Roots = []string{main}
		if isRel && !sameText(rel, text) {
			v.Rejected[plain] = "not the same text as InRelease"
			isRel = false
		}
	case isRel:
		if err := checkRelease(&v, rel, files[detached], keys, now); err != nil {
			return chantal.Verdict{}, fmt.Errorf("checking %s: %w", plain, err)
		}
	default:
		return chantal.Verdict{}, fmt.Errorf("checking %s: there is neither an InRelease nor a Release", t.Name)
	}
	if isRel {
		v.Roots = append(v.Roots, plain)
	}
	if signature, ok := files[detached]; ok {
		why := rejectDetached(isRel, rel, signature, keys, now)
		doubt := ""
		if why == "" && keys == nil {
			doubt = f.doubt(rel, signature)
		}
		switch {
		case why != "":
			v.Rejected[detached] = why
		case doubt != "" && v.Roots[0] == main: // clients that have InRelease can do without
			v.Rejected[detached] = doubt
		default:
			v.Roots = append(v.Roots, detached)
			if doubt != "" {
				v.Doubtful = map[string]string{detached: doubt}
			}
		}
	}
	return v, nil
}

// checkInRelease fills in what v says of a clear-signed root and returns the
// text inside the frame.
func checkInRelease(v *chantal.Verdict, b []byte, keys chantal.Keyring, now time.Time) ([]byte, error) {
	opened, err := openFrame(b)
	if err != nil {
		return nil, err
	}
	if keys != nil {
		if v.Signer, err = keys.Verify(opened.signed, opened.signature, now); err != nil {
			return nil, err
		}
	}
	return opened.text, readRelease(v, opened.text, keys)
}

// checkRelease fills in what v says of a Release that has no InRelease beside
// it. Under a keyring it needs its detached signature.
func checkRelease(v *chantal.Verdict, b, signature []byte, keys chantal.Keyring, now time.Time) (err error) {
	if keys != nil {
		if signature == nil {
			return errors.New("not signed: there is neither an InRelease nor a Release.gpg")
		}
		if v.Signer, err = keys.Verify(b, signature, now); err != nil {
			return err
		}
	}
	return readRelease(v, b, keys)
}

func readRelease(v *chantal.Verdict, text []byte, keys chantal.Keyring) error {
	rel, err := parseRelease(text)
	if err != nil {
		return err
	}
	if keys != nil && rel.weak() {
		return errors.New("insufficiently secured: it lists no SHA-256 or SHA-512, and the signature covers only what is listed")
	}
	v.Date = rel.date
	return nil
}

// rejectDetached returns why a Release.gpg does not belong to the generation,
// or "". accepted says whether rel does.
func rejectDetached(accepted bool, rel, signature []byte, keys chantal.Keyring, now time.Time) string {
	switch {
	case !accepted:
		return "there is no Release that it could belong to"
	case keys != nil:
		if _, err := keys.Verify(rel, signature, now); err != nil {
			return "not a signature of Release: " + err.Error()
		}
	case !looksSigned(signature):
		return "not an OpenPGP signature"
	}
	return ""
}

// doubt returns why a Release.gpg may be of another state than Release, as far
// as that can be told without keys; or "".
func (f *Format) doubt(rel, signature []byte) string {
	if f.Belongs == nil {
		return ""
	}
	if err := f.Belongs(rel, signature); err != nil {
		return "not a signature of Release: " + err.Error()
	}
	return ""
}

// looksSigned reports whether b is an OpenPGP signature by its looks: armored,
// or binary, whose first byte has the highest bit set (RFC 9580, section 4.2).
func looksSigned(b []byte) bool {
	if len(b) > 0 && b[0]&0x80 != 0 {
		return true
	}
	block, err := armor.Decode(bytes.NewReader(b))
	return err == nil && block.Type == "PGP SIGNATURE"
}

// sameText compares like a clear-signed message is signed: without white
// space at the end of lines, and without empty lines at the end.
func sameText(a, b []byte) bool {
	const space = " \t\r\n"
	a, b = bytes.TrimRight(a, space), bytes.TrimRight(b, space)
	for len(a) > 0 || len(b) > 0 {
		var x, y []byte
		x, a, _ = bytes.Cut(a, []byte("\n"))
		y, b, _ = bytes.Cut(b, []byte("\n"))
		if !bytes.Equal(bytes.TrimRight(x, space), bytes.TrimRight(y, space)) {
			return false
		}
	}
	return true
}
