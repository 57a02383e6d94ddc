// Package sign checks OpenPGP signatures (RFC 9580) for those who must know
// whether upstream made a root.
//
// It knows nothing of repositories: it is handed bytes and a signature over
// them, and says which key of its ring vouches for them.
package sign

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"chantal"
)

const (
	// maxKeyring is how long a keyring may be, in bytes; distributions' are
	// below 100 KiB.
	maxKeyring = 16 << 20

	// maxAttempts is how many signatures by known keys are tried. Each costs a
	// hash over all that is signed, and upstream decides how many there are.
	maxAttempts = 32

	// maxAhead is how far in the future a signature may lie: clocks differ.
	maxAhead = 24 * time.Hour
)

// Keyring is a set of public keys whose signatures count. It implements
// chantal.Keyring and is safe for concurrent use.
type Keyring struct {
	mu   sync.Mutex // the library keeps notes in the keys while it verifies
	keys openpgp.EntityList
}

var _ chantal.Keyring = (*Keyring)(nil)

// LoadKeyring reads the OpenPGP keys in the file at path, as NewKeyring does.
func LoadKeyring(path string) (*Keyring, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	defer f.Close()
	k, err := NewKeyring(f)
	if err != nil {
		return nil, fmt.Errorf("keyring %s: %w", path, err)
	}
	return k, nil
}

// NewKeyring reads OpenPGP keys to the end of r: binary, or one or more
// armored blocks with anything around them. A key that cannot be read (of an
// obsolete version, say) is passed over; it is an error if none is left.
func NewKeyring(r io.Reader) (*Keyring, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxKeyring+1))
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	switch {
	case len(body) > maxKeyring:
		return nil, fmt.Errorf("it is longer than %d bytes", maxKeyring)
	case len(body) >= 12 && string(body[8:12]) == "KBXf":
		return nil, errors.New("it is a GnuPG keybox; write its keys out with gpg --export")
	}
	var k Keyring
	var problem error
	for block, err := range blocks(body, openpgp.PublicKeyType, openpgp.PrivateKeyType) {
		if err == nil {
			var keys openpgp.EntityList
			keys, err = openpgp.ReadKeyRing(bytes.NewReader(block))
			k.keys = append(k.keys, keys...)
		}
		if err != nil && problem == nil {
			problem = err
		}
	}
	switch {
	case len(k.keys) > 0:
		return &k, nil
	case problem != nil:
		return nil, fmt.Errorf("no usable OpenPGP key in it: %w", problem)
	}
	return nil, errors.New("no OpenPGP key in it")
}

// Fingerprints returns the fingerprints of the ring's primary keys, in
// upper-case hexadecimal, in the order in which they were read.
func (k *Keyring) Fingerprints() []string {
	all := make([]string, 0, len(k.keys))
	for _, key := range k.keys {
		all = append(all, fingerprint(key))
	}
	return all
}

func fingerprint(key *openpgp.Entity) string { return fmt.Sprintf("%X", key.PrimaryKey.Fingerprint) }

// blocks yields the binary OpenPGP packets in body: body itself when it is
// binary, else the content of each armored block of one of the types.
func blocks(body []byte, types ...string) func(yield func([]byte, error) bool) {
	return func(yield func([]byte, error) bool) {
		if len(body) > 0 && body[0]&0x80 != 0 { // every packet begins so, and no text does
			yield(body, nil)
			return
		}
		const begin = "-----BEGIN PGP "
		for {
			i := bytes.Index(body, []byte(begin))
			if i < 0 {
				return
			}
			body = body[i:]
			one := body
			if next := bytes.Index(body[len(begin):], []byte(begin)); next >= 0 {
				one = body[:len(begin)+next]
			}
			body = body[len(begin):]
			block, err := armor.Decode(bytes.NewReader(one))
			if err != nil {
				if !yield(nil, fmt.Errorf("damaged armor: %w", err)) {
					return
				}
				continue
			}
			known := false
			for _, t := range types {
				known = known || block.Type == t
			}
			if !known {
				continue
			}
			if content, err := io.ReadAll(block.Body); !yield(content, err) {
				return
			}
		}
	}
}

// Verify implements chantal.Keyring. Of several signatures, in one blob or in
// several armored blocks, one good one suffices, whatever the others are. A
// signature is not good when it uses MD5 or SHA-1, has expired, lies more than
// a day after now, or was made by a key that had expired by then, is too weak
// to mean anything (RSA below 2048 bits, DSA), or has been revoked, at
// whatever time. The error says what was wrong with those by known keys, or
// which unknown keys signed.
//
// A signature of the text type (0x01) is over lines that end in CR LF; signed
// may have them or not.
func (k *Keyring) Verify(signed, signature []byte, now time.Time) (*chantal.Signature, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var problems []error
	var unknown []string
	attempts := 0
	for block, err := range blocks(signature, openpgp.SignatureType) {
		if err != nil {
			problems = append(problems, err)
			continue
		}
		packets := packet.NewOpaqueReader(bytes.NewReader(block))
		for {
			raw, err := packets.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				problems = append(problems, fmt.Errorf("damaged signature: %w", err))
				break
			}
			sig := readSignature(raw)
			if sig == nil {
				continue
			}
			keys := k.keys.EntitiesById(*sig.IssuerKeyId)
			if len(keys) == 0 && len(unknown) < maxAttempts {
				unknown = append(unknown, fmt.Sprintf("%016X", *sig.IssuerKeyId))
			}
			for _, key := range keys { // several when the ring has a key in two states
				if attempts++; attempts > maxAttempts {
					return nil, fmt.Errorf("more than %d signatures: %w", maxAttempts, errors.Join(problems...))
				}
				if err := verify(key, sig, raw, signed, now); err != nil {
					problems = append(problems, fmt.Errorf("key %s: %w", fingerprint(key), err))
					continue
				}
				return &chantal.Signature{Fingerprint: fingerprint(key), Signed: sig.CreationTime.UTC(), Checked: now}, nil
			}
		}
	}
	switch {
	case len(problems) > 0:
		return nil, fmt.Errorf("no good signature: %w", problems[0])
	case len(unknown) > 0:
		return nil, fmt.Errorf("no good signature: the keyring does not have key %s", strings.Join(unknown, ", "))
	}
	return nil, errors.New("no good signature: there is none at all")
}

// readSignature returns the signature in raw if it is one that names the key
// it was made by, else nil.
func readSignature(raw *packet.OpaquePacket) *packet.Signature {
	p, err := raw.Parse()
	if err != nil {
		return nil
	}
	sig, ok := p.(*packet.Signature)
	if !ok || sig.IssuerKeyId == nil {
		return nil
	}
	return sig
}

// verify returns what is wrong with one signature made by key, or nil.
func verify(key *openpgp.Entity, sig *packet.Signature, raw *packet.OpaquePacket, signed []byte, now time.Time) error {
	if ahead := sig.CreationTime.Sub(now); ahead > maxAhead {
		return fmt.Errorf("signed at %s, which is in the future", sig.CreationTime.UTC().Format(time.RFC3339))
	}
	if err := revoked(key, *sig.IssuerKeyId, now); err != nil {
		return err
	}
	asOf := now
	if sig.CreationTime.After(asOf) { // by a clock that is ahead of ours
		asOf = sig.CreationTime
	}
	config := &packet.Config{
		Time: func() time.Time { return asOf },
		// Old vendor keys say nothing of what they are for. A subkey has to,
		// for it is the flag that makes the library look for its consent.
		InsecureAllowAllKeyFlagsWhenMissing: *sig.IssuerKeyId == key.PrimaryKey.KeyId,
	}
	var one bytes.Buffer
	if err := raw.Serialize(&one); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	_, _, err := openpgp.VerifyDetachedSignature(openpgp.EntityList{key}, bytes.NewReader(signed), &one, config)
	return err
}

// revoked returns an error if the key, or the subkey with that id, has been
// revoked by now. The library minds a harmless reason (superseded, retired)
// only for signatures made later; but whoever took a key out of use says so
// because its signatures are to count no more.
func revoked(key *openpgp.Entity, id uint64, now time.Time) error {
	if key.Revoked(now) {
		return errors.New("the key has been revoked")
	}
	for i := range key.Subkeys {
		if sub := &key.Subkeys[i]; sub.PublicKey.KeyId == id && sub.Revoked(nil, now) {
			return errors.New("the subkey has been revoked")
		}
	}
	return nil
}
