package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"time"

	"chantal/internal/keep"
)

// backend is what commands work on: a running serve, asked over its socket or
// address, or the data directory itself. The HTTP interface answers from the
// same one, so command line and interface are one workflow. Implementations
// are safe for concurrent use. Errors that tell the user what to do are
// *failure; lists come in a stable order.
type backend interface {
	Server(ctx context.Context) (serverReport, error)
	Repos(ctx context.Context) ([]repoRow, error)
	Generations(ctx context.Context) ([]generationRow, error)
	// Status reports on the named repositories, or on all of them where none
	// is named. An unknown name is an error.
	Status(ctx context.Context, repos []string) ([]statusRow, error)
	Snapshots(ctx context.Context) ([]snapshotReport, error)
	ShowSnapshot(ctx context.Context, name string) (snapshotReport, error)
	// CreateSnapshot freezes. progress is called with single lines for people
	// while that takes time, never concurrently and never after the return.
	CreateSnapshot(ctx context.Context, r createRequest, progress func(line string)) (snapshotReport, error)
	// PublishSnapshot makes a snapshot of editions. progress is called as for
	// CreateSnapshot.
	PublishSnapshot(ctx context.Context, r publishRequest, progress func(line string)) (snapshotReport, error)
	// DeleteSnapshots deletes all of names or, with an error, none.
	DeleteSnapshots(ctx context.Context, names []string) error
	// Verify reads what is stored again. What is wrong is in the report, not in
	// the error. progress is called as for CreateSnapshot.
	Verify(ctx context.Context, r verifyRequest, progress func(line string)) (verifyReport, error)
	// Diff compares two refs, going by what is stored. It writes nothing and
	// fetches nothing.
	Diff(ctx context.Context, q diffRequest) (diffReport, error)
	// Sync fills repositories. What cannot be had is in the report, not in the
	// error. steps is called as progress is for CreateSnapshot.
	Sync(ctx context.Context, r syncRequest, steps func(syncStep)) (syncReport, error)
	// Collect frees what nothing needs, or says what that would be. progress is
	// called as for CreateSnapshot.
	Collect(ctx context.Context, r collectRequest, progress func(line string)) (keep.Collected, error)
	// Stats counts what is stored, of the named repositories or of all. An
	// unknown name is an error.
	Stats(ctx context.Context, repos []string) (statsReport, error)
	// Why says what keeps the blob whose SHA-256 begins with digest.
	Why(ctx context.Context, digest string) (keep.Why, error)
	// Layout fetches what is missing of a ref, and hands over all files of what
	// it holds, some at a time and in no order, by calling put; none where some
	// cannot be had, which the report says. What is stored of them stays stored
	// meanwhile. progress is called as for CreateSnapshot.
	Layout(ctx context.Context, q layoutRequest, progress func(line string), put func([]layoutFile)) (layoutReport, error)
	Explain(ctx context.Context, url string) (explanation, error)
	CA(ctx context.Context) (authority, error)
}

// openFunc opens the data directory of env while no serve runs. The error
// names the directory where another process has it locked.
type openFunc func(ctx context.Context, env *environment) (backend, io.Closer, error)

// serveFunc runs the proxy until ctx ends.
type serveFunc func(ctx context.Context, env *environment, o serveOptions) error

// serveOptions are the flags of serve.
type serveOptions struct {
	Listen  string // "" for what the configuration says
	Offline bool   // answer from the store only, whatever the configuration says
}

// The JSON forms below are what --json prints and what /-/api/v1 answers.
type (
	serverReport struct {
		Version string `json:"version"`
		Data    string `json:"data"`             // the data directory
		Listen  string `json:"listen,omitempty"` // host:port; empty where no serve runs

		Damaged int          `json:"damaged_blobs"`   // set aside, and not fetched again yet
		Scrub   *scrubReport `json:"scrub,omitempty"` // nil where no serve runs, or it does not scrub
		GC      *gcReport    `json:"gc,omitempty"`    // nil where nothing has been collected yet
	}

	// scrubReport is how far serve has come with reading the whole store again.
	scrubReport struct {
		Underway bool      `json:"underway"`
		Done     float64   `json:"done"` // of the pass under way, from 0 to 1
		Began    time.Time `json:"began,omitzero"`
		Finished time.Time `json:"finished,omitzero"` // of the last pass that was
		Blobs    int       `json:"blobs"`             // read in this pass, or the last one
		Bytes    int64     `json:"bytes"`
		Damaged  int       `json:"damaged"` // found in it
	}

	repoRow struct {
		Name        string     `json:"name"`
		Type        string     `json:"type"`
		Upstream    []string   `json:"upstream"`
		List        string     `json:"list,omitempty"`      // URL of a list of mirrors
		ListForm    string     `json:"list_form,omitempty"` // metalink or mirrorlist
		Trees       int        `json:"trees"`
		Generations int        `json:"generations"`
		Artifacts   int        `json:"artifacts"`
		Bytes       int64      `json:"bytes"`
		Configured  bool       `json:"configured"`        // false for one that was recognised in requests
		Keyring     string     `json:"keyring,omitempty"` // path of the configured keys
		Suites      []suiteRow `json:"suites,omitempty"`  // type apt only
	}

	// suiteRow is what the newest Release of one apt tree says.
	suiteRow struct {
		Tree       string   `json:"tree"` // dists/bookworm; a folder without dists/ for flat repositories
		Origin     string   `json:"origin,omitempty"`
		Label      string   `json:"label,omitempty"`
		Components []string `json:"components,omitempty"`
	}

	generationRow struct {
		Repo       string    `json:"repo"`
		Tree       string    `json:"tree"`
		Generation int       `json:"generation"`
		Observed   time.Time `json:"observed"`
		RootSHA256 string    `json:"root_sha256"` // hexadecimal
	}

	statusRow struct {
		Repo        string    `json:"repo"`
		Type        string    `json:"type"`
		Reachable   *bool     `json:"reachable"` // null where upstream was not asked yet
		LastRefresh time.Time `json:"last_refresh,omitzero"`
		Tree        string    `json:"tree,omitempty"` // the tree of the newest generation
		Generation  int       `json:"generation"`     // 0 for none
		Observed    time.Time `json:"observed,omitzero"`
		Cached      int       `json:"cached"` // artifacts stored
		Known       int       `json:"known"`  // artifacts that metadata names
		Bytes       int64     `json:"bytes"`
		Errors      []string  `json:"errors"`

		Sync *syncStatus `json:"sync,omitempty"` // nil where none was made, and none is to be
	}

	createRequest struct {
		Name   string            `json:"name"`            // "" for the UTC time
		Repos  []string          `json:"repos,omitempty"` // none for all
		At     string            `json:"at,omitempty"`    // an instant; "" for now
		Labels map[string]string `json:"labels,omitempty"`
		Note   string            `json:"note,omitempty"`
		Force  bool              `json:"force,omitempty"` // take the name of a deleted snapshot
		Brief  bool              `json:"brief,omitempty"` // the report goes without counts
	}

	snapshotReport struct {
		Name    string            `json:"name"`
		Created time.Time         `json:"created"`
		Sealed  bool              `json:"sealed"`
		Repos   []snapshotRepo    `json:"repos"`
		Labels  map[string]string `json:"labels"`
		Note    string            `json:"note,omitempty"`
		Missing []string          `json:"missing,omitempty"` // metadata that upstream no longer has
	}

	snapshotRepo struct {
		Repo    string `json:"repo"`
		Edition bool   `json:"edition,omitempty"` // its metadata was made, and signed, here
		// Suites are those of an edition of type apt, in lists.
		Suites []suiteRow `json:"suites,omitempty"`
		*SnapshotCount
	}

	// SnapshotCount is exported for encoding/json alone. It takes reading every index of the snapshot; lists go
	// without it.
	SnapshotCount struct {
		Trees   int `json:"trees"`
		Known   int `json:"artifacts_known"`
		Present int `json:"artifacts_present"`
	}

	// explanation says what a URL resolves to. Fields that do not apply are
	// empty.
	explanation struct {
		URL        string    `json:"url"`
		OK         bool      `json:"ok"`               // it would be answered with content
		Status     int       `json:"status,omitempty"` // the HTTP status it would get
		Repo       string    `json:"repo,omitempty"`
		Ref        string    `json:"ref,omitempty"`
		Path       string    `json:"path,omitempty"`
		Kind       string    `json:"kind,omitempty"`
		Tree       string    `json:"tree,omitempty"`
		Generation int       `json:"generation,omitempty"`
		Observed   time.Time `json:"observed,omitzero"`
		Digest     string    `json:"digest,omitempty"`
		Size       int64     `json:"size,omitempty"`
		Stored     bool      `json:"stored"`
		Mirrors    []string  `json:"mirrors,omitempty"` // where it would be fetched, in order
		Lists      []string  `json:"lists,omitempty"`   // for the root of an rpm repository: where lists of mirrors that lead here are
		Reason     string    `json:"reason,omitempty"`  // why it would fail, or how it was found
		Next       string    `json:"next,omitempty"`    // what to do about it
	}

	authority struct {
		PEM         string    `json:"pem"`
		Fingerprint string    `json:"fingerprint"` // SHA-256 of the certificate, hexadecimal
		NotAfter    time.Time `json:"not_after,omitzero"`
	}
)

// failure is an error with what the user can do about it.
type failure struct {
	Exit    int    // the process's exit code
	Status  int    // the HTTP status; 0 for the usual one
	Message string // one sentence without a final dot
	Next    string // the next step; may be empty
	Err     error  // the cause; may be nil
}

func (f *failure) Error() string {
	if f.Next == "" {
		return f.Message
	}
	return f.Message + "; " + f.Next
}

func (f *failure) Unwrap() error { return f.Err }

// asFailure gives any error its exit code and HTTP status.
func asFailure(err error) *failure {
	f := &failure{}
	if !errors.As(err, &f) {
		f = &failure{Message: err.Error(), Err: err}
		if errors.Is(err, fs.ErrNotExist) {
			f.Status = http.StatusNotFound
		}
	}
	done := *f
	if done.Exit == 0 {
		done.Exit = 1
	}
	if done.Status == 0 {
		done.Status = http.StatusInternalServerError
	}
	return &done
}

// syncStatus is how a repository's syncs are doing.
type syncStatus struct {
	Underway time.Time   `json:"underway,omitzero"` // since when one is under way
	Last     *syncResult `json:"last,omitempty"`    // how the last one ended
	Success  time.Time   `json:"success,omitzero"`  // when the last one that left nothing undone ended
	Next     time.Time   `json:"next,omitzero"`     // when serve begins the next one
}
