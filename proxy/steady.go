package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// patience is how long a client may take nothing of its answer, or send nothing
// of its request, before it is cut. A slow client that goes on is never cut.
const patience = 2 * time.Minute

// Listen opens a TCP listener whose connections end when a client has taken
// nothing of what is sent to it for minutes, and which lets at most so many of
// them be open at a time; the next ones wait to be accepted.
func Listen(address string, most int) (net.Listener, error) {
	l, err := (&net.ListenConfig{Control: tune}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return steady(l, patience, most), nil
}

func steady(l net.Listener, patience time.Duration, most int) *steadyListener {
	return &steadyListener{Listener: l, patience: patience, open: make(chan struct{}, most), closed: make(chan struct{})}
}

type steadyListener struct {
	net.Listener
	patience time.Duration
	open     chan struct{} // holds an element for every connection
	closed   chan struct{}
	close    sync.Once
}

func (l *steadyListener) Accept() (net.Conn, error) {
	select {
	case l.open <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.open
		return nil, err
	}
	return &steadyConn{Conn: c, patience: l.patience, leave: sync.OnceFunc(func() { <-l.open })}, nil
}

func (l *steadyListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A steadyConn fails a write of which nothing was taken for as long as its
// patience lasts. A server's WriteTimeout would be for all of an answer: too
// short for the large ones, or too long for the rest.
type steadyConn struct {
	net.Conn
	patience time.Duration
	leave    func()
}

func (c *steadyConn) Write(p []byte) (int, error) {
	sum := 0
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
			return sum, err
		}
		n, err := c.Conn.Write(p[sum:])
		sum += n
		if n == 0 || !timedOut(err) {
			return sum, err
		}
	}
}

// ReadFrom leaves files to the kernel. Whatever else is copied goes through
// Write: of a copy in pieces nobody could tell, after a time-out, how much of
// the last one was written.
func (c *steadyConn) ReadFrom(r io.Reader) (int64, error) {
	l, limited := r.(*io.LimitedReader)
	kernel, able := c.Conn.(io.ReaderFrom)
	if limited {
		_, onDisk := l.R.(onDisk)
		able = able && onDisk
	}
	if !limited || !able {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	var sum int64
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
			return sum, err
		}
		left := l.N
		n, err := kernel.ReadFrom(l)
		sum += n
		if n == 0 || l.N != left-n || !timedOut(err) {
			return sum, err
		}
	}
}

func timedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (c *steadyConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite ends one direction, where that can be done.
func (c *steadyConn) CloseWrite() error {
	if half, ok := c.Conn.(writeCloser); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// paced returns r with a body whose sender may pause for as long as patience
// lasts, whether it is read here or by net/http after the answer. net/http has
// a limit for the whole of it, or none. r itself stays as it is: its body tells
// net/http whether the connection can be used again.
func paced(w http.ResponseWriter, r *http.Request) *http.Request {
	if r.Body == nil || r.Body == http.NoBody {
		return r
	}
	b := &pacedBody{r.Body, http.NewResponseController(w)}
	b.wait()
	r = r.WithContext(r.Context())
	r.Body = b
	return r
}

type pacedBody struct {
	io.ReadCloser
	conn *http.ResponseController
}

// wait begins another wait. Where there is no connection to set a deadline on,
// there is none that could be held.
func (b *pacedBody) wait() { _ = b.conn.SetReadDeadline(time.Now().Add(patience)) }

func (b *pacedBody) Read(p []byte) (int, error) {
	b.wait()
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.conn.SetReadDeadline(time.Time{}) // from here on net/http looks for the client's leaving
	}
	return n, err
}
