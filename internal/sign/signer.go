package sign

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"chantal"
)

const (
	// rsaBits: RSA of version 4 is what every gpgv, rpm and Sequoia reads that
	// is in use; 3072 bits are on no policy's list of things to come to an end.
	rsaBits = 3072
	// leastBits is what today's policies still take.
	leastBits = 2048

	// keyAge is how far a new key is back-dated, so that a client whose clock
	// is late does not take it for one of the future.
	keyAge = 24 * time.Hour

	keyOwner = "Chantal" // the user id; who signs is told by the fingerprint
)

// Signer signs with one key. It implements chantal.Signer.
type Signer struct {
	mu     sync.Mutex // the library keeps notes in the keys
	entity *openpgp.Entity
	public []byte // armored
}

var _ chantal.Signer = (*Signer)(nil)

// LoadSigner reads an OpenPGP private key, armored or binary, from the file at
// path. passphrase decrypts it; nil where it is not encrypted. The error says
// why the key is not fit to sign with now.
func LoadSigner(path string, passphrase []byte, now time.Time) (*Signer, error) {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	s, err := readSigner(body, passphrase, now)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	return s, nil
}

// OwnSigner reads the key in the folder dir, and makes one where there is none:
// made is true then, and the key is durable.
func OwnSigner(dir string, now time.Time) (s *Signer, made bool, err error) {
	path := filepath.Join(dir, "key.asc")
	s, err = LoadSigner(path, nil, now)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, false, err
	}
	config := &packet.Config{
		Algorithm: packet.PubKeyAlgoRSA, RSABits: rsaBits, DefaultHash: crypto.SHA512,
		Time: func() time.Time { return now.Add(-keyAge) },
	}
	entity, err := openpgp.NewEntity(keyOwner, "", "", config)
	if err != nil {
		return nil, false, fmt.Errorf("making a signing key: %w", err)
	}
	entity.Subkeys = nil // for encryption
	var text bytes.Buffer
	err = armored(&text, openpgp.PrivateKeyType, func(w io.Writer) error { return entity.SerializePrivate(w, config) })
	if err == nil {
		err = keepFile(dir, path, text.Bytes())
	}
	if err != nil {
		return nil, false, fmt.Errorf("keeping the signing key: %w", err)
	}
	s, err = newSigner(entity)
	return s, true, err
}

// keepFile writes a file that only its owner reads, whole or not at all. It is
// durable when keepFile returns.
func keepFile(dir, path string, content []byte) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	temp, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readSigner reads the one key in body.
func readSigner(body, passphrase []byte, now time.Time) (*Signer, error) {
	var keys openpgp.EntityList
	for block, err := range blocks(body, openpgp.PrivateKeyType, openpgp.PublicKeyType) {
		if err != nil {
			return nil, err
		}
		more, err := openpgp.ReadKeyRing(bytes.NewReader(block))
		if err != nil {
			return nil, fmt.Errorf("no OpenPGP key: %w", err)
		}
		keys = append(keys, more...)
	}
	if len(keys) != 1 {
		return nil, fmt.Errorf("%d OpenPGP keys in it, not one", len(keys))
	}
	entity := keys[0]
	if entity.PrivateKey == nil {
		return nil, errors.New("it is the public half only; write the private key out with gpg --armor --export-secret-keys")
	}
	if err := decrypt(entity, passphrase); err != nil {
		return nil, err
	}
	if err := fitness(entity, now); err != nil {
		return nil, err
	}
	return newSigner(entity)
}

func decrypt(entity *openpgp.Entity, passphrase []byte) error {
	encrypted := entity.PrivateKey.Encrypted
	for _, sub := range entity.Subkeys {
		encrypted = encrypted || sub.PrivateKey != nil && sub.PrivateKey.Encrypted
	}
	switch {
	case !encrypted:
		return nil
	case passphrase == nil:
		return errors.New("it is encrypted: name the file that holds its passphrase with signing.passphrase_file")
	}
	if err := entity.DecryptPrivateKeys(bytes.TrimRight(passphrase, "\r\n")); err != nil {
		return errors.New("the passphrase in signing.passphrase_file is not the key's")
	}
	return nil
}

// fitness returns why nobody would take signatures by the key, or nil.
func fitness(entity *openpgp.Entity, now time.Time) error {
	if entity.PrimaryKey.Version > 4 {
		return fmt.Errorf("it is of version %d, which gpgv and rpm do not read; version 4 is what they do", entity.PrimaryKey.Version)
	}
	if err := revoked(entity, entity.PrimaryKey.KeyId, now); err != nil {
		return err
	}
	if self, _ := entity.PrimarySelfSignature(now, nil); self != nil && entity.PrimaryKey.KeyExpired(self, now) {
		return errors.New("it has expired")
	}
	key, err := signingKey(entity, now)
	if err != nil {
		return err
	}
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoDSA, packet.PubKeyAlgoElGamal:
		return errors.New("it is a DSA key, which no client takes any longer; RSA of 3072 bits is what all of them do")
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if bits, err := key.BitLength(); err != nil || bits < leastBits {
			return fmt.Errorf("it has %d bits; clients want %d, better %d", bits, leastBits, rsaBits)
		}
	}
	return nil
}

// signingKey returns the key of the entity that signs, which may be a subkey.
func signingKey(entity *openpgp.Entity, at time.Time) (*packet.PrivateKey, error) {
	// What is too weak is told apart from what is not there by fitness.
	key, ok := entity.SigningKey(at, &packet.Config{
		InsecureAllowAllKeyFlagsWhenMissing: true, MinRSABits: 1, RejectPublicKeyAlgorithms: map[packet.PublicKeyAlgorithm]bool{},
	})
	if !ok || key.PrivateKey == nil || key.PrivateKey.Encrypted {
		return nil, errors.New("it has no valid key to sign with: expired, revoked, or its private half is not there")
	}
	return key.PrivateKey, nil
}

func newSigner(entity *openpgp.Entity) (*Signer, error) {
	var public bytes.Buffer
	if err := armored(&public, openpgp.PublicKeyType, entity.Serialize); err != nil {
		return nil, err
	}
	return &Signer{entity: entity, public: public.Bytes()}, nil
}

// armored writes what write writes in ASCII armor (RFC 9580, section 6.2).
func armored(to *bytes.Buffer, kind string, write func(io.Writer) error) error {
	w, err := armor.Encode(to, kind, nil)
	if err == nil {
		err = errors.Join(write(w), w.Close())
	}
	to.WriteByte('\n')
	return err
}

// Fingerprint returns the primary key's, in upper-case hexadecimal.
func (s *Signer) Fingerprint() string { return fingerprint(s.entity) }

// PublicKey implements chantal.Signer.
func (s *Signer) PublicKey() []byte { return s.public }

// BinaryKey returns the public key without armor.
func (s *Signer) BinaryKey() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	_ = s.entity.Serialize(&b) // it has been written before
	return b.Bytes()
}

// sign returns an armored signature of that type over signed, made at that
// time; not before there was the key.
func (s *Signer) sign(kind packet.SignatureType, signed []byte, at time.Time) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if made := s.entity.PrimaryKey.CreationTime; at.Before(made) {
		at = made
	}
	var b bytes.Buffer
	err := func() error {
		key, err := signingKey(s.entity, at)
		if err != nil {
			return err
		}
		sig := &packet.Signature{
			Version: key.PublicKey.Version, SigType: kind, PubKeyAlgo: key.PubKeyAlgo, Hash: crypto.SHA512,
			CreationTime: at, IssuerKeyId: &key.KeyId, IssuerFingerprint: key.Fingerprint,
		}
		plain := false
		config := &packet.Config{Time: func() time.Time { return at }, NonDeterministicSignaturesViaNotation: &plain}
		h, err := sig.PrepareSign(config)
		if err != nil {
			return err
		}
		h.Write(signed)
		if err := sig.Sign(h, key, config); err != nil {
			return err
		}
		return armored(&b, openpgp.SignatureType, sig.Serialize)
	}()
	if err != nil {
		return nil, fmt.Errorf("signing with key %s: %w", fingerprint(s.entity), err)
	}
	return b.Bytes(), nil
}

// ClearSign implements chantal.Signer (RFC 9580, section 7). The library's own
// writes no checksum behind the signature, without which gpgv takes the last
// line of the armor for content where the signature fills its last line.
func (s *Signer) ClearSign(text []byte, at time.Time) ([]byte, error) {
	var signed, b bytes.Buffer
	b.WriteString("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n")
	first := true
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, " \t\r\n")
		if !first {
			signed.WriteString("\r\n")
		}
		first = false
		signed.Write(line)
		if bytes.HasPrefix(line, []byte("-")) || bytes.HasPrefix(line, []byte("From ")) {
			b.WriteString("- ")
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	signature, err := s.sign(packet.SigTypeText, signed.Bytes(), at)
	b.Write(signature)
	return b.Bytes(), err
}

// DetachSign implements chantal.Signer.
func (s *Signer) DetachSign(body []byte, at time.Time) ([]byte, error) {
	return s.sign(packet.SigTypeBinary, body, at)
}
