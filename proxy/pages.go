package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"chantal"

	lru "github.com/hashicorp/golang-lru/v2"
)

// pageBytes is how much memory rendered pages may take together.
const pageBytes = 64 << 20

// pages keeps rendered pages, so that a hit does not render again.
type pages struct {
	mu    sync.Mutex
	cache *lru.Cache[pageKey, *page]
	bytes int
}

type pageKey struct {
	path, mediaType string
	root            chantal.Digest
	local           bool
	before          int64
}

type page struct {
	body      []byte
	etag      string
	mediaType string // of a derived one
}

func newPages() *pages {
	p := &pages{}
	p.cache, _ = lru.NewWithEvict(100_000, func(_ pageKey, gone *page) { p.bytes -= len(gone.body) })
	return p
}

// render puts the page that the client gets in place of a kept root.
func (p *pages) render(a *answer, r *http.Request, t *target, renderer chantal.Renderer) error {
	mediaType, err := renderer.Represent(strings.Join(r.Header.Values("Accept"), ", "), r.URL.Query().Get("format"))
	if err != nil {
		a.file.Close()
		return &statusError{http.StatusNotAcceptable, err.Error()}
	}
	f := a.file
	key := pageKey{t.path, mediaType, f.Digest, !t.forward, 0}
	if !f.Before.IsZero() {
		key.before = f.Before.UnixNano()
	}
	made, ok := p.get(key)
	if !ok {
		made, err = draw(renderer, f, key, chantal.Rendering{Local: !t.forward, Before: f.Before})
		if err != nil {
			a.file.Close()
			return fmt.Errorf("page %s: %w", t.path, err)
		}
		p.put(key, made)
	}
	a.body, a.etag = made.body, made.etag
	a.header = http.Header{"Content-Type": {mediaType}, "Vary": {"Accept"}}
	// Two representations share one date, and so do a page and its past.
	a.dated = false
	return nil
}

func draw(renderer chantal.Renderer, f *chantal.File, key pageKey, o chantal.Rendering) (*page, error) {
	root, err := io.ReadAll(f.Content)
	if err != nil {
		return nil, err
	}
	body, err := renderer.Render(key.path, root, key.mediaType, o)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return &page{body: body, etag: `"` + hex.EncodeToString(sum[:]) + `"`}, nil
}

func (p *pages) get(key pageKey) (*page, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cache.Get(key)
}

func (p *pages) put(key pageKey, made *page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cache.Contains(key) {
		return // somebody else drew it meanwhile
	}
	p.cache.Add(key, made)
	p.bytes += len(made.body)
	for p.bytes > pageBytes && p.cache.Len() > 1 {
		p.cache.RemoveOldest()
	}
}
