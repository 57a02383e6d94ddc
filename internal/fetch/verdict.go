package fetch

import (
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"chantal"
)

// Complete returns nil for an answer that is the whole file (200). For all
// others it says what they mean for one who wants the file: fs.ErrNotExist
// where upstream says that it has none (404, 410), else a
// *chantal.UpstreamError.
func (r *Response) Complete() error {
	switch r.Status {
	case http.StatusOK:
		return nil
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("upstream %s answered %d: %w", r.URL, r.Status, fs.ErrNotExist)
	}
	return &chantal.UpstreamError{URL: r.URL, Status: r.Status}
}

// Unchanged reports whether upstream confirmed what the request's conditions
// named (304).
func (r *Response) Unchanged() bool { return r.Status == http.StatusNotModified }

// Partial reports whether the body begins at the offset that was asked for
// (206) and not at the start of the file.
func (r *Response) Partial() bool { return r.Status == http.StatusPartialContent }

// Unresumable reports whether upstream does not go on with the file at offset,
// and may all the same have the whole: 416, another part than the one asked
// for, or another refusal of such a request.
func (r *Response) Unresumable(offset int64) bool {
	switch r.Status {
	case http.StatusPartialContent:
		return r.Offset != offset
	case http.StatusNotFound, http.StatusGone, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return r.Status >= 400 && r.Status < 500
}

// Unusable is the error for an answer that came, but that cannot be served.
func Unusable(url string, err error) error {
	return &chantal.UpstreamError{URL: url, Status: http.StatusOK, Err: err}
}

// doubtful is how long a date tells nothing about what comes after it: it has
// whole seconds, in which a file may change more than once, and clocks differ.
// Web servers make ETags of such dates, too.
const doubtful = time.Minute

// Recent reports whether the file had been changed so short a time before the
// answer, by upstream's clock or else by now, that its validators may be those
// of other content as well (RFC 9110, section 8.8.2.2).
func (r *Response) Recent(now time.Time) bool {
	if r.Modified.IsZero() {
		return false
	}
	if date, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		now = date
	}
	return now.Sub(r.Modified) < doubtful
}
