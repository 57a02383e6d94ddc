package disk

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Memory is a file that has no name and lies in memory. It is safe for
// concurrent use like an *os.File.
type Memory struct{ *os.File }

// NewMemory makes an empty file in memory; the caller closes it. name is for
// those who look at the process from outside. Its bytes are not counted
// anywhere but in the memory of the machine.
func NewMemory(name string) (*Memory, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return &Memory{os.NewFile(uintptr(fd), name)}, nil
}

// Reopen opens the file once more, for reading and with a position of its own.
// The caller closes that.
func (m *Memory) Reopen() (*File, error) {
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(m.Fd())))
}

// Forget gives the memory of the first n bytes back; they are zeros from now
// on.
func (m *Memory) Forget(n int64) error {
	return os.NewSyscallError("fallocate", unix.Fallocate(int(m.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, n))
}
