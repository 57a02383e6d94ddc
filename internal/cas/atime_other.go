//go:build !linux

package cas

import (
	"io/fs"
	"time"
)

// lastUse returns the mtime: derived files then leave in the order in which
// they were made.
func lastUse(fi fs.FileInfo) time.Time { return fi.ModTime() }
