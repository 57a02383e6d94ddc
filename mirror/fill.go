package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/fetch"
)

// flight is one file being fetched for everybody who wants it. It tries one
// upstream after the other; each attempt grows a file of its own, so a reader
// of an attempt that failed never goes on with the bytes of another.
type flight struct {
	m       *Mirror
	repo    *Repo
	promise chantal.Promise
	follow  bool // readers may follow the file while it arrives
	alone   bool // others cannot join it

	// behind is closed when somebody waits for the file; nil where somebody has
	// from the start. Until then it goes behind other downloads, and where
	// there are several upstreams to the one that is asked least.
	behind chan struct{}
	wanted sync.Once // closes behind

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced whenever grow changes or the end comes
	grow     *cas.Growing  // the present attempt, once upstream's answer agrees with the promise
	modified time.Time     // Last-Modified of that attempt
	kind     string        // its Content-Type
	ended    bool
	err      error
}

func newFlight(m *Mirror, r *Repo, p chantal.Promise, follow bool) *flight {
	return &flight{m: m, repo: r, promise: p, follow: follow, changed: make(chan struct{})}
}

// stored returns the blob that a promise names; fs.ErrNotExist if the store
// lacks it or the promise has no digest.
func (r *Repo) stored(p *chantal.Promise) (cas.Blob, error) {
	digests := p.Digests
	if d := p.SHA256(); d != "" {
		digests = []chantal.Digest{d} // blobs have that name: another digest would lead to the same one
	}
	err := error(fs.ErrNotExist)
	for _, d := range digests {
		var b cas.Blob
		if b, err = r.m.Store.Find(r.Name, d); err == nil {
			if err := r.m.whole(b.Digest, b.Size, p.Size); err != nil {
				return cas.Blob{}, err
			}
			if p.Size >= 0 && b.Size != p.Size {
				return cas.Blob{}, &chantal.MismatchError{Path: p.Path, Want: fmt.Sprint(p.Size, " bytes"), Got: fmt.Sprint(b.Size, " bytes")}
			}
			return b, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return cas.Blob{}, err
		}
	}
	return cas.Blob{}, err
}

// fetching returns the flight that fetches what p promises, started if there
// is none. p has at least one digest.
func (r *Repo) fetching(p chantal.Promise) *flight {
	f := r.flight(p, nil)
	if f.behind != nil {
		f.wanted.Do(func() { close(f.behind) })
	}
	return f
}

// fetchingBehind is fetching for somebody who does not mind others to be served
// first.
func (r *Repo) fetchingBehind(p chantal.Promise) *flight { return r.flight(p, make(chan struct{})) }

func (r *Repo) flight(p chantal.Promise, behind chan struct{}) *flight {
	key := string(p.Digests[0])
	if !p.Digests[0].Strong() {
		key = r.Name + " " + key
	}
	return r.m.flights.join(key, func() *flight {
		f := newFlight(r.m, r, p, p.Kind == chantal.Artifact)
		f.behind = behind
		r.m.work.Go(func() {
			err := f.run(r.m.ctx)
			r.m.flights.leave(key)
			f.finish(err)
		})
		return f
	})
}

// ensure makes what p promises be stored.
func (r *Repo) ensure(ctx context.Context, p chantal.Promise) error {
	if len(p.Digests) == 0 {
		return fmt.Errorf("%s: metadata gives no digest: %w", p.Path, fs.ErrNotExist)
	}
	if _, err := r.stored(&p); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.m.Offline {
		return &chantal.UpstreamError{URL: p.Path, Err: chantal.ErrOffline}
	}
	f := r.fetching(p)
	_, err := f.next(ctx, func(g *cas.Growing) error { return waitDone(ctx, g) })
	return err
}

func waitDone(ctx context.Context, g *cas.Growing) error {
	select {
	case <-g.Done():
		return g.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// next waits until ready accepts an attempt, and returns it; or until the
// flight has ended without one: nil and no error where the store had the file
// already.
func (f *flight) next(ctx context.Context, ready func(*cas.Growing) error) (*cas.Growing, error) {
	var prev *cas.Growing
	for {
		f.mu.Lock()
		g, ended, err, changed := f.grow, f.ended, f.err, f.changed
		f.mu.Unlock()
		if g != nil && g != prev {
			if err := ready(g); err == nil {
				return g, nil
			}
			prev = g
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		if ended {
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// open returns the content: following it while it arrives where that is
// allowed, else when it is complete.
func (f *flight) open(ctx context.Context) (io.ReadSeekCloser, cas.Blob, error) {
	g, err := f.next(ctx, func(g *cas.Growing) error {
		if f.follow {
			return g.Ready(ctx)
		}
		return waitDone(ctx, g)
	})
	if err != nil {
		return nil, cas.Blob{}, err
	}
	if g == nil {
		blob, err := f.repo.stored(&f.promise)
		if errors.Is(err, fs.ErrNotExist) {
			err = &lostError{digest: f.promise.SHA256(), err: err} // it was there when the flight ended
		}
		if err != nil {
			return nil, cas.Blob{}, err
		}
		return f.m.openBlob(blob.Digest, blob.Size)
	}
	select {
	case <-g.Done():
		if blob := g.Blob(); blob.Digest != "" {
			content, blob, err := f.m.openBlob(blob.Digest, blob.Size)
			if err != nil && f.m.Store.Health() != nil {
				err = chantal.ErrNotKept
			}
			return content, blob, err
		}
	default:
	}
	follower, err := g.Follow(ctx)
	if err != nil {
		return nil, cas.Blob{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return follower, cas.Blob{Digest: f.promise.SHA256(), Size: g.Size(), Modified: f.modified}, nil
}

func (f *flight) set(g *cas.Growing, modified time.Time, kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grow, f.modified, f.kind = g, modified, kind
	close(f.changed)
	f.changed = make(chan struct{})
}

// contentType returns the Content-Type of the present attempt.
func (f *flight) contentType() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kind
}

func (f *flight) finish(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended, f.err = true, err
	close(f.changed)
	f.changed = make(chan struct{})
}

// run fetches from one place after the other until the bytes are right.
func (f *flight) run(ctx context.Context) error {
	missing := f.repo.meetMirrors(ctx)
	bases := f.repo.sources()
	if f.behind != nil && len(bases) > 1 {
		var done func()
		bases, done = f.repo.crowds.spread(bases, f.m.Now())
		defer done()
	}
	places, err := f.places(bases)
	if err == nil && len(places) == 0 {
		err = missing
	}
	if err != nil {
		return err
	}
	// Another flight may have ended after the caller had looked in the store.
	if _, err := f.repo.stored(&f.promise); err == nil {
		return nil
	}
	var errs fetchErrors
	for i, u := range places {
		err := f.attempt(ctx, u, places[i+1:])
		if err == nil || unstorable(err) {
			return err
		}
		errs.add(err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.repo.crowds.blame(u, f.m.Now())
		if !errors.Is(err, fs.ErrNotExist) {
			f.repo.blame(u)
			f.m.Log.Warn("fetch failed", "repo", f.repo.Name, "path", f.promise.Path, "url", redact(u), "error", err)
		}
	}
	return errs.result(f.promise.Path)
}

// attempt asks one place for the file, from where an earlier download ended;
// others are those that would be asked next.
func (f *flight) attempt(ctx context.Context, u string, others []string) error {
	req := &fetch.Request{Repo: f.repo.Name, URL: u, Fallback: len(others) > 0, Behind: f.behind}
	begun := f.begun()
	if begun != nil && begun.Written() == f.promise.Size {
		if _, err := begun.Commit(); !mismatched(err) {
			return err
		}
		begun = nil
	}
	if begun != nil {
		req.Offset = begun.Written()
	}
	resp, err := f.m.Source.Fetch(ctx, req)
	if err == nil && begun != nil && resp.Unresumable(req.Offset) {
		resp.Body.Close()
		begun.Abort(f.noGoingOn())
		begun, req.Offset = nil, 0
		resp, err = f.m.Source.Fetch(ctx, req)
	}
	if err == nil && (begun == nil || !resp.Partial()) {
		if err = resp.Complete(); err != nil {
			resp.Body.Close()
		}
	}
	if err != nil {
		if begun != nil {
			begun.Abort(err)
		}
		return err
	}
	if begun != nil && !resp.Partial() {
		begun.Abort(f.noGoingOn())
		begun = nil
	}
	if _, err = f.take(ctx, resp, begun, others); begun != nil && mismatched(err) {
		// Whoever sent the beginning may be to blame.
		return f.attempt(ctx, u, others)
	}
	return err
}

// begun returns what there is of the file from an earlier download; nil where
// there is nothing.
func (f *flight) begun() *cas.Growing {
	p := &f.promise
	if f.alone || p.Size <= cas.HoldBack {
		return nil
	}
	g, err := f.m.Store.Resume(cas.Want{Repo: f.repo.Name, Path: p.Path, Digests: p.Digests, Size: p.Size})
	if err != nil {
		return nil
	}
	return g
}

// noGoingOn is why the beginning of a file is of no use.
func (f *flight) noGoingOn() error {
	return &chantal.MismatchError{Path: f.promise.Path, Want: "the rest of the file", Got: "an answer that does not go on where the beginning ends"}
}

func mismatched(err error) bool { var m *chantal.MismatchError; return errors.As(err, &m) }

// unstorable reports whether err is about the own disk: other upstreams have
// nothing better.
func unstorable(err error) bool {
	var d *chantal.DiskError
	return errors.As(err, &d) || errors.Is(err, chantal.ErrNotKept)
}

// alone returns a flight of its own for what p promises: the one that others
// share cannot be joined any longer.
func (r *Repo) alone(p chantal.Promise) *flight {
	f := newFlight(r.m, r, p, true)
	f.alone = true
	r.m.work.Go(func() { f.finish(f.run(r.m.ctx)) })
	return f
}

// places returns the URLs where the promised bytes may be, those below the
// first of bases first.
func (f *flight) places(bases []*url.URL) ([]string, error) {
	p, r := &f.promise, f.repo
	if p.URL != "" {
		if err := r.mayLink(p.URL); err != nil {
			return nil, err
		}
		return append([]string{p.URL}, r.alike(p.URL)...), nil
	}
	var places []string
	if p.Alt != "" {
		places = append(places, r.below(bases, p.Alt)...)
	}
	return append(places, r.below(bases, p.Path)...), nil
}

// alike returns where the other upstreams would have a file that the metadata
// of one places beside itself: in the same place, seen from there.
func (r *Repo) alike(raw string) []string {
	u, err := url.Parse(raw)
	if err != nil {
		return nil
	}
	var urls []string
	bases := r.sources()
	for i, b := range bases {
		if u.Scheme != b.Scheme || !strings.EqualFold(u.Host, b.Host) {
			continue
		}
		from, to := strings.Split(b.EscapedPath(), "/"), strings.Split(u.EscapedPath(), "/")
		same := 0
		for same < min(len(from), len(to))-1 && from[same] == to[same] {
			same++
		}
		beside := url.URL{Path: "./" + strings.Repeat("../", len(from)-1-same), RawQuery: u.RawQuery}
		for j, other := range bases {
			if j == i {
				continue
			}
			urls = append(urls, other.ResolveReference(&beside).JoinPath(to[same:]...).String())
		}
		break
	}
	return urls
}

// mayLink reports whether metadata of r may send us to that URL.
func (r *Repo) mayLink(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return &chantal.RefusedError{What: raw, Why: "metadata links to what is no http or https URL"}
	}
	own := false
	bases := r.bases
	if r.list != nil {
		bases = append(slices.Clip(bases), r.list.url)
	}
	for _, b := range bases {
		own = own || strings.EqualFold(b.Host, u.Host)
		if b.Scheme == "https" && u.Scheme == "http" {
			return &chantal.RefusedError{What: redact(raw), Why: "an https repository links to plain http"}
		}
	}
	if own || r.Files == nil {
		return nil
	}
	for _, host := range r.Files {
		if strings.EqualFold(host, u.Host) {
			return nil
		}
	}
	return &chantal.RefusedError{What: redact(raw), Why: fmt.Sprintf("the host is not among the files: of repository %s", r.Name)}
}

// fetchErrors sums up what went wrong at several places, by what a client can
// do about it: wrong bytes tell more than an unreachable host, and that more
// than "not here".
type fetchErrors struct{ missing, mismatch, other error }

func (e *fetchErrors) add(err error) {
	var m *chantal.MismatchError
	switch {
	case errors.As(err, &m):
		e.mismatch = err
	case errors.Is(err, fs.ErrNotExist):
		e.missing = err
	default:
		e.other = err
	}
}

func (e *fetchErrors) result(path string) error {
	for _, err := range []error{e.mismatch, e.other, e.missing} {
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%s: no upstream: %w", path, fs.ErrNotExist)
}

// openBlob opens a stored blob as content. size is how long it has to be; -1
// where nobody said. Whoever names a blob relies on it: a *lostError says that
// it is not there, or was damaged.
func (m *Mirror) openBlob(d chantal.Digest, size int64) (io.ReadSeekCloser, cas.Blob, error) {
	file, blob, err := m.Store.Open(d)
	if err == nil {
		if err = m.whole(d, blob.Size, size); err == nil {
			return file, blob, nil
		}
		file.Close()
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = &lostError{digest: d, err: err}
	}
	return nil, blob, err
}

// readBlob returns a small blob whole.
func (m *Mirror) readBlob(d chantal.Digest, size int64) ([]byte, error) {
	f, b, err := m.openBlob(d, size)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body := make([]byte, b.Size)
	if _, err := io.ReadFull(f, body); err != nil {
		return nil, fmt.Errorf("reading blob %s: %w", d, err)
	}
	return body, nil
}

// redact removes a password from a URL for people's eyes.
func redact(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Redacted()
	}
	return raw
}
