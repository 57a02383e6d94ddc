package testenv

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// exchange is one request with the right answer to it, which a trick changes,
// breaks off or does not give. What a trick writes goes to the connection as
// it is; that is closed when the trick returns.
type exchange struct {
	conn     net.Conn
	req      *http.Request
	file     File // as it is now; zero where there is none
	old      File // as it was before the last publishing of its prefix
	other    File // what /elsewhere/ has in its place
	released <-chan struct{}

	proto  string
	status int
	header http.Header
	body   []byte
}

// right writes the right answer to r, with conditions and ranges (RFC 9110,
// 13 and 14). A zero File is one that is not there.
func right(w http.ResponseWriter, r *http.Request, f File) {
	if f.Content == nil {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	if f.JSON != nil {
		w.Header().Set("Vary", "Accept")
		if strings.Contains(r.Header.Get("Accept"), SimpleJSON) {
			f.Content, f.Type = f.JSON, SimpleJSON
		}
	}
	w.Header().Set("Content-Type", contentType(r.URL.Path, f))
	if f.tag != "none" {
		w.Header().Set("ETag", cmp.Or(f.tag, fmt.Sprintf(`"%x"`, sha256.Sum256(f.Content))[:18]+`"`))
	}
	http.ServeContent(w, r, "", f.Modified, strings.NewReader(string(f.Content)))
}

// answer makes the right answer for another file than the one asked for.
func (x *exchange) answer(f File) {
	w := httptest.NewRecorder()
	right(w, x.req, f)
	x.proto, x.status, x.header, x.body = "HTTP/1.1", w.Code, w.Header(), w.Body.Bytes()
	x.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if x.header.Get("Content-Length") == "" && x.status != http.StatusNotModified {
		x.length(len(x.body))
	}
}

// whole makes the answer one to a request without a range.
func (x *exchange) whole() {
	x.req.Header.Del("Range")
	x.answer(x.file)
}

// say makes the answer a status with a line of text.
func (x *exchange) say(status int) {
	x.status, x.header, x.body = status, http.Header{"Content-Type": {"text/plain"}}, []byte(http.StatusText(status)+"\n")
	x.length(len(x.body))
}

// to makes the answer a redirect.
func (x *exchange) to(location string) {
	x.say(http.StatusFound)
	x.body = nil
	x.length(0)
	x.set("Location", location)
}

// replace makes the answer the right one for a file with that content.
func (x *exchange) replace(content []byte) {
	x.req.Header.Del("Range")
	x.answer(File{Content: content, Modified: x.file.Modified, Type: x.header.Get("Content-Type")})
}

func (x *exchange) set(key, value string) { x.header.Set(key, value) }
func (x *exchange) del(key string)        { x.header.Del(key) }
func (x *exchange) length(n int)          { x.header.Set("Content-Length", strconv.Itoa(n)) }
func (x *exchange) half() []byte          { return x.body[:len(x.body)/2] }

// change flips a bit of the byte of the body that at/of of it precede.
func (x *exchange) change(at, of int) {
	if n := len(x.body); n > 0 {
		x.body[min(n*at/of, n-1)] ^= 0x20
	}
}

// head returns what stands before the body.
func (x *exchange) head() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %s\r\n", x.proto, x.status, http.StatusText(x.status))
	_ = x.header.Write(&b) // a Builder does not fail
	return b.String() + "\r\n"
}

// send writes the answer as it is by now.
func (x *exchange) send() { x.write(x.head() + string(x.body)) }

// start writes the head and that part of the body.
func (x *exchange) start(part []byte) { x.write(x.head() + string(part)) }

func (x *exchange) write(s string) bool { _, err := io.WriteString(x.conn, s); return err == nil }

// chunked makes the answer one without a length and writes its head.
func (x *exchange) chunked() {
	x.del("Content-Length")
	x.set("Transfer-Encoding", "chunked")
	x.start(nil)
}

// chunk writes one chunk (RFC 9112, 7.1); an empty one is the last.
func (x *exchange) chunk(b []byte) bool { return x.write(fmt.Sprintf("%x\r\n%s\r\n", len(b), b)) }

// flood writes s until nobody takes it any more.
func (x *exchange) flood(s string) {
	for x.write(s) {
	}
}

// drip writes s by the byte, fifty of them a second.
func (x *exchange) drip(s string) {
	for i := range len(s) {
		if !x.write(s[i : i+1]) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// reset ends the connection with an RST in place of a FIN.
func (x *exchange) reset() {
	if tcp, ok := x.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	x.conn.Close()
}

// held returns true when release is closed, false when the client has left.
func (x *exchange) held(release <-chan struct{}) bool {
	left := make(chan struct{})
	go func() { defer close(left); _, _ = io.Copy(io.Discard, x.conn) }()
	select {
	case <-release:
		return true
	case <-left:
		return false
	}
}
