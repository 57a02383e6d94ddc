//go:build !linux

package disk

import "os"

// open opens a file for reading.
func open(name string) (*File, error) { return os.Open(name) }
