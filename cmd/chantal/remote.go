package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"chantal/internal/keep"
)

// remote is the backend that a running serve offers over HTTP.
type remote struct {
	client *http.Client
	base   string // URL without a final slash
	name   string // the server, for people
}

// newRemote returns the backend at server: an http or https URL, or the path
// of a socket. It does not connect.
func newRemote(server string) (*remote, error) {
	if !strings.Contains(server, "://") {
		return socketRemote(server), nil
	}
	if path, ok := strings.CutPrefix(server, "unix://"); ok {
		return socketRemote(path), nil
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, &failure{
			Exit: 2, Message: fmt.Sprintf("%q is no server", server),
			Next: "write http://HOST:8180 or the path of DATA/chantal.sock",
		}
	}
	// The server is asked itself: a proxy of the environment may well be it.
	transport := &http.Transport{}
	return &remote{&http.Client{Transport: transport}, strings.TrimRight(u.Scheme+"://"+u.Host+u.Path, "/"), u.Host}, nil
}

func socketRemote(path string) *remote {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialSocket(ctx, path)
	}}
	return &remote{&http.Client{Transport: transport}, "http://localhost", path}
}

// Close drops idle connections.
func (r *remote) Close() error {
	r.client.CloseIdleConnections()
	return nil
}

// send returns the answer to a request; the caller closes its body. An answer
// that is an error is returned as one.
func (r *remote) send(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Response, error) {
	target := r.base + apiPrefix + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", r.name, err)
	}
	request.Header.Set("Accept", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return nil, &failure{Message: fmt.Sprintf("%s does not answer: %v", r.name, err), Next: "start chantal serve there, or correct --server", Err: err}
	}
	if response.StatusCode < 400 {
		return response, nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<16)) // what came of it is shown
	var p problem
	if json.Unmarshal(text, &p) != nil || p.Detail == "" {
		return nil, &failure{
			Message: fmt.Sprintf("%s answered %s", r.name, response.Status), Next: "is that a chantal serve? correct --server",
		}
	}
	return nil, p.failure()
}

func (p problem) failure() *failure {
	return &failure{Exit: p.Exit, Status: p.Status, Message: p.Detail, Next: p.Next}
}

// ask reads one JSON document.
func ask[T any](ctx context.Context, r *remote, method, path string, query url.Values) (answer T, err error) {
	response, err := r.send(ctx, method, path, query, nil)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("reading the answer of %s: %w", r.name, err)
	}
	return answer, nil
}

func (r *remote) Server(ctx context.Context) (serverReport, error) {
	return ask[serverReport](ctx, r, http.MethodGet, "server", nil)
}

func (r *remote) Repos(ctx context.Context) ([]repoRow, error) {
	return ask[[]repoRow](ctx, r, http.MethodGet, "repos", nil)
}

func (r *remote) Generations(ctx context.Context) ([]generationRow, error) {
	return ask[[]generationRow](ctx, r, http.MethodGet, "generations", nil)
}

func (r *remote) Status(ctx context.Context, repos []string) ([]statusRow, error) {
	return ask[[]statusRow](ctx, r, http.MethodGet, "status", url.Values{"repo": repos})
}

func (r *remote) Snapshots(ctx context.Context) ([]snapshotReport, error) {
	return ask[[]snapshotReport](ctx, r, http.MethodGet, "snapshots", nil)
}

func (r *remote) ShowSnapshot(ctx context.Context, name string) (snapshotReport, error) {
	return ask[snapshotReport](ctx, r, http.MethodGet, "snapshots/"+url.PathEscape(name), nil)
}

func (r *remote) CreateSnapshot(ctx context.Context, c createRequest, progress func(string)) (snapshotReport, error) {
	last, err := r.follow(ctx, "snapshots", c, progress)
	if err != nil || last.Snapshot == nil {
		return snapshotReport{}, err
	}
	return *last.Snapshot, nil
}

func (r *remote) PublishSnapshot(ctx context.Context, q publishRequest, progress func(string)) (snapshotReport, error) {
	last, err := r.follow(ctx, "editions", q, progress)
	if err != nil || last.Snapshot == nil {
		return snapshotReport{}, err
	}
	return *last.Snapshot, nil
}

func (r *remote) Verify(ctx context.Context, q verifyRequest, progress func(string)) (verifyReport, error) {
	last, err := r.follow(ctx, "verify", q, progress)
	if err != nil || last.Verify == nil {
		return verifyReport{}, err
	}
	return *last.Verify, nil
}

func (r *remote) Collect(ctx context.Context, q collectRequest, progress func(string)) (keep.Collected, error) {
	last, err := r.follow(ctx, "gc", q, progress)
	if err != nil || last.Collect == nil {
		return keep.Collected{}, err
	}
	return *last.Collect, nil
}

func (r *remote) Stats(ctx context.Context, repos []string) (statsReport, error) {
	return ask[statsReport](ctx, r, http.MethodGet, "stats", url.Values{"repo": repos})
}

func (r *remote) Why(ctx context.Context, digest string) (keep.Why, error) {
	return ask[keep.Why](ctx, r, http.MethodGet, "why", url.Values{"digest": {digest}})
}

func (r *remote) Sync(ctx context.Context, q syncRequest, steps func(syncStep)) (syncReport, error) {
	last, err := r.events(ctx, "sync", q, func(e event) {
		if e.Step != nil {
			steps(*e.Step)
		}
	})
	if err != nil || last.Sync == nil {
		return syncReport{}, err
	}
	return *last.Sync, nil
}

func (r *remote) Layout(ctx context.Context, q layoutRequest, progress func(string), put func([]layoutFile)) (layoutReport, error) {
	last, err := r.events(ctx, "layout", q, func(e event) {
		if e.Progress != "" {
			progress(e.Progress)
		}
		if len(e.Files) > 0 {
			put(e.Files)
		}
	})
	if err != nil || last.Layout == nil {
		return layoutReport{}, err
	}
	return *last.Layout, nil
}

// follow is events for requests of which the progress is single lines.
func (r *remote) follow(ctx context.Context, path string, request any, progress func(string)) (event, error) {
	return r.events(ctx, path, request, func(e event) {
		if progress != nil && e.Progress != "" {
			progress(e.Progress)
		}
	})
}

// events sends a request that takes time and returns the last event of the
// answer, which is a result; each is called with those before it.
func (r *remote) events(ctx context.Context, path string, request any, each func(event)) (event, error) {
	body, err := marshal(request)
	if err != nil {
		return event{}, err
	}
	response, err := r.send(ctx, http.MethodPost, path, nil, body)
	if err != nil {
		return event{}, err
	}
	defer response.Body.Close()
	for events := json.NewDecoder(response.Body); ; {
		var e event
		if err := events.Decode(&e); err != nil {
			if ctx.Err() != nil {
				return event{}, ctx.Err()
			}
			return event{}, &failure{
				Message: r.name + " ended before it was done", Next: "see its log, then try again", Err: err,
			}
		}
		switch {
		case e.isResult():
			return e, nil
		case e.Error != nil:
			return event{}, e.Error.failure()
		}
		each(e)
	}
}

func (r *remote) DeleteSnapshots(ctx context.Context, names []string) error {
	_, err := ask[deleted](ctx, r, http.MethodDelete, "snapshots", url.Values{"name": names})
	return err
}

func (r *remote) Diff(ctx context.Context, q diffRequest) (diffReport, error) {
	return ask[diffReport](ctx, r, http.MethodGet, "diff", url.Values{"a": {q.A}, "b": {q.B}, "repo": q.Repos})
}

func (r *remote) Explain(ctx context.Context, u string) (explanation, error) {
	return ask[explanation](ctx, r, http.MethodGet, "explain", url.Values{"url": {u}})
}

func (r *remote) CA(ctx context.Context) (authority, error) {
	return ask[authority](ctx, r, http.MethodGet, "ca", nil)
}
