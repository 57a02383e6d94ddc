package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"chantal"
)

// maxNeeded is how much of a file that belongs to a page is read to derive
// another one from: the metadata of a wheel, with its description.
const maxNeeded = 16 << 20

// derived answers with a file that the format makes of a page and of one file
// that this lists, both as the view has them.
func (h *Handler) derived(r *http.Request, t *target, view chantal.View, deriver chantal.Deriver, page string) (*answer, error) {
	f, err := view.Open(r.Context(), page)
	if err != nil {
		return nil, err
	}
	a := t.answer(f)
	o := chantal.Rendering{Local: !t.forward, Before: f.Before}
	key := pageKey{path: t.path, root: f.Digest, local: o.Local}
	if !o.Before.IsZero() {
		key.before = o.Before.UnixNano()
	}
	made, ok := h.pages.get(key)
	if !ok {
		var whole bool
		if made, whole, err = derive(r, t.path, f, view, deriver, o); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", t.path, err)
		}
		if whole {
			h.pages.put(key, made)
		}
	}
	a.body, a.etag = made.body, made.etag
	a.header = http.Header{"Content-Type": {made.mediaType}}
	a.dated = false
	return a, nil
}

// derive makes the file at path; whole is false where that will be another one
// as soon as what the page lists can be had.
func derive(r *http.Request, path string, f *chantal.File, view chantal.View, deriver chantal.Deriver, o chantal.Rendering) (made *page, whole bool, err error) {
	root, err := io.ReadAll(f.Content)
	if err != nil {
		return nil, false, err
	}
	need, err := deriver.Needs(path, root, o.Before)
	if err != nil {
		return nil, false, err
	}
	var needed []byte
	if need.Path != "" {
		needed, err = readNeeded(r, view, need.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, false, err
		}
	}
	body, mediaType, err := deriver.Derive(path, root, needed, o)
	if err != nil {
		return nil, false, err
	}
	sum := sha256.Sum256(body)
	made = &page{body: body, etag: `"` + hex.EncodeToString(sum[:]) + `"`, mediaType: mediaType}
	return made, need.Path == "" || needed != nil && len(need.Digests) > 0, nil
}

func readNeeded(r *http.Request, view chantal.View, path string) ([]byte, error) {
	f, err := view.Open(r.Context(), path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f.Content, maxNeeded+1))
	if err == nil && len(body) > maxNeeded {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxNeeded)
	}
	return body, err
}
