package testenv

import (
	"bytes"
	"crypto"
	"fmt"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Key is an OpenPGP key that signs repositories (RFC 9580). Safe for
// concurrent use.
type Key struct {
	entity *openpgp.Entity
	config *packet.Config
}

// NewKey makes a key (EdDSA, version 4, which every gpgv since 2.2 reads) for
// "name <name@example.org>", valid from made on.
func NewKey(name string, made time.Time) (*Key, error) {
	config := &packet.Config{
		Algorithm:   packet.PubKeyAlgoEdDSA,
		DefaultHash: crypto.SHA256,
		Time:        func() time.Time { return made },
	}
	e, err := openpgp.NewEntity(name, "", name+"@example.org", config)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", name, err)
	}
	return &Key{entity: e, config: config}, nil
}

// Fingerprint returns the primary key's, in upper-case hexadecimal.
func (k *Key) Fingerprint() string { return fmt.Sprintf("%X", k.entity.PrimaryKey.Fingerprint) }

// Public returns the public key, armored.
func (k *Key) Public() ([]byte, error) {
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		return nil, fmt.Errorf("armor key: %w", err)
	}
	if err := k.entity.Serialize(w); err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("armor key: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// Binary returns the public key without armor, as gpgv wants a keyring.
func (k *Key) Binary() ([]byte, error) {
	var b bytes.Buffer
	if err := k.entity.Serialize(&b); err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return b.Bytes(), nil
}

// at returns the settings for a signature made at that time.
func (k *Key) at(t time.Time) *packet.Config {
	c := *k.config
	c.Time = func() time.Time { return t }
	return &c
}

// Clearsign returns text with a signature around it, as InRelease is.
func (k *Key) Clearsign(text []byte, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, k.entity.PrivateKey, k.at(at))
	if err != nil {
		return nil, fmt.Errorf("clearsign: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("clearsign: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("clearsign: %w", err)
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n'), nil
}

// Detach returns an armored signature over signed, as Release.gpg and
// repomd.xml.asc are.
func (k *Key) Detach(signed []byte, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, k.entity, bytes.NewReader(signed), k.at(at)); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if _, err := io.WriteString(&b, "\n"); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
