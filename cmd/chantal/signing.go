package main

import (
	"os"
	"path/filepath"
	"sync"
	"time"

	"chantal/internal/config"
	"chantal/internal/sign"
)

// signing is the key that roots made here are signed with, read or made on
// first use.
type signing struct {
	mu   sync.Mutex
	key  *sign.Signer
	from config.Signing // what key was read by
}

// signer returns the configured key, else the own one.
func (n *node) signer() (*sign.Signer, error) {
	n.signing.mu.Lock()
	defer n.signing.mu.Unlock()
	from := n.config.Load().Signing
	if n.signing.key != nil && n.signing.from == from {
		return n.signing.key, nil
	}
	key, err := n.readSigner(from)
	if err != nil {
		return nil, &failure{Message: err.Error(), Next: "see signing: in the configuration", Err: err}
	}
	n.signing.key, n.signing.from = key, from
	return key, nil
}

func (n *node) readSigner(from config.Signing) (*sign.Signer, error) {
	if from.Key == "" {
		key, made, err := sign.OwnSigner(filepath.Join(n.data, "signing"), time.Now())
		if made && err == nil {
			n.log.Warn("a signing key has been made; clients need its public half, /-/key.asc", "fingerprint", key.Fingerprint())
		}
		return key, err
	}
	var passphrase []byte
	if from.PassphraseFile != "" {
		var err error
		if passphrase, err = os.ReadFile(from.PassphraseFile); err != nil {
			return nil, err
		}
	}
	return sign.LoadSigner(from.Key, passphrase, time.Now())
}

// publicKey returns what clients check signatures with.
func (n *node) publicKey() (armored, binary []byte, err error) {
	key, err := n.signer()
	if err != nil {
		return nil, nil, err
	}
	return key.PublicKey(), key.BinaryKey(), nil
}
