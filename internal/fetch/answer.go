package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	pathpkg "path"
	"strconv"
	"strings"
	"time"

	"chantal"
)

// answer makes a Response of what upstream said, or refuses it as one that
// cannot be used.
func (c *Client) answer(ctx context.Context, r *Request, u *url.URL, x *exchange) (*Response, error) {
	resp := x.resp
	out := &Response{
		Status: resp.StatusCode,
		Header: resp.Header,
		URL:    bare(u),
		ETag:   resp.Header.Get("ETag"),
		Type:   resp.Header.Get("Content-Type"),

		OpenEnded: resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && resp.ProtoMajor < 2,
	}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		out.Modified = t
	}
	var err error
	if coding := Coding(resp.Header, u.Path); coding != "" && !r.Encoded && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent) {
		err = fmt.Errorf("it answered with Content-Encoding %q though asked for the file as it is", coding)
	}
	if err == nil {
		err = out.place(r, resp)
	}
	if err != nil {
		resp.Body.Close()
		x.cancel(nil)
		return nil, &chantal.UpstreamError{URL: out.URL, Status: resp.StatusCode, Err: err}
	}
	if resp.Body == http.NoBody {
		x.cancel(nil)
		out.Body = http.NoBody
		return out, nil
	}
	out.Body = &body{from: resp.Body, url: out.URL, timeout: c.o.Timeout, left: c.o.Timeout, caller: ctx, x: x, stop: func() {}}
	return out, nil
}

// place fills in Size and Offset, and fails where the answer is a part that
// was not asked for.
func (out *Response) place(r *Request, resp *http.Response) error {
	out.Size = resp.ContentLength
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols:
		return errors.New("it switched to a protocol that nobody asked for")
	case http.StatusNotModified, http.StatusNoContent:
		out.Size = -1
	case http.StatusRequestedRangeNotSatisfiable:
		_, _, out.Size = contentRange(resp.Header.Get("Content-Range"))
	case http.StatusPartialContent:
		first, last, total := contentRange(resp.Header.Get("Content-Range"))
		own := r.Header.Get("Range") != ""
		switch {
		case r.Offset > 0 && first != r.Offset, r.Offset <= 0 && !own:
			return fmt.Errorf("it answered with a part that was not asked for: Content-Range %q", resp.Header.Get("Content-Range"))
		case first >= 0 && resp.ContentLength >= 0 && resp.ContentLength != last-first+1:
			return fmt.Errorf("its Content-Length %d contradicts Content-Range %q", resp.ContentLength, resp.Header.Get("Content-Range"))
		}
		out.Offset, out.Size = max(first, 0), total
	}
	return nil
}

// contentRange parses "bytes 5-9/10" (RFC 9110, 14.4); what it does not say is
// -1, and so is everything if it makes no sense.
func contentRange(s string) (first, last, total int64) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return -1, -1, -1
	}
	total = -1
	if n, err := strconv.ParseUint(size, 10, 63); err == nil {
		total = int64(n)
	}
	if span == "*" {
		return -1, -1, total
	}
	a, b, _ := strings.Cut(span, "-")
	m, err1 := strconv.ParseUint(a, 10, 63)
	n, err2 := strconv.ParseUint(b, 10, 63)
	if err1 != nil || err2 != nil || m > n || total >= 0 && int64(n) >= total {
		return -1, -1, -1
	}
	return int64(m), int64(n), total
}

// sameAsName are the encodings that some servers announce for a file that is
// compressed as it lies on disk and has that suffix; its bytes are exact.
var sameAsName = map[string]string{
	".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".br": "br", ".zst": "zstd", ".z": "compress",
}

// Coding returns the Content-Encoding of an answer to a request for path, in
// lower case; "" where the bytes are the file's own: without any, or with one
// that only repeats what the name says.
func Coding(h http.Header, path string) string {
	coding := strings.ToLower(strings.Join(h.Values("Content-Encoding"), ", "))
	switch strings.TrimPrefix(coding, "x-") {
	case "", "identity", sameAsName[strings.ToLower(pathpkg.Ext(path))]:
		return ""
	}
	return coding
}

// slowest is how many bytes a second count as progress.
const slowest = 1 << 10

// body is the body of an answer: it fails when upstream falls silent or sends
// next to nothing, with the errors that Source promises. The clock runs only
// while a Read waits, so a reader may take its time.
type body struct {
	from    io.ReadCloser
	url     string
	timeout time.Duration
	left    time.Duration // how long Reads may still wait; what arrives adds to it, up to timeout
	caller  context.Context
	x       *exchange
	stop    context.CancelFunc // ends what bounds the whole request
	timer   *time.Timer
	failed  error
}

func (b *body) Read(p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	if b.timer == nil {
		b.timer = time.AfterFunc(b.left, func() { b.x.cancel(silence(b.timeout)) })
	} else {
		b.timer.Reset(b.left)
	}
	started := time.Now()
	n, err := b.from.Read(p)
	b.timer.Stop()
	b.left = min(b.timeout, b.left-time.Since(started)+time.Duration(n)*time.Second/slowest)
	if err == nil {
		return n, nil
	}
	b.failed = err
	if err != io.EOF {
		if cause := context.Cause(b.x.ctx); cause != nil {
			err = cause
		}
		b.failed = failure(b.caller, b.url, fmt.Errorf("the answer broke off: %w", err))
	}
	return n, b.failed
}

func (b *body) Close() error {
	err := b.from.Close()
	b.x.cancel(nil)
	b.stop()
	return err
}
