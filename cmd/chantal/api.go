package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"

	"chantal/internal/keep"
)

const apiPrefix = "/-/api/v1/"

// problem is a failure as RFC 9457 has it, with the exit code and next step
// for the command that asked.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"`
	Exit   int    `json:"exit"`
}

func problemOf(err error) problem {
	f := asFailure(err)
	return problem{"about:blank", http.StatusText(f.Status), f.Status, f.Message, f.Next, f.Exit}
}

// event is one line of the answer to a request that takes time: any number of
// lines or steps of progress, or files, then a snapshot, a report or an error.
type event struct {
	Progress string          `json:"progress,omitempty"`
	Step     *syncStep       `json:"step,omitempty"`
	Files    []layoutFile    `json:"files,omitempty"`
	Layout   *layoutReport   `json:"layout,omitempty"`
	Sync     *syncReport     `json:"sync,omitempty"`
	Snapshot *snapshotReport `json:"snapshot,omitempty"`
	Verify   *verifyReport   `json:"verify,omitempty"`
	Collect  *keep.Collected `json:"gc,omitempty"`
	Error    *problem        `json:"error,omitempty"`
}

// isResult reports an event that is the last one, and no error.
func (e *event) isResult() bool {
	return e.Snapshot != nil || e.Verify != nil || e.Sync != nil || e.Collect != nil || e.Layout != nil
}

// apiHandler serves /-/api/v1. Unless writable it changes nothing: what
// changes anything goes through the socket, which only its owner can open.
func apiHandler(b backend, writable bool) http.Handler { return &api{b, writable} }

type api struct {
	backend  backend
	writable bool
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, apiPrefix), "/")
	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		answer, err := a.read(r.Context(), r, what, name)
		if err != nil {
			writeProblem(w, err)
			return
		}
		writeJSON(w, http.StatusOK, "application/json", answer)
	case !changes(r.Method, what, name):
		w.Header().Set("Allow", "GET, HEAD")
		writeProblem(w, &failure{
			Status: http.StatusMethodNotAllowed, Message: r.Method + " is not possible here", Next: "use GET",
		})
	case !a.writable:
		writeProblem(w, &failure{
			Status: http.StatusForbidden, Message: "this address only answers questions",
			Next: "use DATA/chantal.sock on the machine where serve runs, as the command line does without --server",
		})
	case what == "verify":
		a.verify(w, r)
	case what == "editions":
		a.publish(w, r)
	case what == "sync":
		a.sync(w, r)
	case what == "gc":
		a.collect(w, r)
	case what == "layout":
		a.layout(w, r)
	case r.Method == http.MethodPost:
		a.create(w, r)
	default:
		a.delete(w, r, name)
	}
}

// changes reports whether a request is one of those that change something.
func changes(method, what, name string) bool {
	switch what {
	case "snapshots":
		return method == http.MethodPost || method == http.MethodDelete
	case "verify", "sync", "editions", "gc", "layout":
		return method == http.MethodPost && name == ""
	}
	return false
}

func (a *api) read(ctx context.Context, r *http.Request, what, name string) (any, error) {
	query := r.URL.Query()
	if what == "snapshots" && name != "" {
		return a.backend.ShowSnapshot(ctx, name)
	}
	if name == "" {
		switch what {
		case "server":
			return a.backend.Server(ctx)
		case "repos":
			return list(a.backend.Repos(ctx))
		case "generations":
			return list(a.backend.Generations(ctx))
		case "snapshots":
			return list(a.backend.Snapshots(ctx))
		case "status":
			return list(a.backend.Status(ctx, query["repo"]))
		case "explain":
			return a.backend.Explain(ctx, query.Get("url"))
		case "stats":
			return a.backend.Stats(ctx, query["repo"])
		case "why":
			return a.backend.Why(ctx, query.Get("digest"))
		case "diff":
			return a.backend.Diff(ctx, diffRequest{query.Get("a"), query.Get("b"), query["repo"]})
		case "ca":
			return a.backend.CA(ctx)
		}
	}
	return nil, &failure{
		Status: http.StatusNotFound, Message: "nothing is at " + r.URL.Path,
		Next: "there are server, repos, generations, snapshots, snapshots/NAME, status, stats, diff, explain, why and ca below " + apiPrefix,
	}
}

// list makes an empty list of none, so that JSON has [] and not null.
func list[T any](rows []T, err error) ([]T, error) {
	if rows == nil {
		rows = []T{}
	}
	return rows, err
}

func (a *api) create(w http.ResponseWriter, r *http.Request) {
	var request createRequest
	if !decode(w, r, &request, "a snapshot", `{"name": …, "repos": […], "labels": {…}}`) {
		return
	}
	stream := &eventStream{w: w}
	snapshot, err := a.backend.CreateSnapshot(r.Context(), request, stream.progress)
	stream.end(event{Snapshot: &snapshot}, err)
}

func (a *api) verify(w http.ResponseWriter, r *http.Request) {
	var request verifyRequest
	if !decode(w, r, &request, "a verification", `{"refs": […], "repair": …, "rebuild": …}`) {
		return
	}
	stream := &eventStream{w: w}
	report, err := a.backend.Verify(r.Context(), request, stream.progress)
	stream.end(event{Verify: &report}, err)
}

func (a *api) sync(w http.ResponseWriter, r *http.Request) {
	var request syncRequest
	if !decode(w, r, &request, "a sync", `{"repos": […], "dry_run": …, "metadata_only": …}`) {
		return
	}
	stream := &eventStream{w: w}
	report, err := a.backend.Sync(r.Context(), request, func(step syncStep) { stream.send(event{Step: &step}) })
	stream.end(event{Sync: &report}, err)
}

func (a *api) collect(w http.ResponseWriter, r *http.Request) {
	var request collectRequest
	if !decode(w, r, &request, "a collection", `{"dry_run": …}`) {
		return
	}
	stream := &eventStream{w: w}
	report, err := a.backend.Collect(r.Context(), request, stream.progress)
	stream.end(event{Collect: &report}, err)
}

func (a *api) layout(w http.ResponseWriter, r *http.Request) {
	var request layoutRequest
	if !decode(w, r, &request, "a layout", `{"ref": …, "repos": […]}`) {
		return
	}
	stream := &eventStream{w: w}
	report, err := a.backend.Layout(r.Context(), request, stream.progress, func(files []layoutFile) { stream.send(event{Files: files}) })
	stream.end(event{Layout: &report}, err)
}

// decode reads the body of a request for what, which has to look like form. It
// answers the request, and returns false, where that is not so.
func decode(w http.ResponseWriter, r *http.Request, into any, what, form string) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err != nil {
		writeProblem(w, &failure{
			Exit: 2, Status: http.StatusBadRequest, Message: "not a request for " + what + ": " + err.Error(), Next: "send " + form,
		})
	}
	return err == nil
}

func (s *eventStream) progress(line string) { s.send(event{Progress: line}) }

// end sends the last event: result, or err.
func (s *eventStream) end(result event, err error) {
	switch {
	case err == nil:
		s.send(result)
	case !s.begun:
		writeProblem(s.w, err)
	default:
		p := problemOf(err)
		s.send(event{Error: &p})
	}
}

// eventStream writes events as they come, one JSON document per line.
type eventStream struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	begun bool
}

func (s *eventStream) send(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		s.w.Header().Set("Content-Type", "application/jsonl")
		s.begun = true
	}
	// A client that has gone is noticed by the request's context.
	if json.NewEncoder(s.w).Encode(e) == nil {
		_ = http.NewResponseController(s.w).Flush()
	}
}

func (a *api) delete(w http.ResponseWriter, r *http.Request, name string) {
	names := r.URL.Query()["name"]
	if name != "" {
		names = append(names, name)
	}
	if len(names) == 0 || slices.Contains(names, "") {
		writeProblem(w, &failure{
			Exit: 2, Status: http.StatusBadRequest, Message: "no snapshot is named", Next: "name it: snapshots/NAME",
		})
		return
	}
	if err := a.backend.DeleteSnapshots(r.Context(), names); err != nil {
		writeProblem(w, err)
		return
	}
	writeJSON(w, http.StatusOK, "application/json", deleted{names})
}

// deleted is the answer to a deletion.
type deleted struct {
	Deleted []string `json:"deleted"`
}

func writeProblem(w http.ResponseWriter, err error) {
	p := problemOf(err)
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, p.Status, "application/problem+json", p)
}

func writeJSON(w http.ResponseWriter, status int, mediaType string, value any) {
	body, err := marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}
