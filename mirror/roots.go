package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/fetch"
)

const (
	maxRoot  = 16 << 20            // bytes of a root
	slowRoot = 64 << 10            // bytes of a root that take at most a second, after the first minute
	believed = 24 * time.Hour      // how long upstream's word that a root is unchanged stands for its bytes
	trusted  = 7 * believed        // the same for a lone file
	maxAhead = 24 * time.Hour      // how far ahead of our clock a root's date may be and still count
	settled  = 10 * time.Minute    // after which the roots beside an unchanged main one are not asked again
	wanted   = 14 * 24 * time.Hour // how long an index that was asked for counts as wanted

	// A refresh that finds upstream in the middle of publishing looks again
	// after a pause that doubles up to pauseMax: 1.2 s in all.
	looks    = 8
	pauseMin = 20 * time.Millisecond
	pauseMax = 320 * time.Millisecond
)

// tornError says that what upstream has does not fit together (yet): whoever
// publishes file by file passes through such states.
type tornError struct{ err error }

func (e *tornError) Error() string { return e.err.Error() }
func (e *tornError) Unwrap() error { return e.err }

// place is one upstream of a tree's roots.
type place struct {
	base *url.URL
	last bool // no other one is asked after it

	vouch *vouch // what a list of mirrors says of the main root; nil for nothing
}

// rootSet is what one upstream answered for the roots of a tree.
type rootSet struct {
	from  place
	files []chantal.RootFile
	body  map[string][]byte // nil for an unchanged set
	same  bool              // the main root is the head's

	failed map[string]string // what is wrong beside the main root, by path or wantName, with the reason
}

// refreshRoots learns upstream's newest state of a tree with real roots, makes
// sure that all that is wanted of it is stored, and moves the head.
func (t *tree) refreshRoots(ctx context.Context, had state) (state, error) {
	if t.repo.list != nil {
		return t.refreshListed(ctx, had)
	}
	return t.refreshFirst(ctx, t.repo.places(nil), had)
}

// refreshFirst takes the state that the first of the places has of which one
// can be taken.
func (t *tree) refreshFirst(ctx context.Context, places []place, had state) (state, error) {
	var errs fetchErrors
	for _, from := range places {
		next, err := t.refreshFrom(ctx, from, had)
		if err == nil {
			return next, nil
		}
		if unstorable(err) {
			return state{}, err
		}
		t.repo.blame(from.base.String())
		errs.add(err)
		if ctx.Err() != nil {
			break
		}
	}
	return state{}, errs.result(t.Roots[0])
}

func (t *tree) refreshFrom(ctx context.Context, from place, had state) (state, error) {
	pause := pauseMin
	var first chantal.Digest
	for look := 1; ; look++ {
		set, err := t.fetchRoots(ctx, from, had)
		if err == nil && set.same {
			return had, nil
		}
		var next state
		if err == nil {
			main := set.files[0].Digest
			if first == "" {
				first = main
			}
			// What fits together badly is taken when upstream rests in it, and
			// not when it publishes one state after the other.
			next, err = t.adopt(ctx, set, had, look == looks && main == first)
		}
		if torn := (*tornError)(nil); !errors.As(err, &torn) || look == looks {
			return next, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return state{}, ctx.Err()
		}
		pause = min(2*pause, pauseMax)
	}
}

// adopt checks a set of roots, completes what is wanted under it and makes it
// the head. What does not fit together is a tornError; the last look takes what
// upstream seems to mean.
func (t *tree) adopt(ctx context.Context, set *rootSet, had state, last bool) (state, error) {
	m, r := t.repo.m, t.repo
	verdict, err := r.Format.Check(t.Tree, set.body, r.Keyring, m.Now())
	if err != nil {
		err = fetch.Unusable(set.files[0].URL, err)
		if !had.zero() {
			err = &tornError{err}
		}
		return state{}, err
	}
	if !last {
		for p, why := range verdict.Doubtful {
			return state{}, &tornError{fmt.Errorf("%s: %s", p, why)}
		}
	}
	gen := chantal.Generation{Repo: r.Name, Tree: t.Name, Date: verdict.Date, Signer: verdict.Signer}
	for _, p := range verdict.Roots {
		for _, f := range set.files {
			if f.Path == p {
				gen.Roots = append(gen.Roots, f)
			}
		}
	}
	if !had.zero() && sameRoots(gen.Roots, had.gen.Roots) {
		return had, nil
	}
	if err := t.lost(had.gen, gen, set, last); err != nil {
		return state{}, err
	}
	maps.Copy(set.failed, verdict.Rejected)
	maps.Copy(set.failed, verdict.Doubtful)
	// A date ahead of any clock would make every later state look stale.
	if !had.zero() && !gen.Date.IsZero() && gen.Date.Before(had.gen.Date) && had.gen.Date.Before(m.Now().Add(maxAhead)) {
		return state{}, fmt.Errorf("%s from %s is of %s, older than the one served (%s): a stale mirror; the head stays",
			t.Roots[0], set.from.base.Redacted(), gen.Date.UTC().Format(time.RFC3339), had.gen.Date.UTC().Format(time.RFC3339))
	}
	listed, err := parseListing(r.Format, gen.Roots, set.body)
	if err != nil {
		return state{}, fetch.Unusable(set.files[0].URL, err)
	}
	if err := t.complete(ctx, listed, set, had, last); err != nil {
		return state{}, err
	}
	for _, f := range gen.Roots {
		if _, err := m.Store.Put(cas.Want{Repo: r.Name, Path: f.Path, Digests: []chantal.Digest{f.Digest}, Size: f.Size, Modified: f.Modified}, set.body[f.Path]); err != nil {
			return state{}, fmt.Errorf("storing %s: %w", f.Path, err)
		}
	}
	next, err := t.advance(ctx, gen, had, gen.Roots[0].Modified)
	if err != nil {
		return state{}, err
	}
	t.note(set.failed)
	m.listings.Add(listingKey{r.Name, t.Name, next.gen.Roots[0].Digest}, listed)
	m.work.Go(func() { t.closeOver(m.ctx, next) })
	return next, nil
}

// fetchRoots asks one upstream for the roots of the tree. Where the main one is
// the head's and has been for a while, the others are not asked.
func (t *tree) fetchRoots(ctx context.Context, from place, had state) (*rootSet, error) {
	set := &rootSet{from: from, body: map[string][]byte{}, failed: map[string]string{}}
	main := -1
	var first error // about the root that most upstreams have
	for i, p := range t.Roots {
		err := t.gather(ctx, set, p, had.gen.Root(p))
		if err == nil {
			main = i
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if first == nil {
			first = err
		}
		if i == len(t.Roots)-1 {
			return nil, first
		}
	}
	if err := from.vouch.check(from, set.files[0], set.body[set.files[0].Path]); err != nil {
		return nil, err
	}
	unchanged := !had.zero() && len(had.gen.Roots) > 0 && set.files[0].Path == had.gen.Roots[0].Path && set.files[0].Digest == had.gen.Roots[0].Digest
	if unchanged && (len(t.Roots) == 1 || t.repo.m.Now().Sub(had.Observed) > settled) {
		set.same = true
		return set, nil
	}
	others := t.Roots[main+1:]
	for _, p := range others {
		have := had.gen.Root(p)
		err := t.gather(ctx, set, p, have)
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist):
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case unchanged && have != nil:
			// It cannot be told at the moment; a generation does not end by that.
			body, err := t.repo.rootBody(have)
			if err != nil {
				return nil, err
			}
			set.files = append(set.files, *have)
			set.body[p] = body
		default:
			set.failed[p] = err.Error()
		}
	}
	set.same = unchanged && sameRoots(set.files, had.gen.Roots)
	return set, nil
}

// changed asks again for the main root of a set: a tornError when upstream has
// another one by now.
func (t *tree) changed(ctx context.Context, set *rootSet) error {
	main := set.files[0]
	again, _, err := t.fetchRoot(ctx, set.from, main.Path, &main)
	if err == nil && again.Digest != main.Digest {
		err = &tornError{errors.New("upstream published while it was being read")}
	}
	return err
}

// gather fetches one root into the set.
func (t *tree) gather(ctx context.Context, set *rootSet, p string, have *chantal.RootFile) error {
	f, body, err := t.fetchRoot(ctx, set.from, p, have)
	if err == nil && body == nil {
		body, err = t.repo.rootBody(&f)
	}
	if err != nil {
		return err
	}
	set.files = append(set.files, f)
	set.body[p] = body
	return nil
}

// fetchRoot fetches one root. have, when not nil, is the one known already: it
// is asked for conditionally, and returned without a body when upstream
// confirms it.
func (t *tree) fetchRoot(ctx context.Context, from place, p string, have *chantal.RootFile) (chantal.RootFile, []byte, error) {
	m, r := t.repo.m, t.repo
	head, err := t.peek()
	if err != nil {
		return chantal.RootFile{}, nil, err
	}
	req := &fetch.Request{
		Repo: r.Name, URL: r.urlAt(from.base, p), NoCache: true, Urgent: true,
		Fallback: !head.zero() || !from.last,
	}
	limit := int64(maxRoot)
	ingest, _ := r.Format.(chantal.Ingester)
	if ingest != nil {
		req.Accept, limit = ingest.Accept(), ingest.Limit(p)
	}
	// A refresh that does not end would keep every later state away.
	req.Within = time.Minute + time.Duration(limit/slowRoot)*time.Second
	if have != nil && t.tells(have) {
		req.ETag, req.Modified = have.ETag, have.Modified
	}
	resp, body, err := askRoot(ctx, m.Source, req, limit)
	if brokeOff(err) {
		resp, body, err = askRoot(ctx, m.Source, req, limit)
	}
	if err != nil {
		return chantal.RootFile{}, nil, err
	}
	if resp.Unchanged() && have != nil {
		return *have, nil, nil
	}
	if err := resp.Complete(); err != nil {
		return chantal.RootFile{}, nil, err
	}
	if ingest != nil {
		if body, err = ingest.Ingest(p, resp.URL, resp.Type, body); err != nil {
			return chantal.RootFile{}, nil, fetch.Unusable(redact(req.URL), err)
		}
	}
	sum := sha256.Sum256(body)
	f := chantal.RootFile{
		Path: p, Digest: chantal.Digest("sha256:" + hex.EncodeToString(sum[:])), Size: int64(len(body)),
		ETag: resp.ETag, Modified: resp.Modified, Type: resp.Type, URL: redact(resp.URL), Recent: resp.Recent(m.Now()),
	}
	t.rested(&f)
	return f, body, nil
}

// askRoot asks for a root once and reads the body of a whole answer, which it
// closes.
func askRoot(ctx context.Context, from fetch.Source, req *fetch.Request, limit int64) (*fetch.Response, []byte, error) {
	resp, err := from.Fetch(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.Complete() != nil {
		return resp, nil, nil
	}
	body, err := readAll(resp, limit)
	var known *chantal.UpstreamError
	if err != nil && !broken(err) && !errors.As(err, &known) {
		err = fetch.Unusable(redact(req.URL), err)
	}
	return resp, body, err
}

// brokeOff reports whether a root came in part, from an upstream that is not
// just slow: a second look is cheap then.
func brokeOff(err error) bool { return broken(err) && !errors.Is(err, context.DeadlineExceeded) }

// tells reports whether upstream may say by its validators that a root is
// still the one we have. They are not believed for ever: somebody on the way may
// have put new ones on old bytes.
func (t *tree) tells(have *chantal.RootFile) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.repo.m.Now()
	if t.read == nil {
		t.read = map[string]time.Time{}
	}
	if t.read[have.Path].IsZero() {
		t.read[have.Path] = now
	}
	limit := believed
	if t.opaque {
		limit = trusted
	}
	stale := have.Size <= maxRoot && now.Sub(t.read[have.Path]) >= limit
	return !stale && (!have.Recent || t.old[have.Path] == have.Digest)
}

// rested notes of a root that it has been read, and whether it is no longer a
// recent one: the generation that holds it goes on saying what was so when it
// was first seen.
func (t *tree) rested(f *chantal.RootFile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.read == nil {
		t.read = map[string]time.Time{}
	}
	t.read[f.Path] = t.repo.m.Now()
	if f.Recent {
		return
	}
	if t.old == nil {
		t.old = map[string]chantal.Digest{}
	}
	t.old[f.Path] = f.Digest
}

// readAll reads a body of at most limit bytes, all of it.
func readAll(resp *fetch.Response, limit int64) ([]byte, error) {
	if resp.Size > limit {
		return nil, fmt.Errorf("%d bytes, more than the %d that such a file may have", resp.Size, limit)
	}
	var b bytes.Buffer
	if resp.Size > 0 {
		b.Grow(int(resp.Size) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, &readError{err}
	case n > limit:
		return nil, fmt.Errorf("more than the %d bytes that such a file may have", limit)
	case resp.Size >= 0 && n != resp.Size:
		return nil, fmt.Errorf("ended after %d of %d bytes", n, resp.Size)
	}
	if n == 0 {
		return []byte{}, nil // nil stands for "as before"
	}
	return b.Bytes(), nil
}

func sameRoots(a, b []chantal.RootFile) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Path != b[i].Path || a[i].Digest != b[i].Digest {
			return false
		}
	}
	return true
}

// note keeps what is wrong beside the main root of the generation that is
// served, until that has come right or there is another generation.
func (t *tree) note(wrong map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notes = wrong
	for p, why := range wrong {
		t.repo.m.Log.Warn("a generation is served with something wrong", "repo", t.repo.Name, "path", p, "reason", why)
	}
}
