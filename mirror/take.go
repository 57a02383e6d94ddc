package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/fetch"
)

const (
	resumes  = 3        // how often in a row a download may break off that gets no further in between
	progress = 64 << 10 // bytes that count as getting further

	maxUnsized = 256 << 20 // bytes of an index of which metadata does not say the size
)

// sink takes a file in as it arrives: a cas.Growing, or a whole.
type sink interface {
	io.Writer
	Size() int64    // that the file will have; -1 while not known
	Written() int64 // bytes that have arrived
	Commit() (cas.Blob, error)
	Abort(why error)
}

// buffers are for reading bodies.
var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// take reads one upstream's answer into a sink and verifies it; begun, when not
// nil, has what comes before it. It takes the download up again where it broke
// off, there and at the places that follow by turns. It closes resp's body.
func (f *flight) take(ctx context.Context, resp *fetch.Response, begun *cas.Growing, others []string) (cas.Blob, error) {
	p := &f.promise
	body := resp.Body
	defer func() { body.Close() }()
	if p.Size >= 0 && resp.Size >= 0 && p.Size != resp.Size {
		err := &chantal.MismatchError{Path: p.Path, Want: fmt.Sprint(p.Size, " bytes"), Got: fmt.Sprint(resp.Size, " bytes")}
		if begun != nil {
			begun.Abort(err)
		}
		return cas.Blob{}, err
	}
	g, err := f.sink(resp, begun)
	if err != nil {
		return cas.Blob{}, err
	}
	limit := int64(math.MaxInt64)
	if p.Kind == chantal.Meta && p.Size < 0 {
		limit = maxUnsized
	}
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	places := append([]string{resp.URL}, others...)
	for try, idle := 0, 0; ; try++ {
		had := g.Written()
		if err = copyBody(g, body, buf[:], limit); err == nil || ctx.Err() != nil || !broken(err) {
			break
		}
		if idle++; g.Written()-had >= progress {
			idle = 0
		}
		if idle == resumes {
			break
		}
		next := try % len(places)
		again := f.resume(ctx, resp, slices.Concat(places[next:], places[:next]), g.Written())
		if again == nil {
			break
		}
		body.Close()
		body = again
	}
	if err != nil {
		err = f.explained(err, resp, g.Written())
		g.Abort(err)
		return cas.Blob{}, err
	}
	return g.Commit()
}

// sink returns what takes the file in that resp begins, or goes on with.
func (f *flight) sink(resp *fetch.Response, begun *cas.Growing) (sink, error) {
	p := &f.promise
	modified := resp.Modified
	if modified.IsZero() {
		modified = f.m.Now().Truncate(time.Second)
	}
	if begun != nil {
		begun.SetModified(modified)
		f.set(begun, modified, resp.Type)
		return begun, nil
	}
	want := cas.Want{Repo: f.repo.Name, Path: p.Path, Digests: p.Digests, Size: p.Size, Modified: modified}
	if p.Size >= 0 && p.Size <= cas.HoldBack && len(p.Digests) > 0 && !f.alone {
		f.set(nil, modified, resp.Type)
		return &whole{store: f.m.Store, want: want, body: make([]byte, 0, p.Size)}, nil
	}
	g, err := f.m.Store.Create(want)
	if err != nil {
		return nil, err
	}
	if p.Size < 0 && resp.Size >= 0 {
		g.SetSize(resp.Size)
	}
	f.set(g, modified, resp.Type)
	return g, nil
}

// whole is the sink of a small file. Nobody would get a byte of it before the
// end, so it is stored in one step then.
type whole struct {
	store *cas.Store
	want  cas.Want
	body  []byte
}

func (w *whole) Write(p []byte) (int, error) {
	if n := len(w.body) + len(p); int64(n) > w.want.Size {
		return 0, &chantal.MismatchError{Path: w.want.Path, Want: fmt.Sprint(w.want.Size, " bytes"), Got: fmt.Sprint("at least ", n, " bytes")}
	}
	w.body = append(w.body, p...)
	return len(p), nil
}

func (w *whole) Size() int64               { return w.want.Size }
func (w *whole) Written() int64            { return int64(len(w.body)) }
func (w *whole) Commit() (cas.Blob, error) { return w.store.Put(w.want, w.body) }
func (w *whole) Abort(error)               {}

// explained says of a body that broke off for good who is to blame: upstream's
// file is another one where the body ended as it should, else the way to it.
func (f *flight) explained(err error, resp *fetch.Response, got int64) error {
	var known *chantal.UpstreamError
	switch {
	case errors.Is(err, errTooLong):
		return fetch.Unusable(redact(resp.URL), err)
	case !broken(err) || errors.As(err, &known) || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, errEarly) && f.promise.Size >= 0 && resp.Size < 0:
		return &chantal.MismatchError{Path: f.promise.Path, Want: fmt.Sprint(f.promise.Size, " bytes"), Got: fmt.Sprint(got, " bytes")}
	}
	return &chantal.UpstreamError{URL: redact(resp.URL), Err: err}
}

// errTooLong ends an index that has no promised size and no end.
var errTooLong = fmt.Errorf("more than the %d bytes that an index without a promised size may have", maxUnsized)

// errEarly is the end of a body that should go on.
var errEarly = errors.New("ended early")

// copyBody is io.CopyBuffer that keeps read and write errors apart: only a
// broken read can be taken up again. More than limit bytes in all are an error.
func copyBody(g sink, body io.Reader, buf []byte, limit int64) error {
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, werr := g.Write(buf[:n]); werr != nil {
				return werr
			}
			if g.Written() > limit {
				return errTooLong
			}
		}
		if err == io.EOF {
			if size := g.Size(); size >= 0 && g.Written() < size {
				return &readError{fmt.Errorf("%w, after %d of %d bytes", errEarly, g.Written(), size)}
			}
			return nil
		}
		if err != nil {
			return &readError{err}
		}
	}
}

// readError is a body that broke off.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func broken(err error) bool { var r *readError; return errors.As(err, &r) }

// resume asks places, in that order, for the rest of the body of which first
// brought have bytes; nil where none has it. Bytes that a digest will judge may
// come from anywhere; others only from where the first of them are from, and
// only from the very state of the file that they are of (RFC 9110, 13.1.5).
func (f *flight) resume(ctx context.Context, first *fetch.Response, places []string, have int64) io.ReadCloser {
	req := fetch.Request{Repo: f.repo.Name, URL: first.URL, Offset: have}
	if len(f.promise.Digests) == 0 {
		if first.ETag == "" || strings.HasPrefix(first.ETag, "W/") {
			return nil
		}
		req.IfRange = first.ETag
		places = places[:1]
	}
	for _, u := range places {
		req.URL = u
		if body := f.rest(ctx, req, first.Size); body != nil {
			return body
		}
	}
	return nil
}

// rest asks one place for the rest of a body, of which size bytes are to be
// there in all; -1 where that is not known.
func (f *flight) rest(ctx context.Context, req fetch.Request, size int64) io.ReadCloser {
	resp, err := f.m.Source.Fetch(ctx, &req)
	if err != nil {
		return nil
	}
	switch {
	case resp.Size >= 0 && size >= 0 && resp.Size != size:
	case req.IfRange != "" && resp.ETag != req.IfRange:
		// Another state of the file, whatever the status says.
	case resp.Partial() && resp.Offset == req.Offset:
		return resp.Body
	case resp.Complete() == nil:
		if _, err := io.CopyN(io.Discard, resp.Body, req.Offset); err == nil {
			return resp.Body
		}
	}
	resp.Body.Close()
	return nil
}
