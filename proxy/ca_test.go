package proxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
)

var caEpoch = time.Date(2026, 11, 23, 8, 15, 0, 0, time.UTC)

func caClock(now *time.Time) func() time.Time { return func() time.Time { return *now } }

func testCA(t *testing.T, now func() time.Time, hosts ...string) *CA {
	t.Helper()
	ca, err := LoadCA(t.TempDir(), hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func (ca *CA) testPool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM())
	return pool
}

func TestCAIsMadeOnceAndKeptPrivate(t *testing.T) {
	dir, now := t.TempDir(), caEpoch
	first, err := LoadCA(dir, []string{"mirror.example.org", "Index.Example.org."}, caClock(&now))
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadCA(dir, []string{"other.example.net"}, caClock(&now))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(first.PEM()), string(again.PEM())); diff != "" {
		t.Errorf("the CA changed when it was loaded again (-first +again):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"index.example.org", "mirror.example.org"}, again.Hosts()); diff != "" {
		t.Errorf("hosts of the CA (-want +got):\n%s", diff)
	}
	modes := map[string]fs.FileMode{"": 0o700, "key.pem": 0o600, "cert.pem": 0o644}
	for name, want := range modes {
		info, err := os.Stat(filepath.Join(dir, "ca", name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of ca/%s: got %o, want %o", name, got, want)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 {
		t.Errorf("ca/ has %d files, want 2: %v", len(entries), entries)
	}
	block, _ := pem.Decode(first.PEM())
	fingerprint, err := hex.DecodeString(strings.ReplaceAll(first.Fingerprint(), ":", ""))
	if err != nil || len(fingerprint) != 32 || block == nil {
		t.Errorf("fingerprint %q is not the form of a SHA-256", first.Fingerprint())
	}
}

func TestCACovers(t *testing.T) {
	ca := testCA(t, time.Now, "mirror.example.org")
	for host, want := range map[string]bool{
		"mirror.example.org":     true,
		"MIRROR.example.org.":    true,
		"a.mirror.example.org":   true, // RFC 5280: a permitted name permits the names below it
		"example.org":            false,
		"xmirror.example.org":    false,
		"*.mirror.example.org":   false,
		"mirror.example.org:443": false,
		"127.0.0.1":              false,
		"::1":                    false,
		"":                       false,
		".mirror.example.org":    false,
		"-.mirror.example.org":   false,
	} {
		if got := ca.Covers(host); got != want {
			t.Errorf("Covers(%q) = %v, want %v", host, got, want)
		}
		_, err := ca.Certificate(host)
		var refused *chantal.RefusedError
		if got := err == nil; got != want || (!want && !errors.As(err, &refused)) {
			t.Errorf("Certificate(%q): error %v", host, err)
		}
	}
}

func TestLeafIsCachedAndRenewed(t *testing.T) {
	now := caEpoch
	ca := testCA(t, caClock(&now), "mirror.example.org")
	mint := func(host string) *x509.Certificate {
		t.Helper()
		pair, err := ca.Certificate(host)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{DNSName: "mirror.example.org", Roots: ca.testPool(), CurrentTime: now})
		if err != nil {
			t.Fatalf("at %s: %v", now, err)
		}
		if got := pair.Leaf.NotAfter.Sub(pair.Leaf.NotBefore); got > 90*24*time.Hour {
			t.Fatalf("the leaf is valid for %s, want at most 90 days", got)
		}
		return pair.Leaf
	}
	first := mint("mirror.example.org")
	now = now.Add(50 * 24 * time.Hour)
	if !mint("Mirror.Example.org").Equal(first) {
		t.Error("the leaf was made anew with 40 days left")
	}
	now = now.Add(20 * 24 * time.Hour)
	if mint("mirror.example.org").Equal(first) {
		t.Error("the leaf was not renewed with 20 days left")
	}
	now = caEpoch.Add(caValidity - 24*time.Hour)
	last := mint("mirror.example.org")
	if last.NotAfter.After(ca.cert.NotAfter) {
		t.Errorf("the leaf ends on %s, after its CA", last.NotAfter)
	}
	if !mint("mirror.example.org").Equal(last) {
		t.Error("a leaf that cannot last longer was made anew")
	}
}

// The constraint has to hold against whoever has the key, so the leaves here
// are signed with it directly.
func TestConstraintHoldsAgainstTheKey(t *testing.T) {
	now := caEpoch
	ca := testCA(t, caClock(&now), "mirror.example.org")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		leaf x509.Certificate
		ok   bool
	}{
		"permitted host": {x509.Certificate{DNSNames: []string{"mirror.example.org"}}, true},
		"other host":     {x509.Certificate{DNSNames: []string{"bank.example.net"}}, false},
		"IPv4 address":   {x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}, false},
		"IPv6 address":   {x509.Certificate{IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}}, false},
		"mail address":   {x509.Certificate{EmailAddresses: []string{"a@mirror.example.org"}}, false},
		"URI":            {x509.Certificate{URIs: []*url.URL{{Scheme: "https", Host: "mirror.example.org", Path: "/"}}}, false},
	} {
		leaf := tc.leaf
		leaf.SerialNumber = big.NewInt(7)
		leaf.NotBefore, leaf.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
		leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		der, err := x509.CreateCertificate(rand.Reader, &leaf, ca.cert, &key.PublicKey, ca.key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		_, err = cert.Verify(x509.VerifyOptions{Roots: ca.testPool(), CurrentTime: now})
		if got := err == nil; got != tc.ok {
			t.Errorf("%s: verified %v, want %v (%v)", name, got, tc.ok, err)
		}
	}
	if !ca.cert.MaxPathLenZero || ca.cert.MaxPathLen != 0 {
		t.Error("the CA may have CAs below it")
	}
}

func TestLoadCARefuses(t *testing.T) {
	now := caEpoch
	load := func(dir string, hosts ...string) error {
		_, err := LoadCA(dir, hosts, caClock(&now))
		return err
	}
	prepared := func() string {
		dir := t.TempDir()
		if err := load(dir, "mirror.example.org"); err != nil {
			t.Fatal(err)
		}
		return dir
	}

	if err := load(t.TempDir()); err == nil {
		t.Error("made a CA for no host at all, which would be one for every host")
	}
	if err := load(t.TempDir(), "192.0.2.1"); err == nil {
		t.Error("made a CA for nothing but an address, which would be one for every host")
	}

	dir := prepared()
	if err := os.Remove(filepath.Join(dir, "ca", "key.pem")); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "ca", "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := load(dir, "mirror.example.org"); err == nil || !strings.Contains(err.Error(), "lost its key") {
		t.Errorf("a CA without its key: got error %v", err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "ca", "cert.pem"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the certificate that clients trust was replaced (%v)", err)
	}

	// A crash between the two files leaves a key alone; that is no CA yet.
	dir = prepared()
	if err := os.Remove(filepath.Join(dir, "ca", "cert.pem")); err != nil {
		t.Fatal(err)
	}
	if err := load(dir, "mirror.example.org"); err != nil {
		t.Errorf("with a key alone: %v", err)
	}

	dir, other := prepared(), prepared()
	key, err := os.ReadFile(filepath.Join(other, "ca", "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca", "key.pem"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := load(dir, "mirror.example.org"); err == nil {
		t.Error("loaded a certificate with another one's key")
	}

	dir = prepared()
	now = now.Add(caValidity + time.Minute)
	if err := load(dir, "mirror.example.org"); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired CA: got error %v", err)
	}
}
