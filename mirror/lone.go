package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"chantal"
	"chantal/internal/fetch"
)

// A lone file is one that nothing gives a digest for: a key, an installer
// image, a changelog, everything in a repository without a format. It is a tree
// of its own, with itself as the one root. HTTP alone says how long it may be
// given out without asking again, where upstream says so; else the repository's
// refresh does.

// negative is how long upstream's word that there is no such file is believed,
// at most.
const negative = 10 * time.Second

// UnkeptError says that a file is not kept, so that it has to be asked for at
// one of the URLs for each request.
type UnkeptError struct {
	URLs []string
	Why  string
}

func (e *UnkeptError) Error() string {
	return fmt.Sprintf("%s is not kept: %s", redact(e.URLs[0]), e.Why)
}

// verdict reports whether err is what upstream says of a lone file, not a
// failure to ask: it is not there, or not to be kept.
func verdict(err error) bool {
	var unkept *UnkeptError
	return errors.Is(err, fs.ErrNotExist) || errors.As(err, &unkept)
}

// gone reports whether upstream has said of a lone file that there is none to
// give out any longer, and nothing else since. The caller holds t.mu.
func (t *tree) gone() bool { return t.opaque && t.removed }

// lifetime is how long upstream's last word on the tree holds. The caller
// holds t.mu.
func (t *tree) lifetime() time.Duration {
	switch {
	case t.opaque && verdict(t.err):
		return min(negative, t.repo.Refresh)
	case t.opaque && t.told:
		return t.fresh
	}
	return t.repo.Refresh
}

// allowed takes in what upstream's answer says about how a lone file may be
// used, and reports whether it may be kept.
func (t *tree) allowed(resp *fetch.Response, requested time.Time) (keep bool) {
	m := t.repo.m
	if m.Allows == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fresh, t.told, keep = m.Allows(resp, requested, m.Now())
	return keep
}

// known is the root of a lone file's head, as upstream last described it: the
// same bytes may have got another ETag.
func (t *tree) known(had state) chantal.RootFile {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.latest.Digest == had.gen.Roots[0].Digest {
		return t.latest
	}
	return had.gen.Roots[0]
}

// openLone opens a file that nothing gives a digest for: a tree of its own,
// with one root. from is where it lives, when not at its path upstream.
func (v *liveView) openLone(ctx context.Context, path, from string) (*chantal.File, error) {
	r := v.Repo
	t := r.tree(opaque(path))
	t.mu.Lock()
	t.from = from
	t.mu.Unlock()
	if v.client.Query || path == "" {
		why := "it is asked for with a query"
		if path == "" {
			why = "it is the address of the repository, not a file in it"
		}
		places, err := t.places(ctx)
		if err != nil {
			return nil, err
		}
		return nil, &UnkeptError{places, why}
	}
	if fill := t.arriving(ctx); fill != nil {
		return r.follow(ctx, t, fill)
	}
	head, status, err := t.current(ctx, v.client.NoCache)
	if err != nil {
		return nil, err
	}
	f, err := r.openLoneOf(head, status)
	if lost(err) {
		if head, status, err = t.current(ctx, true); err == nil {
			f, err = r.openLoneOf(head, status)
		}
	}
	return f, err
}

func (r *Repo) openLoneOf(s state, status chantal.CacheStatus) (*chantal.File, error) {
	f, err := r.openRootOf(s, chantal.Class{Path: s.Tree}, status)
	if err == nil {
		f.Kind = chantal.Opaque
	}
	return f, err
}

// arriving returns the flight of a lone file's first content, which can be
// followed; nil when there is other content or none comes.
func (t *tree) arriving(ctx context.Context) *flight {
	t.mu.Lock()
	if t.load() != nil || !t.head.zero() || t.repo.m.Offline {
		t.mu.Unlock()
		return nil
	}
	if t.running == nil {
		if !t.due(t.repo.m.Now(), false) {
			t.mu.Unlock()
			return nil
		}
		t.start()
	}
	run := t.running
	t.mu.Unlock()
	select {
	case <-run.live:
		return run.fill
	case <-run.done:
	case <-ctx.Done():
	}
	return nil
}

func (r *Repo) follow(ctx context.Context, t *tree, fill *flight) (*chantal.File, error) {
	content, blob, err := fill.open(ctx)
	if err != nil {
		return nil, err
	}
	return &chantal.File{Path: t.Name, Kind: chantal.Opaque, Tree: t.Name, Digest: blob.Digest, Size: blob.Size,
		Modified: blob.Modified, Type: fill.contentType(), Content: content, Cache: chantal.Miss}, nil
}

// places returns the URLs of an opaque tree's file.
func (t *tree) places(ctx context.Context) ([]string, error) {
	t.mu.Lock()
	from := t.from
	t.mu.Unlock()
	if from != "" {
		return []string{from}, t.repo.mayLink(from)
	}
	err := t.repo.meetMirrors(ctx)
	places := t.repo.upstream(t.Name)
	if len(places) > 0 {
		err = nil
	}
	return places, err
}

// refreshOpaque asks one upstream after the other for a file that nothing
// promises. The first of its content can be followed while it arrives.
func (t *tree) refreshOpaque(ctx context.Context, run *refresh, had state) (state, error) {
	places, err := t.places(ctx)
	if err != nil {
		return state{}, err
	}
	f := newFlight(t.repo.m, t.repo, chantal.Promise{Path: t.Name, Size: -1}, true)
	next, err := t.tryPlaces(ctx, places, run, f, had)
	f.finish(err)
	return next, err
}

func (t *tree) tryPlaces(ctx context.Context, places []string, run *refresh, f *flight, had state) (state, error) {
	m := t.repo.m
	req := &fetch.Request{Repo: t.repo.Name}
	if !had.zero() {
		if have := t.known(had); t.tells(&have) {
			req.ETag, req.Modified = have.ETag, have.Modified
		}
	}
	var errs fetchErrors
	for i, u := range places {
		req.URL, req.Fallback = u, !had.zero() || i+1 < len(places)
		requested := m.Now()
		resp, err := m.Source.Fetch(ctx, req)
		if err == nil && resp.Unchanged() && !had.zero() {
			resp.Body.Close()
			t.allowed(resp, requested)
			return had, nil
		}
		if err == nil {
			if err = t.usable(resp, requested, places); err != nil {
				resp.Body.Close()
			}
		}
		if unkept := (*UnkeptError)(nil); errors.As(err, &unkept) {
			return state{}, err
		}
		if err == nil {
			if run.fill == nil {
				run.fill = f
				close(run.live)
			}
			var next state
			if next, err = t.takeLone(ctx, f, resp, had); err == nil {
				return next, nil
			}
		}
		if ctx.Err() != nil {
			return state{}, ctx.Err()
		}
		if unstorable(err) {
			return state{}, t.unstored(err, places, had)
		}
		errs.add(err)
	}
	return state{}, errs.result(t.Name)
}

// unstored turns an error of the own disk about a file that was never kept into
// the word that it is to be asked for at upstream.
func (t *tree) unstored(err error, places []string, had state) error {
	if had.zero() && unstorable(err) {
		return &UnkeptError{places, "the disk does not take it"}
	}
	return err
}

// usable returns nil for an answer that is the file, as far as its beginning
// tells, and may be kept.
func (t *tree) usable(resp *fetch.Response, requested time.Time, places []string) error {
	err := resp.Complete()
	switch {
	case err != nil:
		return err
	case resp.Portal(t.Name):
		return fetch.Unusable(redact(resp.URL), errors.New("it answered with a web page in place of the file; perhaps the network wants a login first"))
	case !t.allowed(resp, requested):
		return &UnkeptError{places, "upstream forbids to keep it"}
	}
	return nil
}

// takeLone stores what upstream answered and makes it the head.
func (t *tree) takeLone(ctx context.Context, f *flight, resp *fetch.Response, had state) (state, error) {
	blob, err := f.take(ctx, resp, nil, nil)
	if err != nil {
		return state{}, err
	}
	root := chantal.RootFile{
		Path: t.Name, Digest: blob.Digest, Size: blob.Size, ETag: resp.ETag, Modified: resp.Modified,
		Type: resp.Type, URL: resp.URL, Recent: resp.Recent(t.repo.m.Now()),
	}
	t.rested(&root)
	t.mu.Lock()
	t.latest = root
	t.mu.Unlock()
	if !had.zero() && had.gen.Roots[0].Digest == blob.Digest {
		return had, nil
	}
	return t.advance(ctx, chantal.Generation{Roots: []chantal.RootFile{root}}, had, resp.Modified)
}
