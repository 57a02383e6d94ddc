package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"chantal"
	"chantal/internal/fetch"
	"chantal/internal/testenv"
)

// trouble is a way to answer wrongly.
type trouble string

const (
	missing     trouble = "missing"     // 404
	unavailable trouble = "unavailable" // 503
	down        trouble = "down"        // no answer
	truncated   trouble = "truncated"   // the right size, half the body, then an error
	short       trouble = "short"       // no size, half the body, a clean end
	corrupt     trouble = "corrupt"     // one byte in the middle is another one
	tail        trouble = "tail"        // the last byte is another one
	long        trouble = "long"        // no size, ten bytes too many
	lying       trouble = "lying"       // a size that is ten bytes too large
	portal      trouble = "portal"      // somebody else's page
	stalled     trouble = "stalled"     // half the body, the rest when released
	silent      trouble = "silent"      // no answer before it is released
	elsewhere   trouble = "elsewhere"   // another part than the one asked for
	norange     trouble = "norange"     // 400 to whoever asks for a part
	coarse      trouble = "coarse"      // an ETag made of the date alone
)

// upstream is a fetch.Source that serves files by URL, and fails on demand.
type upstream struct {
	mu       sync.Mutex
	files    map[string]testenv.File
	troubles []*inTrouble
	after    map[string]func() // by suffix of a URL: called once, after it was answered
	asked    []fetch.Request
	released chan struct{}
}

type inTrouble struct {
	kind trouble
	part string // what the URL contains
	left int    // requests; -1 for all
}

func newUpstream() *upstream {
	return &upstream{files: map[string]testenv.File{}, after: map[string]func(){}, released: make(chan struct{})}
}

// publish replaces what is below base, which ends in a slash.
func (u *upstream) publish(base string, files testenv.Files) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.files, func(at string, _ testenv.File) bool { return strings.HasPrefix(at, base) })
	for p, f := range files {
		u.files[base+p] = f
	}
}

// put replaces one file; nil removes it.
func (u *upstream) put(at string, content []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.files, at)
	if content != nil {
		u.files[at] = testenv.File{Content: content}
	}
}

// fail lets the next times requests for URLs that contain part fail; all of
// them when times is negative.
func (u *upstream) fail(kind trouble, part string, times int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.troubles = append(u.troubles, &inTrouble{kind, part, times})
}

// heal ends all troubles.
func (u *upstream) heal() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.troubles = nil
	close(u.released)
	u.released = make(chan struct{})
}

// then calls f once, after the next request for a URL with that suffix.
func (u *upstream) then(suffix string, f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.after[suffix] = f
}

// requests returns the requests for URLs that contain part.
func (u *upstream) requests(part string) []fetch.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(u.asked), func(r fetch.Request) bool { return !strings.Contains(r.URL, part) })
}

func (u *upstream) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked = nil
}

// Fetch implements fetch.Source.
func (u *upstream) Fetch(ctx context.Context, r *fetch.Request) (*fetch.Response, error) {
	u.mu.Lock()
	u.asked = append(u.asked, *r)
	f, ok := u.files[r.URL]
	var kind trouble
	for _, in := range slices.Backward(u.troubles) {
		if in.left != 0 && strings.Contains(r.URL, in.part) {
			in.left = max(in.left-1, -1)
			kind = in.kind
			break
		}
	}
	var next func()
	for suffix, f := range u.after {
		if strings.HasSuffix(r.URL, suffix) {
			next = f
			delete(u.after, suffix)
		}
	}
	released := u.released
	u.mu.Unlock()
	if next != nil {
		defer next()
	}
	if kind == silent {
		select {
		case <-released:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return respond(ctx, r, f, ok, kind, released)
}

func respond(ctx context.Context, r *fetch.Request, f testenv.File, ok bool, kind trouble, released chan struct{}) (*fetch.Response, error) {
	resp := &fetch.Response{Status: 200, Size: int64(len(f.Content)), URL: r.URL, Type: f.Type, Modified: f.Modified}
	if f.JSON != nil && strings.Contains(r.Accept, testenv.SimpleJSON) {
		f.Content, resp.Type = f.JSON, testenv.SimpleJSON
		resp.Size = int64(len(f.Content))
	}
	status := func(n int) (*fetch.Response, error) {
		return &fetch.Response{Status: n, Size: 4, URL: r.URL, Body: io.NopCloser(strings.NewReader("sigh"))}, nil
	}
	switch {
	case kind == down:
		return nil, &chantal.UpstreamError{URL: r.URL, Err: errors.New("connection refused")}
	case kind == unavailable:
		return status(503)
	case kind == portal:
		page := "<html>Please accept our terms.</html>"
		return &fetch.Response{Status: 200, Size: int64(len(page)), URL: r.URL, Type: "text/html", Body: io.NopCloser(strings.NewReader(page))}, nil
	case kind == missing || !ok:
		return status(404)
	}
	resp.ETag = `"` + sha256Of(f.Content).Hex() + `"`
	if kind == coarse {
		resp.ETag = fmt.Sprintf(`"%x"`, f.Modified.Unix())
	}
	if r.ETag == resp.ETag {
		return &fetch.Response{Status: 304, Size: -1, URL: r.URL, Body: io.NopCloser(strings.NewReader(""))}, nil
	}
	body := bytes.Clone(f.Content)
	half := len(body) / 2
	switch kind {
	case corrupt:
		body[half] ^= 1
	case tail:
		body[len(body)-1] ^= 1
	case short:
		body, resp.Size = body[:half], -1
	case long:
		body, resp.Size = append(body, "0123456789"...), -1
	case lying:
		resp.Size += 10
	}
	switch {
	case r.Offset > 0 && kind == elsewhere:
		resp.Body = io.NopCloser(bytes.NewReader(body[1:]))
		resp.Status, resp.Offset = 206, 1
		return resp, nil
	case r.Offset > 0 && kind == norange:
		return status(400)
	}
	if r.Offset > 0 && kind != lying {
		if r.Offset >= int64(len(body)) {
			return status(416)
		}
		body, resp.Status, resp.Offset = body[r.Offset:], 206, r.Offset
		half = len(body) / 2
	}
	var end error
	if kind == truncated || kind == lying {
		end = &chantal.UpstreamError{URL: r.URL, Err: io.ErrUnexpectedEOF}
	}
	switch kind {
	case truncated:
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:half]), failing{end}))
	case lying:
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{end}))
	case stalled:
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body[:half]), waiting{ctx, released}, bytes.NewReader(body[half:])))
	default:
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}
	return resp, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// waiting is empty, once it has been released.
type waiting struct {
	ctx      context.Context
	released chan struct{}
}

func (w waiting) Read([]byte) (int, error) {
	select {
	case <-w.released:
		return 0, io.EOF
	case <-w.ctx.Done():
		return 0, w.ctx.Err()
	}
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}
