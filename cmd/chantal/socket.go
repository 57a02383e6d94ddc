package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path that a socket address holds.
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

// withSocketPath calls use with a path for the socket at path that is short
// enough to be bound or dialed: a longer one goes through an open descriptor
// of its folder.
func withSocketPath(path string, use func(short string) error) error {
	if len(path) <= maxSocketPath {
		return use(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("opening the socket's folder: %w", err)
	}
	defer dir.Close()
	return use("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path))
}

// dialSocket connects to the Unix socket at path, however long that is.
func dialSocket(ctx context.Context, path string) (conn net.Conn, err error) {
	err = withSocketPath(path, func(short string) error {
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", short)
		return err
	})
	return conn, err
}

// listenSocket binds the Unix socket at path, however long that is, for this
// user alone. A file that is there is an error. The caller removes the file
// after closing.
func listenSocket(path string) (listener *net.UnixListener, err error) {
	err = withSocketPath(path, func(short string) error {
		listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		if err != nil {
			return err
		}
		// The short path is gone by the time of Close.
		listener.SetUnlinkOnClose(false)
		return os.Chmod(short, 0o600)
	})
	if err != nil && listener != nil {
		listener.Close()
	}
	return listener, err
}
