package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"chantal"
)

// Clients that ask for a list of mirrors get one of ours, which leads to
// nothing but the repository itself. A list that names roots leads below
// rootPrefix with the digest of the very root that it names: what the client
// asks for there is of that generation, whatever happens in between. Behind
// the forward proxy lists lead below placePrefix, on the host that the client
// asked: the door, the scheme and the ref then stay what they are. Nothing
// upstream has such paths.
const (
	rootPrefix  = "+root/"
	placePrefix = "/+chantal/"
)

// enter reads the parts of the target's path that only our own lists make.
func (t *target) enter() {
	if t.repo == nil || t.began != "" {
		return
	}
	rest, ok := strings.CutPrefix(t.path, rootPrefix)
	hex, below, slash := strings.Cut(rest, "/")
	if root, _ := t.repo.OwnLists(); !ok || !slash || root == "" {
		return
	}
	if d, err := chantal.NewDigest("sha256", hex); err == nil {
		t.began, t.path = d, below
		t.base += rootPrefix + hex + "/"
	}
}

// place finds the repository of a URL that one of our lists led to; false
// where it is none of these.
func (h *Handler) place(t *target, u *url.URL) (bool, error) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), placePrefix)
	if !ok {
		return false, nil
	}
	name, below, _ := strings.Cut(rest, "/")
	if t.repo = h.Mirror.Repo(name); t.repo == nil {
		return true, h.noRepo(name)
	}
	p, err := decode(below)
	t.path = t.repo.Prefix() + p
	return true, err
}

// listBase returns the URL that our lists lead to.
func (h *Handler) listBase(r *http.Request, t *target) string {
	if t.forward {
		scheme := "http"
		if t.tls {
			scheme = "https"
		}
		return scheme + "://" + t.url.Host + placePrefix + t.repo.Name + "/"
	}
	host := r.Host
	if host == "" {
		host = localAddr(r)
	}
	scheme := "http"
	if strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https" // something before us speaks TLS with the client
	}
	base := scheme + "://" + host + "/" + t.repo.Name
	if t.pinned || !t.state.Live {
		base += "@" + t.ref.String()
	}
	return base + "/"
}

// mirrorList answers with a list of mirrors, made of the generation that the
// view shows this client now.
func (h *Handler) mirrorList(r *http.Request, t *target, view chantal.View, form string) (*answer, error) {
	root, _ := t.repo.OwnLists()
	at := *t
	at.path = root
	a, err := h.open(r, &at, view)
	if err != nil {
		return nil, err
	}
	list := chantal.MirrorList{Form: form, Bases: []string{h.listBase(r, t)}}
	lister := t.repo.Format.(chantal.MirrorLister)
	held, err := t.state.At(t.repo.Name)
	if err == nil {
		list.Roots, err = t.repo.ListedRoots(a.file, held.Line(), held.At)
	}
	if err != nil {
		a.file.Close()
		return nil, fmt.Errorf("%s of %s: %w", form, t.repo.Name, err)
	}
	if lister.NamesRoots(form) {
		list.Bases[0] += rootPrefix + a.file.Digest.Hex() + "/"
	}
	body, mediaType := lister.RenderList(list)
	sum := sha256.Sum256(body)
	a.body, a.etag, a.cache = body, `"`+hex.EncodeToString(sum[:])+`"`, revalidate
	a.header = http.Header{"Content-Type": {mediaType}}
	a.dated = false // the list changes with more than the root
	return a, nil
}

// outdated is the error for a root that is not the one which the list named
// that led the client here.
func (t *target) outdated(f *chantal.File) error {
	if root, _ := t.repo.OwnLists(); t.began == "" || t.path != root || f.Digest == t.began {
		return nil
	}
	return &statusError{http.StatusNotFound, "the root that the list of mirrors named is no longer kept, or not part of " +
		t.repo.Name + "@" + t.ref.String() + "; fetch the list again (dnf --refresh)"}
}
