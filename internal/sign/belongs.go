package sign

import (
	"bytes"
	"errors"
	"hash"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Belongs tells, without any key, whether a detached signature (binary or
// armored) is one over signed: a signature carries the first 16 bits of the
// hash that it was made over (RFC 9580, section 5.2.3). It proves nothing about
// who signed. An error says that all signatures in it are over something else,
// by the odds of 65,535 to 1 each; what cannot be judged gives none.
func Belongs(signed, signature []byte) error {
	judged := 0
	for block, err := range blocks(signature, openpgp.SignatureType) {
		if err != nil {
			return err
		}
		packets := packet.NewOpaqueReader(bytes.NewReader(block))
		for {
			raw, err := packets.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			if judged++; judged > maxAttempts {
				return nil
			}
			sig := readSignature(raw)
			if sig == nil {
				return nil
			}
			h, err := signedHash(sig, signed)
			if err != nil || packet.VerifyHashTag(h, sig) == nil {
				return nil
			}
		}
	}
	if judged == 0 {
		return errors.New("there is no OpenPGP signature in it")
	}
	return errors.New("the signature is over other bytes")
}

// signedHash is the hash of what sig was made over, without the signature's
// own fields; an error where sig is of a type that is not over a file, or uses
// a hash that is not known here.
func signedHash(sig *packet.Signature, signed []byte) (hash.Hash, error) {
	h, err := sig.PrepareVerify()
	if err != nil {
		return nil, err
	}
	switch sig.SigType {
	case packet.SigTypeBinary:
		h.Write(signed)
	case packet.SigTypeText:
		openpgp.NewCanonicalTextHash(h).Write(signed)
	default:
		return nil, errors.New("not a signature over a file")
	}
	return h, nil
}
