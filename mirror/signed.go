package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"chantal"
)

const (
	// signBack is how far the date of a root that is signed here lies back:
	// clients whose clock is late take it all the same.
	signBack = time.Minute

	signingsKept = 10_000 // roots that stay in memory
)

// SigningDate is what a root that is signed now says of its age.
func SigningDate(now time.Time) time.Time { return now.Add(-signBack).UTC().Truncate(time.Second) }

// Place is a URL under which a tree's roots are answered, as far as it tells
// states apart.
type Place struct {
	Ref string // "" for an instant: what it shows never changes, and there are very many of them
	// Shared says that other refs, and upstream's own roots, are answered at
	// the same URLs: behind the forward proxy.
	Shared bool
}

// Signs reports whether the repository's format can sign roots anew.
func (r *Repo) Signs() bool { _, ok := r.Format.(chantal.Resigner); return ok }

// Signed is base with its roots signed here: they say the same of the same
// indexes. Their date never goes back at a place, whatever base shows there,
// over restarts too; while base and place stay the same so do they. base is a
// view of the repository, which Signs.
func (r *Repo) Signed(base chantal.View, p Place, signer func() (chantal.Signer, error)) chantal.View {
	return &signedView{Repo: r, base: base, place: p, signer: signer}
}

type signedView struct {
	*Repo
	base   chantal.View
	place  Place
	signer func() (chantal.Signer, error)
}

// Open implements chantal.View.
func (v *signedView) Open(ctx context.Context, path string) (*chantal.File, error) {
	class, err := v.classify(path)
	if err != nil || class.Kind != chantal.Root {
		return v.base.Open(ctx, path)
	}
	f, body, err := v.main(ctx, class.Tree)
	if err != nil {
		return nil, err
	}
	s, err := v.signing(f, body, class)
	if err != nil {
		return nil, fmt.Errorf("signing %s of %s: %w", class.Tree.Name, v.Name, err)
	}
	root, ok := s.Roots[class.Path]
	if !ok {
		return nil, fmt.Errorf("%s is not made of %s: %w", class.Path, f.Path, fs.ErrNotExist)
	}
	sum := sha256.Sum256(root)
	f.Path, f.Digest, f.Size = class.Path, chantal.Digest("sha256:"+hex.EncodeToString(sum[:])), int64(len(root))
	f.Modified, f.Type, f.Content = s.Modified, "", &inMemory{*bytes.NewReader(root)}
	return f, nil
}

// main opens the main root of a tree: the first of its roots that is there.
// The file is closed.
func (v *signedView) main(ctx context.Context, t chantal.Tree) (*chantal.File, []byte, error) {
	var none error
	for _, p := range t.Roots {
		f, body, err := v.read(ctx, p)
		if damaged := (*damagedRoot)(nil); errors.As(err, &damaged) {
			v.m.setAside(damaged.digest)
			f, body, err = v.read(ctx, p) // fetched anew, or it says why not
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return f, body, err
		}
		if none == nil {
			none = err
		}
	}
	return nil, nil, none
}

// damagedRoot says that a root is not what its name says: it must not get a
// signature for that.
type damagedRoot struct {
	path   string
	digest chantal.Digest
}

func (e *damagedRoot) Error() string { return damagedError(e.path).Error() }

// read reads a root, whose file it closes.
func (v *signedView) read(ctx context.Context, path string) (*chantal.File, []byte, error) {
	f, err := v.base.Open(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	body := make([]byte, f.Size)
	if _, err := io.ReadFull(f.Content, body); err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != f.Digest.Hex() {
		return nil, nil, &damagedRoot{path, f.Digest}
	}
	return f, body, nil
}

// signing is a root signed anew, with what belongs to it.
type signing struct {
	Base     chantal.Digest    `json:"base"` // the root that it was made of
	Key      string            `json:"key"`  // SHA-256 of the public key
	Date     time.Time         `json:"date"`
	Modified time.Time         `json:"modified"`
	Roots    map[string][]byte `json:"roots"`
}

// signings are the roots that are signed here, as they were last answered.
type signings struct {
	mu    sync.Mutex // held while a root is signed, so that dates rise
	last  *lru.Cache[string, *signing]
	dates *lru.Cache[string, date] // the newest that a place has answered
}

// date is what a client may have seen.
type date struct{ date, modified time.Time }

func newSignings() *signings {
	s := &signings{}
	s.last, _ = lru.New[string, *signing](signingsKept)
	s.dates, _ = lru.New[string, date](signingsKept)
	return s
}

// keys returns what the signing of a tree with that root, and its URL, are
// known by.
func (v *signedView) keys(tree string, root chantal.Digest) (signing, url string) {
	ref := v.place.Ref
	if ref == "" {
		ref = string(root)
	}
	if v.place.Shared {
		return v.Name + " " + tree + " " + ref, v.Name + " " + tree
	}
	signing = v.Name + "@" + ref + " " + tree
	return signing, signing
}

// signing returns the roots of the tree whose main root is f, with that body:
// those that were answered before, as long as they are of that root and
// nothing newer was answered at their URL since.
func (v *signedView) signing(f *chantal.File, body []byte, class chantal.Class) (*signing, error) {
	signer, err := v.signer()
	if err != nil {
		return nil, err
	}
	all := v.m.signings
	all.mu.Lock()
	defer all.mu.Unlock()
	key, url := v.keys(class.Tree.Name, f.Digest)
	public := sha256.Sum256(signer.PublicKey())
	s := v.known(key)
	newest, _ := all.dates.Get(url)
	if s != nil && (s.Base != f.Digest || s.Key != hex.EncodeToString(public[:])) {
		newest.raise(s)
		s = nil
	}
	// What belongs to a root that a client has is never made anew.
	entry := class.Path == class.Tree.Roots[0] || class.Path == class.Tree.Roots[min(1, len(class.Tree.Roots)-1)]
	if s == nil || entry && s.Date.Before(newest.date) {
		if s, err = v.sign(f, body, class.Tree, newest, signer); err != nil {
			return nil, err
		}
		s.Key = hex.EncodeToString(public[:])
		all.last.Add(key, s)
		v.remember(key, s)
	}
	newest.raise(s)
	all.dates.Add(url, newest)
	return s, nil
}

func (d *date) raise(s *signing) {
	if s.Date.After(d.date) {
		d.date = s.Date
	}
	if s.Modified.After(d.modified) {
		d.modified = s.Modified
	}
}

// sign signs a root, with a date that is not before any that its URL may have
// answered: of a root signed here, or of upstream's.
func (v *signedView) sign(f *chantal.File, body []byte, t chantal.Tree, newest date, signer chantal.Signer) (*signing, error) {
	now, err := v.m.Catalog.Clock() // never goes back
	if err != nil {
		return nil, err
	}
	now = now.Truncate(time.Second)
	s := &signing{Base: f.Digest, Date: SigningDate(now), Modified: now}
	// Clock and head never go back, so neither does the date, over restarts
	// too. It may stay: clients take another state of the same date.
	if tree := v.observed(t.Name); tree != nil {
		head, err := tree.peek()
		if err != nil {
			return nil, err
		}
		if head.gen.Date.After(s.Date) {
			s.Date = head.gen.Date
		}
	}
	if next := newest.modified.Add(time.Second); s.Modified.Before(next) && !newest.modified.IsZero() {
		s.Modified = next
	}
	s.Roots, err = v.Format.(chantal.Resigner).Resign(t, map[string][]byte{f.Path: body}, s.Date, signer)
	return s, err
}

// known returns the signing with that key; nil where there is none. Behind the
// forward proxy there is none after a restart: what other refs have answered
// at its URL since is not known then.
func (v *signedView) known(key string) *signing {
	if s, ok := v.m.signings.last.Get(key); ok {
		return s
	}
	if v.place.Shared {
		return nil
	}
	file, err := v.m.Store.Derived(signingFile(key))
	if err != nil {
		return nil
	}
	defer file.Close()
	var s signing
	if err := json.NewDecoder(file).Decode(&s); err != nil || len(s.Roots) == 0 {
		return nil
	}
	v.m.signings.last.Add(key, &s)
	return &s
}

// remember keeps a signing over a restart. It can be made again.
func (v *signedView) remember(key string, s *signing) {
	if v.place.Shared {
		return
	}
	err := v.m.Store.PutDerived(signingFile(key), func(w io.Writer) error { return json.NewEncoder(w).Encode(s) })
	if err != nil {
		v.m.Log.Warn("keeping a signed root", "repo", v.Name, "error", err)
	}
}

func signingFile(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "signed-1-" + hex.EncodeToString(sum[:])
}
