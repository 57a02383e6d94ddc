package proxy

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"chantal"
	"chantal/snapshot"
)

// answer is what a request gets, before anything of it is written.
type answer struct {
	handler http.Handler // writes the answer itself: own pages; the rest is unset

	file   *chantal.File                 // closed by write
	reopen func() (*chantal.File, error) // opens the file again, once it is complete
	body   []byte                        // in place of the file's content: a rendered page
	status int                           // 0 for what file or body give
	header http.Header                   // what goes beyond the fields below
	etag   string
	cache  string // Cache-Control
	state  string // Cache-Status
	ref    string // Chantal-Ref
	dated  bool   // a date alone may confirm what the client has
}

const (
	immutable  = "public, max-age=31536000, immutable"
	revalidate = "no-cache"
)

// cacheStatus are the values of Cache-Status (RFC 9211).
var cacheStatus = [...]string{
	chantal.Hit:         "chantal; hit",
	chantal.Miss:        "chantal; fwd=miss; stored",
	chantal.Revalidated: "chantal; hit; detail=revalidated",
	chantal.Stale:       "chantal; fwd=stale; detail=upstream",
}

// open opens the target's path in its view.
func (h *Handler) open(r *http.Request, t *target, view chantal.View) (*answer, error) {
	f, err := view.Open(r.Context(), t.path)
	if err != nil {
		return nil, err
	}
	a := &answer{file: f, etag: `"` + f.Digest.Hex() + `"`, cache: revalidate, state: cacheStatus[f.Cache], dated: true}
	if f.Digest == "" {
		a.etag = ""
	}
	a.reopen = func() (*chantal.File, error) { return view.Open(r.Context(), t.path) }
	if f.Tree != "" {
		a.ref = t.repo.Name + "@" + t.ref.String()
	}
	frozen := !t.state.Live && f.Before.IsZero()
	if f.ByDigest || frozen && t.pinned {
		a.cache = immutable
	}
	if !t.pinned && !t.state.Live {
		a.dated = false // the URL had other states, and will have
	}
	if f.Kind == chantal.Root {
		if renderer, ok := t.repo.Format.(chantal.Renderer); ok {
			return a, h.pages.render(a, r, t, renderer)
		}
	}
	return a, nil
}

// write writes an answer: the one place from which content goes out.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, a *answer) {
	if a.handler != nil {
		a.handler.ServeHTTP(w, r)
		return
	}
	if a.file != nil {
		defer func() { a.file.Close() }()
	}
	growing, _ := a.content().(chantal.Growing)
	if growing != nil && !followable(r, a.file.Size) {
		// A part that is not the rest of the file, or a length that nobody
		// knows yet, can only be answered when all has been verified.
		if err := growing.Wait(r.Context()); err != nil {
			h.fail(w, r, err)
			return
		}
		f, err := a.reopen()
		if err != nil {
			h.fail(w, r, err)
			return
		}
		a.file.Close()
		a.file, growing = f, nil
		a.etag = `"` + f.Digest.Hex() + `"`
	}
	a.setHeader(w.Header(), r)
	h.Metrics.answer(a)
	switch {
	case a.status != 0:
		w.WriteHeader(a.status)
		if r.Method != http.MethodHead && a.file != nil {
			h.copy(w, a.file.Content)
		}
	case growing != nil && r.Header.Get("Range") == "":
		h.follow(w, r, a, growing)
	case growing == nil && a.whole() && unconditional(r):
		h.writeWhole(w, a.file)
	default:
		http.ServeContent(w, r, "", a.modified(), a.content())
	}
}

// whole reports whether the answer is the file as it is stored, with the
// fields that every file gets.
func (a *answer) whole() bool { return a.file != nil && a.body == nil && a.header == nil }

// unconditional reports whether a request asks for a whole file and nothing
// less, so that there is nothing for ServeContent to decide.
func unconditional(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	for _, key := range [...]string{"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if len(r.Header[key]) > 0 {
			return false
		}
	}
	return true
}

// writeWhole writes a file that is complete. What is on disk goes through
// ReadFrom, which leaves the copying to the kernel; what is in memory goes out
// in one Write.
func (h *Handler) writeWhole(w http.ResponseWriter, f *chantal.File) {
	out := w.Header()
	values := [...]string{strconv.FormatInt(f.Size, 10), f.Modified.UTC().Format(http.TimeFormat)}
	out["Content-Length"], out["Last-Modified"] = values[:1:1], values[1:]
	if _, disk := f.Content.(interface{ Fd() uintptr }); disk {
		// Without its head on the way net/http would read the first bytes
		// itself.
		if flusher, ok := w.(http.Flusher); ok {
			flusher.Flush()
		}
		h.copy(w, io.LimitReader(f.Content, f.Size))
	} else {
		h.copy(w, f.Content)
	}
}

// content returns what is to be written; nil for an answer without any.
func (a *answer) content() io.ReadSeeker {
	switch {
	case a.body != nil:
		return bytes.NewReader(a.body)
	case a.file != nil:
		return a.file.Content
	}
	return nil
}

func (a *answer) modified() time.Time {
	if a.file == nil {
		return time.Time{}
	}
	return a.file.Modified
}

// followable reports whether a request can be answered from a file that is
// still arriving.
func followable(r *http.Request, size int64) bool {
	if size < 0 {
		return r.Method == http.MethodGet && r.Header.Get("Range") == ""
	}
	spec := r.Header.Get("Range")
	if spec == "" || r.Method == http.MethodHead {
		return true
	}
	from, ok := strings.CutPrefix(spec, "bytes=")
	from, open := strings.CutSuffix(from, "-")
	_, err := strconv.ParseInt(from, 10, 64)
	return ok && open && err == nil
}

// follow writes a file as it arrives. When it turns out wrong the connection
// is cut, so that the client never takes it for complete.
func (h *Handler) follow(w http.ResponseWriter, r *http.Request, a *answer, growing chantal.Growing) {
	if a.file.Size >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(a.file.Size, 10))
	}
	if !a.file.Modified.IsZero() {
		w.Header().Set("Last-Modified", a.file.Modified.UTC().Format(http.TimeFormat))
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := growing.WriteTo(w); err != nil {
		h.Log.Debug("answer was cut", "path", a.file.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
}

func (h *Handler) copy(w http.ResponseWriter, content io.Reader) {
	if _, err := io.Copy(w, content); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// setHeader sets the header fields of an answer, and takes those conditions
// from the request that must not confirm what the client has.
func (a *answer) setHeader(out http.Header, r *http.Request) {
	for k, v := range a.header {
		out[k] = v
	}
	// One array holds all values: this is done for every hit. The keys are in
	// the form that http.Header has them in.
	values := make([]string, 0, 8)
	set := func(key, value string) {
		if value != "" {
			values = append(values, value)
			out[key] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	if out.Get("Content-Type") == "" && a.file != nil {
		set("Content-Type", contentType(a.file))
	}
	set("Etag", a.etag)
	set("Cache-Control", a.cache)
	set("Cache-Status", a.state)
	set("Chantal-Ref", a.ref)
	set("Accept-Ranges", "bytes")
	if a.file == nil {
		return
	}
	if a.file.Generation > 0 {
		set("Chantal-Generation", strconv.Itoa(a.file.Generation))
	}
	// net/http confirms every date that is not older; only the very date that
	// this state was served with may be confirmed.
	if since := r.Header.Get("If-Modified-Since"); since != "" {
		t, err := http.ParseTime(since)
		if err != nil || !a.dated || !t.Equal(a.file.Modified) {
			r.Header.Del("If-Modified-Since")
		}
	}
}

// types are media types of what repositories hold, for files of which upstream
// said none.
var types = map[string]string{
	".deb": "application/vnd.debian.binary-package", ".udeb": "application/vnd.debian.binary-package",
	".rpm": "application/x-rpm", ".drpm": "application/x-rpm",
	".whl": "application/octet-stream", ".gz": "application/gzip", ".xz": "application/x-xz", ".bz2": "application/x-bzip2",
	".zst": "application/zstd", ".zip": "application/zip", ".xml": "application/xml", ".metadata": "text/plain; charset=utf-8",
	".asc": "application/pgp-signature", ".gpg": "application/pgp-signature", ".key": "application/pgp-keys",
}

func contentType(f *chantal.File) string {
	if f.Type != "" {
		return f.Type
	}
	ext := path.Ext(f.Path)
	if t := types[ext]; t != "" {
		return t
	}
	if t := mime.TypeByExtension(ext); t != "" {
		return t
	}
	return "application/octet-stream"
}

// instantRef is a time as a ref, for messages.
func instantRef(t time.Time) string { return snapshot.DefaultName(t.Add(time.Second - 1)) }
