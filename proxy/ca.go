package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"chantal"
)

// How long certificates are valid. Leaves are renewed while a third of their
// time is left, so that no connection starts with one about to end.
const (
	caValidity   = 10 * 365 * 24 * time.Hour
	leafValidity = 90 * 24 * time.Hour
	leafRenewal  = leafValidity / 3
	clockSkew    = time.Hour // by which a client's clock may be behind ours
	leafCacheLen = 1024
)

// nowhere is a name that no host has (RFC 2606): what the CA may sign where it
// is to sign nothing.
const nowhere = ".invalid"

// A CA signs the certificates that intercepted connections are answered with.
// Its own certificate says, in a critical extension (RFC 5280, 4.2.1.10), that
// it is good for the hosts it was made for and for no address, so that a
// stolen key is of no use against any other site. It is safe for concurrent
// use.
type CA struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	now    func() time.Time
	leaves *lru.Cache[string, *tls.Certificate] // by host
}

// LoadCA loads the CA from dir/ca/cert.pem and dir/ca/key.pem. Where there is
// none yet it makes one for hosts and stores it there, the key readable by its
// owner only. An existing CA keeps the hosts that it was made for, whatever
// hosts says; Covers tells which these are.
//
// It is an error to make one for no host, because without a name in it the
// constraint would permit every name; and to load one that has expired, is not
// constrained, or has lost its key.
func LoadCA(dir string, hosts []string, now func() time.Time) (*CA, error) {
	folder := filepath.Join(dir, "ca")
	certPEM, keyPEM, err := readCA(folder)
	if errors.Is(err, fs.ErrNotExist) {
		if certPEM, keyPEM, err = makeCA(hosts, now()); err == nil {
			err = writeCA(folder, certPEM, keyPEM)
		}
		if err != nil {
			return nil, fmt.Errorf("making a CA in %s: %w", folder, err)
		}
	}
	if err != nil {
		return nil, err
	}
	ca, err := parseCA(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("loading the CA in %s: %w", folder, err)
	}
	if end := ca.cert.NotAfter; now().After(end) {
		return nil, fmt.Errorf("the CA in %s has expired on %s; remove that folder to have a new one made, and give clients the new certificate",
			folder, end.UTC().Format(time.DateOnly))
	}
	ca.now = now
	return ca, nil
}

// PEM returns the certificate that clients have to trust.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Fingerprint returns the SHA-256 of the certificate as other tools print it:
// pairs of upper-case digits with colons between them.
func (ca *CA) Fingerprint() string {
	sum := sha256.Sum256(ca.cert.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

// Hosts returns the hosts that the CA was made for.
func (ca *CA) Hosts() []string { return slices.Clone(ca.cert.PermittedDNSDomains) }

// Covers reports whether clients accept a certificate of this CA for host: one
// of the hosts that it was made for or a name below one of these. An address
// is never covered.
func (ca *CA) Covers(host string) bool {
	host, ok := dnsName(host)
	if !ok {
		return false
	}
	return slices.ContainsFunc(ca.cert.PermittedDNSDomains, func(permitted string) bool {
		return host == permitted || strings.HasSuffix(host, "."+permitted)
	})
}

// Certificate returns a certificate for host, with its key, that is valid for
// 30 to 90 days from now, or as long as the CA. The error for a host that the
// CA does not cover is a *chantal.RefusedError.
func (ca *CA) Certificate(host string) (*tls.Certificate, error) {
	if !ca.Covers(host) {
		return nil, &chantal.RefusedError{
			What: "certificate for " + host,
			Why:  "the CA was made before this host was configured and may not sign for it",
		}
	}
	host, _ = dnsName(host)
	now := ca.now()
	if leaf, ok := ca.leaves.Get(host); ok && ca.fresh(leaf.Leaf, now) {
		return leaf, nil
	}
	leaf, err := ca.mint(host, now)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for %s: %w", host, err)
	}
	ca.leaves.Add(host, leaf)
	return leaf, nil
}

// fresh reports whether a leaf may still be handed out. One that ends with the
// CA is used up to its end: a new one would not last longer.
func (ca *CA) fresh(leaf *x509.Certificate, now time.Time) bool {
	if now.Before(leaf.NotBefore) {
		return false // the clock was set back
	}
	return leaf.NotAfter.Sub(now) > leafRenewal || !leaf.NotAfter.Before(ca.cert.NotAfter)
}

func (ca *CA) mint(host string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	start := now.Add(-clockSkew)
	end := start.Add(leafValidity)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The subject stays empty of names: a common name is limited to 64
		// bytes, which a host name may exceed, and is not looked at.
		Subject:               pkix.Name{Organization: []string{"Chantal"}},
		NotBefore:             start,
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{host},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// makeCA returns a new certificate and its key in PEM form.
func makeCA(hosts []string, now time.Time) (certPEM, keyPEM []byte, err error) {
	var permitted []string
	for _, h := range hosts {
		if name, ok := dnsName(h); ok {
			permitted = append(permitted, name)
		}
	}
	slices.Sort(permitted)
	permitted = slices.Compact(permitted)
	if len(permitted) == 0 {
		return nil, nil, errors.New("no repository with a host name is configured, and the CA is limited to such hosts; configure one first")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			Organization: []string{"Chantal"},
			// Two CAs of the same name confuse clients that trust both.
			CommonName: fmt.Sprintf("Chantal CA %x", serial.Bytes()[:4]),
		},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,

		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         permitted,
		// A constraint on DNS names leaves all other kinds of names free.
		ExcludedIPRanges: []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		},
		PermittedEmailAddresses: []string{nowhere},
		PermittedURIDomains:     []string{nowhere},
	}
	certDER, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// parseCA returns the CA without its clock.
func parseCA(certPEM, keyPEM []byte) (*CA, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the key is no ECDSA key")
	}
	cert := pair.Leaf
	if !cert.IsCA || !cert.PermittedDNSDomainsCritical || len(cert.PermittedDNSDomains) == 0 || len(cert.ExcludedIPRanges) < 2 {
		return nil, errors.New("the certificate is not limited to certain hosts; remove the folder to have a new one made")
	}
	leaves, err := lru.New[string, *tls.Certificate](leafCacheLen)
	if err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key, leaves: leaves}, nil
}

// newSerial returns a positive number of 16 bytes.
func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40 // positive, and never shorter
	return new(big.Int).SetBytes(b[:]), nil
}

// dnsName returns host in lower case without a trailing dot; ok is false for
// an address and for what is no host name.
func dnsName(host string) (name string, ok bool) {
	name = strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "" || len(name) > 253 || net.ParseIP(name) != nil {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", false
			}
		}
	}
	return name, true
}

// readCA returns both files of the folder. The error is fs.ErrNotExist if
// there is no certificate; a certificate without its key is another error,
// because clients trust it already and a new one would lock them out.
func readCA(folder string) (certPEM, keyPEM []byte, err error) {
	certPEM, err = os.ReadFile(filepath.Join(folder, "cert.pem"))
	if err != nil {
		return nil, nil, err
	}
	keyFile := filepath.Join(folder, "key.pem")
	keyPEM, err = os.ReadFile(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("the CA has lost its key %s; put it back, or remove the folder to have a new CA made", keyFile)
	}
	return certPEM, keyPEM, err
}

// writeCA stores both files. The certificate comes last and in one step: until
// it is there, there is no CA.
func writeCA(folder string, certPEM, keyPEM []byte) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		pem  []byte
		mode os.FileMode
	}{{"key.pem", keyPEM, 0o600}, {"cert.pem", certPEM, 0o644}} {
		temp, err := os.CreateTemp(folder, ".new-*")
		if err != nil {
			return err
		}
		_, err = bytes.NewReader(f.pem).WriteTo(temp)
		err = errors.Join(err, temp.Chmod(f.mode), temp.Sync(), temp.Close())
		if err == nil {
			err = os.Rename(temp.Name(), filepath.Join(folder, f.name))
		}
		if err != nil {
			return errors.Join(err, os.Remove(temp.Name()))
		}
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
