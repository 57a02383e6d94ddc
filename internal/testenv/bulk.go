package testenv

import (
	"crypto/md5"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Bulk adds n packages at once, whose files have 200 to 2,000 pseudo-random
// bytes: no .deb, and all the same what Packages says of them. The same seed
// gives the same files.
func (a *APT) Bulk(n int, seed uint64) {
	var key [32]byte
	copy(key[:], fmt.Sprint(seed))
	random := rand.NewChaCha8(key)
	numbers := rand.New(random)
	var b strings.Builder
	for i := range n {
		content := make([]byte, 200+numbers.IntN(1801))
		random.Read(content)
		name := fmt.Sprintf("bulk%d-%06d", seed, i)
		at := fmt.Sprintf("pool/%s/b/%s/%s_1.0_all.deb", a.components()[0], name[:len(name)-2], name)
		a.pool[at] = File{Content: content, Modified: a.date}
		fmt.Fprintf(&b, "Package: %s\nVersion: 1.0\nArchitecture: all\nMaintainer: Somebody <somebody@example.org>\nInstalled-Size: 1\n"+
			"Section: misc\nPriority: optional\nFilename: %s\nSize: %d\nMD5sum: %x\nSHA256: %s\nDescription: package %d of many\n"+
			" It was made for measuring.\n\n", name, at, len(content), md5.Sum(content), sha256hex(content), i)
	}
	a.Stanzas += b.String()
}

// Write puts the files below dir, for servers that read them from there.
func (f Files) Write(dir string) error {
	for at, file := range f {
		name := filepath.Join(dir, filepath.FromSlash(at))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("write files of an upstream: %w", err)
		}
		if err := os.WriteFile(name, file.Content, 0o644); err != nil {
			return fmt.Errorf("write files of an upstream: %w", err)
		}
		if err := os.Chtimes(name, file.Modified, file.Modified); err != nil {
			return fmt.Errorf("write files of an upstream: %w", err)
		}
	}
	return nil
}
