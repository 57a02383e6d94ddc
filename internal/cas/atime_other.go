//go:build !linux

package cas

import (
	"io/fs"
	"time"
)

// lastUse returns the mtime: derived files then leave in the order in which
// they were made.
func lastUse(fi fs.FileInfo) time.Time { return fi.ModTime() }

// lastChange returns the mtime, which of a blob is upstream's: only files that
// upstream made a moment ago are then ever in doubt.
func lastChange(fi fs.FileInfo) time.Time { return fi.ModTime() }

// allocated returns the size of a file: what it takes on the disk is not known.
func allocated(fi fs.FileInfo) int64 { return fi.Size() }
