package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
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

	file   *chantal.File           // closed by write; not nil without a handler
	reopen func() (*answer, error) // finds the answer again, once the file is complete
	body   []byte                  // in place of the file's content, not empty: a rendered page
	header http.Header             // what goes beyond the fields below
	repo   string                  // the repository's name; "" for none
	etag   string
	cache  string // Cache-Control
	state  string // Cache-Status
	ref    string // Chantal-Ref
	via    string // added to Via; empty where this server is no proxy
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
	if err == nil {
		err = t.outdated(f)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	if f.Kind == chantal.Opaque && !t.state.Live && r.URL.RawQuery != "" {
		f.Close()
		return nil, &statusError{http.StatusNotFound, "what upstream answers to a query is in no snapshot and no instant; ask without one, or for live"}
	}
	a := t.answer(f)
	a.reopen = func() (*answer, error) { return h.open(r, t, view) }
	if f.Kind == chantal.Root {
		if renderer, ok := t.repo.Format.(chantal.Renderer); ok {
			return a, h.pages.render(a, r, t, renderer)
		}
	}
	return a, nil
}

// answer returns the answer with f as it is.
func (t *target) answer(f *chantal.File) *answer {
	a := &answer{file: f, repo: t.repo.Name, etag: `"` + f.Digest.Hex() + `"`, cache: revalidate, state: cacheStatus[f.Cache], dated: true}
	if f.Digest == "" {
		a.etag = ""
	}
	if f.Tree != "" {
		a.ref = t.repo.Name + "@" + t.ref.String()
	}
	frozen := !t.state.Live && f.Before.IsZero()
	if f.ByDigest || frozen && t.pinned {
		a.cache = immutable
	}
	if !t.pinned && (!t.state.Live || t.ref.Signed) {
		a.dated = false // the URL had other states, and will have
	}
	if t.ref.Signed && f.Kind == chantal.Root {
		a.cache = revalidate
	}
	return a
}

// write writes an answer: the one place from which content goes out.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, a *answer) {
	if a.handler != nil {
		a.handler.ServeHTTP(w, r)
		return
	}
	s := choose(r, a.validators(), a.size())
	growing, arriving := a.content().(chantal.Growing)
	if early := !arriving || a.early(r, s); !early && passing(r, growing) {
		s = selection{status: http.StatusOK} // it will never be there to take a part from
	} else if !early {
		err := growing.Wait(r.Context())
		a.file.Close()
		if err == nil {
			var again *answer
			if again, err = a.reopen(); err == nil {
				again.state, again.via = a.state, a.via // it was not here when it was asked for
				h.write(w, r, again)
				return
			}
		}
		h.fail(w, r, err)
		return
	}
	defer a.file.Close()
	switch s.status {
	case http.StatusPreconditionFailed:
		h.fail(w, r, &statusError{s.status, "the file is in another state than the request asks for; ask again without the condition"})
		return
	case http.StatusRequestedRangeNotSatisfiable:
		h.fail(w, r, &rangeError{a.size()})
		return
	}
	h.Metrics.answer(a, s.length(r, a))
	a.setHeader(w.Header())
	switch s.status {
	case http.StatusNotModified:
		w.Header().Del("Content-Type")
		if a.etag != "" {
			w.Header().Del("Last-Modified") // RFC 9110, 15.4.5: it would say nothing more
		}
		w.WriteHeader(s.status)
	case http.StatusPartialContent:
		h.writeParts(w, a, s.parts)
	default:
		h.writeWhole(w, r, a)
	}
}

// passing reports whether a file that is arriving is forgotten as it is read,
// for want of disk and memory, so that waiting for all of it gives nothing.
func passing(r *http.Request, g chantal.Growing) bool {
	p, ok := g.(interface{ Passing() bool })
	return ok && p.Passing() && r.ProtoAtLeast(1, 1)
}

// early reports whether a request can be answered from a file that is still
// arriving: all of it, or the rest from a place that can be read before the
// whole is verified. What depends on a length or a digest that nobody knows yet
// waits; and so does a client to whom the end of the connection would be the
// end of the file.
func (a *answer) early(r *http.Request, s selection) bool {
	header := r.Header
	switch {
	case a.etag == "" && (header["If-Match"] != nil || header["If-None-Match"] != nil || header["If-Range"] != nil):
		return false
	case a.file.Size < 0:
		return r.Method == http.MethodGet && header["Range"] == nil && r.ProtoAtLeast(1, 1)
	case s.status == http.StatusPartialContent:
		return len(s.parts) == 1 && s.parts[0].to == a.file.Size && s.parts[0].from < a.file.Size-heldBack
	}
	return true
}

// heldBack is how much of a file's end no reader gets before the whole has been
// verified. An answer that would begin there waits, and can still be an error.
const heldBack = 64 << 10

// writeWhole writes all of a file. What is on disk goes through ReadFrom, which
// leaves the copying to the kernel; what is in memory goes out in one Write.
func (h *Handler) writeWhole(w http.ResponseWriter, r *http.Request, a *answer) {
	size := a.size()
	if size >= 0 {
		w.Header()["Content-Length"] = []string{strconv.FormatInt(size, 10)}
	}
	switch content := a.content().(type) {
	case chantal.Growing:
		w.WriteHeader(http.StatusOK)
		if r.Method != http.MethodHead {
			h.cut(a, follow(w, content))
		}
	case onDisk:
		sendHead(w)
		if r.Method != http.MethodHead {
			h.cut(a, send(w, content, part{0, size}))
		}
	default:
		if r.Method != http.MethodHead {
			_, err := io.Copy(w, content)
			h.cut(a, err)
		}
	}
}

// writeParts writes one part of a file, or several.
func (h *Handler) writeParts(w http.ResponseWriter, a *answer, parts []part) {
	if len(parts) > 1 {
		h.writeMany(w, a, parts)
		return
	}
	out, p, size := w.Header(), parts[0], a.size()
	out.Set("Content-Length", strconv.FormatInt(p.to-p.from, 10))
	out.Set("Content-Range", p.of(size))
	w.WriteHeader(http.StatusPartialContent)
	content := a.content()
	if growing, ok := content.(chantal.Growing); ok { // the part reaches to the end
		_, err := growing.Seek(p.from, io.SeekStart)
		if err == nil {
			err = follow(w, growing)
		}
		h.cut(a, err)
		return
	}
	if _, ok := content.(onDisk); ok {
		sendHead(w)
	}
	h.cut(a, send(w, content, p))
}

// writeMany writes parts as multipart/byteranges (RFC 9110, 14.6).
func (h *Handler) writeMany(w http.ResponseWriter, a *answer, parts []part) {
	size, kind := a.size(), w.Header().Get("Content-Type")
	var length counter
	dry := multipart.NewWriter(&length)
	for _, p := range parts {
		_, _ = dry.CreatePart(p.header(kind, size)) // a counter takes everything
		length += counter(p.to - p.from)
	}
	_ = dry.Close()
	w.Header().Set("Content-Type", "multipart/byteranges; boundary="+dry.Boundary())
	w.Header().Set("Content-Length", strconv.FormatInt(int64(length), 10))
	w.WriteHeader(http.StatusPartialContent)
	out := multipart.NewWriter(w)
	err := out.SetBoundary(dry.Boundary())
	content := a.content()
	for _, p := range parts {
		if err == nil {
			_, err = out.CreatePart(p.header(kind, size))
		}
		if err == nil {
			err = send(w, content, p)
		}
	}
	h.cut(a, errors.Join(err, out.Close()))
}

// of returns p as Content-Range has it.
func (p part) of(size int64) string { return fmt.Sprintf("bytes %d-%d/%d", p.from, p.to-1, size) }

func (p part) header(kind string, size int64) textproto.MIMEHeader {
	return textproto.MIMEHeader{"Content-Range": {p.of(size)}, "Content-Type": {kind}}
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// onDisk is content that the kernel can send by itself.
type onDisk interface {
	io.ReadSeeker
	Fd() uintptr
}

// smallPart is what is copied through the buffers of the connection: for less
// than that the kernel's help costs more than it saves.
const smallPart = 16 << 10

// send writes a part of content that is complete.
func send(w io.Writer, content io.ReadSeeker, p part) error {
	if _, err := content.Seek(p.from, io.SeekStart); err != nil {
		return err
	}
	if p.to-p.from < smallPart {
		w = struct{ io.Writer }{w} // hides ReadFrom
	}
	n, err := io.Copy(w, io.LimitReader(content, p.to-p.from))
	if err == nil && n < p.to-p.from {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// follow writes the rest of a file that is arriving. The head goes at once: the
// client learns that the file is there.
func follow(w http.ResponseWriter, growing chantal.Growing) error {
	sendHead(w)
	_, err := growing.WriteTo(w)
	return err
}

// sendHead puts the head on its way. Otherwise net/http would read the first
// bytes of a file itself.
func sendHead(w http.ResponseWriter) {
	if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
}

// cut ends the connection where content could not be written whole, so that
// the client never takes it for complete.
func (h *Handler) cut(a *answer, err error) {
	if err != nil {
		h.Log.Debug("answer was cut", "path", a.file.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
}

// content returns what is to be written.
func (a *answer) content() io.ReadSeeker {
	if a.body != nil {
		return bytes.NewReader(a.body)
	}
	return a.file.Content
}

// size returns the length of the content; -1 while it is not known.
func (a *answer) size() int64 {
	if a.body != nil {
		return int64(len(a.body))
	}
	return a.file.Size
}

func (a *answer) validators() validators { return validators{a.etag, a.file.Modified, a.dated} }

// setHeader sets the header fields of an answer.
func (a *answer) setHeader(out http.Header) {
	for k, v := range a.header {
		out[k] = v
	}
	// One array holds all values: this is done for every hit. The keys are in
	// the form that http.Header has them in.
	values := make([]string, 0, 10)
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
	if a.via != "" && len(out["Via"]) > 0 {
		a.via = strings.Join(out["Via"], ", ") + ", " + a.via
	}
	set("Via", a.via)
	set("Accept-Ranges", "bytes")
	if a.file == nil {
		return
	}
	if a.file.Generation > 0 {
		set("Chantal-Generation", strconv.Itoa(a.file.Generation))
	}
	if !a.file.Modified.IsZero() {
		set("Last-Modified", a.file.Modified.UTC().Format(http.TimeFormat))
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
