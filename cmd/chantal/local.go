package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"slices"

	"chantal/internal/catalog"
	"chantal/internal/config"
	"chantal/mirror"
	"chantal/plugins/apt"
	"chantal/snapshot"
)

// openLocal is the backend of a data directory that no serve runs on.
func openLocal(_ context.Context, env *environment) (backend, io.Closer, error) {
	n, err := openNode(env, false)
	if err != nil {
		return nil, nil, err
	}
	return &local{n}, n, nil
}

// local answers commands from a node.
type local struct{ *node }

func (l *local) Server(context.Context) (serverReport, error) {
	r := serverReport{Version: version(), Data: l.data, Damaged: len(l.store.SetAside()), Scrub: l.scrubbed(), GC: l.collected()}
	if own := *l.listens.Load(); len(own) > 0 {
		r.Listen = own[0].String()
	}
	return r, nil
}

func (l *local) Repos(ctx context.Context) ([]repoRow, error) {
	rows := []repoRow{}
	for _, r := range l.mirror.Repos() {
		s, err := r.Status(ctx)
		if err != nil {
			return nil, err
		}
		row := repoRow{
			Name: r.Name, Type: r.Type, Upstream: r.Addresses(), List: r.List, ListForm: r.ListForm, Trees: s.Trees, Generations: s.Generations,
			Artifacts: s.Cached, Bytes: s.Bytes, Keyring: l.keyring(r.Name), Configured: l.configured(r.Name),
		}
		if r.Type == config.Apt {
			if row.Suites, err = releaseRows(r.MainRoots()); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (l *local) configured(name string) bool {
	return slices.ContainsFunc(l.config.Load().Repos, func(c config.Repo) bool { return c.Name == name })
}

func (l *local) keyring(name string) string {
	for _, c := range l.config.Load().Repos {
		if c.Name == name {
			return c.Keyring
		}
	}
	return ""
}

// releaseRows reads what the Release of each tree says of itself.
func releaseRows(roots []mirror.MainRoot, err error) ([]suiteRow, error) {
	var rows []suiteRow
	for _, root := range roots {
		d := apt.Describe(root.Content)
		rows = append(rows, suiteRow{Tree: root.Tree, Origin: d.Origin, Label: d.Label, Components: d.Components})
	}
	return rows, err
}

func (l *local) Generations(context.Context) ([]generationRow, error) {
	rows := []generationRow{}
	for _, r := range l.mirror.Repos() {
		trees, err := l.catalog.Trees(r.Name)
		if err != nil {
			return nil, err
		}
		for _, tree := range trees {
			all, err := l.catalog.Observations(r.Name, tree)
			if err != nil {
				return nil, err
			}
			for _, o := range all {
				g, err := l.catalog.Generation(r.Name, tree, o.Generation)
				if err != nil {
					return nil, err
				}
				rows = append(rows, generationRow{Repo: r.Name, Tree: tree, Generation: o.Generation, Observed: o.Observed.UTC(), RootSHA256: g.Roots[0].Digest.Hex()})
			}
		}
	}
	return rows, nil
}

func (l *local) Status(ctx context.Context, names []string) ([]statusRow, error) {
	for _, name := range names {
		if l.mirror.Repo(name) == nil {
			return nil, noSuchRepo(name)
		}
	}
	rows := []statusRow{}
	for _, r := range l.mirror.Repos() {
		if len(names) > 0 && !slices.Contains(names, r.Name) {
			continue
		}
		s, err := r.Status(ctx)
		if err != nil {
			return nil, err
		}
		row := statusRow{
			Repo: r.Name, Type: r.Type, LastRefresh: s.Refreshed, Tree: s.Newest.Tree, Generation: s.Newest.Generation, Observed: s.Newest.Observed,
			Cached: s.Cached, Known: s.Known, Bytes: s.Bytes, Errors: append([]string{}, s.Errors...),
			Sync: l.syncStatus(r.Name),
		}
		if s.Asked {
			row.Reachable = &s.Reachable
		}
		if err := l.store.Health(); err != nil {
			row.Errors = append(row.Errors, "store: "+err.Error())
		}
		if n := len(l.store.SetAside()); n > 0 {
			row.Errors = append(row.Errors, "store: "+damagedBlobs(n))
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func noSuchRepo(name string) error {
	return &failure{Status: http.StatusNotFound, Message: "there is no repository " + name, Next: "`chantal list repos` shows what there is"}
}

func (l *local) Snapshots(ctx context.Context) ([]snapshotReport, error) {
	all, err := l.names.List()
	if err != nil {
		return nil, err
	}
	reports := []snapshotReport{}
	for _, s := range all {
		report := outline(s)
		if err := l.suites(&report, s); err != nil {
			return nil, err
		}
		reports = append(reports, report)
	}
	return reports, nil
}

// suites adds what the editions of apt repositories have: clients are
// configured by it.
func (l *local) suites(report *snapshotReport, s catalog.Snapshot) (err error) {
	for i, f := range s.Repos {
		repo := l.mirror.Repo(f.Repo)
		if f.Edition == "" || repo == nil || repo.Type != config.Apt {
			continue
		}
		if report.Repos[i].Suites, err = releaseRows(repo.MainRootsAt(f.Line(), f.At)); err != nil {
			return err
		}
	}
	return nil
}

// outline is a snapshot without the counts, which take reading its indexes.
func outline(s catalog.Snapshot) snapshotReport {
	r := snapshotReport{Name: s.Name, Created: s.Created, Sealed: s.Sealed, Labels: s.Labels, Note: s.Note, Repos: []snapshotRepo{}}
	if r.Labels == nil {
		r.Labels = map[string]string{}
	}
	for _, f := range s.Repos {
		r.Repos = append(r.Repos, snapshotRepo{Repo: f.Repo, Edition: f.Edition != ""})
		for _, p := range f.Missing {
			r.Missing = append(r.Missing, f.Repo+"/"+p)
		}
	}
	return r
}

func (l *local) report(ctx context.Context, s catalog.Snapshot) (snapshotReport, error) {
	r := outline(s)
	for i, f := range s.Repos {
		repo := l.mirror.Repo(f.Repo)
		if repo == nil {
			continue
		}
		trees, known, present, err := repo.Frozen(ctx, f.Line(), f.At)
		if err != nil {
			return r, err
		}
		r.Repos[i].SnapshotCount = &SnapshotCount{trees, known, present}
	}
	return r, nil
}

func (l *local) ShowSnapshot(ctx context.Context, name string) (snapshotReport, error) {
	s, err := l.names.Get(name)
	if err != nil {
		return snapshotReport{}, snapshotFailure(err)
	}
	return l.report(ctx, s)
}

func (l *local) CreateSnapshot(ctx context.Context, r createRequest, progress func(string)) (snapshotReport, error) {
	q := snapshot.Request{Name: r.Name, Repos: r.Repos, Labels: r.Labels, Note: r.Note, Force: r.Force}
	if r.At != "" {
		at, err := snapshot.ParseInstant(r.At)
		if err != nil {
			return snapshotReport{}, &failure{Exit: 2, Status: http.StatusBadRequest, Message: err.Error()}
		}
		q.At = at
	}
	defer l.store.Hold()() // what is found to be there has to be until it is named
	s, err := l.names.Create(ctx, q, progress)
	if err != nil {
		return snapshotReport{}, snapshotFailure(err)
	}
	if r.Brief {
		return outline(s), nil
	}
	return l.report(ctx, s)
}

func (l *local) DeleteSnapshots(_ context.Context, names []string) error {
	for _, name := range names {
		if _, err := l.names.Get(name); err != nil {
			return snapshotFailure(err)
		}
	}
	for _, name := range names {
		if err := l.names.Delete(name); err != nil {
			return snapshotFailure(err)
		}
	}
	return nil
}

// snapshotFailure says what to do about an error of package snapshot.
func snapshotFailure(err error) error {
	var bad *snapshot.BadRefError
	switch {
	case errors.As(err, &bad):
		return &failure{Exit: 2, Status: http.StatusBadRequest, Message: err.Error(), Err: err}
	case errors.Is(err, catalog.ErrDeleted):
		return &failure{Status: http.StatusConflict, Message: err.Error(), Next: "clients may still mean the old content by it: choose another name, or take it again with --force", Err: err}
	case errors.Is(err, catalog.ErrExists):
		return &failure{Status: http.StatusConflict, Message: err.Error(), Next: "snapshots never change: choose another name", Err: err}
	case errors.Is(err, fs.ErrNotExist):
		return &failure{Status: http.StatusNotFound, Message: err.Error(), Err: err}
	}
	return err
}

func (l *local) Explain(ctx context.Context, raw string) (explanation, error) {
	server, _ := l.Server(ctx)
	if server.Listen == "" {
		server.Listen = l.config.Load().Listen
	}
	x, err := l.handler.Load().Explain(ctx, raw, server.Listen)
	if err != nil {
		return explanation{}, &failure{Exit: 2, Status: http.StatusBadRequest, Message: err.Error()}
	}
	e := explanation{
		URL: raw, OK: x.Status == http.StatusOK, Status: x.Status, Repo: x.Repo, Ref: x.Ref, Path: x.Path,
		Kind: x.Kind, Tree: x.Tree, Generation: x.Generation, Observed: x.Observed, Size: x.Size, Stored: x.Stored, Mirrors: x.Upstream,
		Reason: x.Reason, Next: x.Next, Lists: x.Lists,
	}
	if len(x.Digests) > 0 {
		e.Digest = string(x.Digests[0])
	}
	if e.Reason == "" {
		e.Reason = x.Verdict
	}
	return e, nil
}

func (l *local) CA(context.Context) (authority, error) {
	text := l.handler.Load().CA
	block, _ := pem.Decode(text)
	if block == nil {
		return authority{}, &failure{Status: http.StatusNotFound, Message: "there is no CA in " + l.data, Next: "set forward.intercept: configured"}
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return authority{}, err
	}
	sum := sha256.Sum256(cert.Raw)
	return authority{PEM: string(text), Fingerprint: hex.EncodeToString(sum[:]), NotAfter: cert.NotAfter.UTC()}, nil
}
