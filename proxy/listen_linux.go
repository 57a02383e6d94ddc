package proxy

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// mostUnsent is how many bytes of an answer wait in the kernel, per connection,
// for a client that does not take them. Without it that is some megabytes, of
// which a third has to go before a slow client is seen to go on.
const mostUnsent = 256 << 10

// tune is inherited by the connections of a listener.
func tune(_, _ string, c syscall.RawConn) (err error) {
	controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, mostUnsent)
	})
	if controlErr != nil {
		return controlErr
	}
	return err
}
