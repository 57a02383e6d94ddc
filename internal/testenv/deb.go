package testenv

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"strings"
	"time"
)

// Package describes a .deb, .rpm, wheel or sdist. Two equal values make equal
// files, byte for byte.
type Package struct {
	Name, Version string
	Arch          string // empty for "all", "noarch", "any"
	Depends       string // as the format writes it; empty for nothing
	Size          int    // bytes of incompressible payload, at least 64
	Build         int    // another number gives other bytes under the same name
}

// payload returns Size bytes that depend on the package alone.
func (p Package) payload() []byte {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %s %d", p.Name, p.Version, p.Arch, p.Build)
	var seed [32]byte
	copy(seed[:], h.Sum(nil))
	b := make([]byte, max(p.Size, 64))
	rand.NewChaCha8(seed).Read(b)
	return b
}

// payloadPath is where the payload of a .deb or .rpm is installed.
func (p Package) payloadPath() string { return "usr/share/" + p.Name + "/payload" }

// packed is the one time that stands in archives, so that they can be made
// again.
var packed = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// control returns the fields that dpkg and Packages share, without a blank
// line at the end.
func (p Package) control() string {
	arch := p.Arch
	if arch == "" {
		arch = "all"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Package: %s\nVersion: %s\nArchitecture: %s\n", p.Name, p.Version, arch)
	fmt.Fprintf(&b, "Maintainer: Test <test@example.org>\nInstalled-Size: %d\n", max(p.Size, 64)/1024+1)
	if p.Depends != "" {
		fmt.Fprintf(&b, "Depends: %s\n", p.Depends)
	}
	fmt.Fprintf(&b, "Section: misc\nPriority: optional\nDescription: %s, made for a test\n", p.Name)
	return b.String()
}

// Deb returns a .deb (deb(5), format 2.0) that dpkg installs: one file of
// Size bytes in /usr/share/NAME.
func Deb(p Package) ([]byte, error) {
	body := p.payload()
	sums := fmt.Sprintf("%x  %s\n", md5.Sum(body), p.payloadPath())
	control, err := tarball(gzip.BestSpeed, []tarFile{{"./control", []byte(p.control())}, {"./md5sums", []byte(sums)}})
	if err != nil {
		return nil, fmt.Errorf("deb %s: control: %w", p.Name, err)
	}
	content, err := tarball(gzip.NoCompression, []tarFile{{"./" + p.payloadPath(), body}})
	if err != nil {
		return nil, fmt.Errorf("deb %s: content: %w", p.Name, err)
	}
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range []tarFile{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", control}, {"data.tar.gz", content}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, packed.Unix(), 0, 0, "100644", len(m.content))
		b.Write(m.content)
		if len(m.content)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes(), nil
}

type tarFile struct {
	name    string
	content []byte
}

// tarball packs files, with the folders above them, into a .tar.gz.
func tarball(level int, files []tarFile) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		return nil, err
	}
	t := tar.NewWriter(z)
	made := map[string]bool{}
	for _, f := range files {
		for i := range len(f.name) {
			dir := f.name[:i+1]
			if f.name[i] != '/' || made[dir] {
				continue
			}
			made[dir] = true
			if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: packed}); err != nil {
				return nil, err
			}
		}
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content)), ModTime: packed}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func gzipped(content []byte) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.Copy(z, bytes.NewReader(content)); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func sha256hex(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
