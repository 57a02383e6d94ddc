package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"chantal"
	"chantal/internal/keep"
	"chantal/mirror"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// shelf is a backend in memory.
type shelf struct {
	listen    string
	repos     []repoRow
	snapshots map[string]snapshotReport
	published publishRequest
	created   createRequest // the last request
	asked     []string      // what Status was asked for
	synced    syncRequest   // the last one
	entered   chan struct{} // closed when a snapshot that is never made is begun
	left      chan struct{} // closed when that was given up
}

func newShelf() *shelf {
	return &shelf{
		listen: "127.0.0.1:8180",
		repos: []repoRow{
			{
				Name: "debian", Type: "apt", Upstream: []string{"http://mirror.example.org/debian", "http://other.example.org/debian"},
				Trees: 2, Generations: 3, Artifacts: 5, Bytes: 3 << 20, Keyring: "/usr/share/keyrings/debian.gpg", Configured: true,
				Suites: []suiteRow{
					{Tree: "dists/bookworm", Origin: "Debian", Label: "Debian", Components: []string{"main", "contrib"}},
					{Tree: "dists/bookworm-updates", Origin: "Debian", Label: "Debian", Components: []string{"main", "contrib"}},
				},
			},
			{
				Name: "tools", Type: "apt", Upstream: []string{"http://apt.example.org:8080/"}, Trees: 2,
				Suites: []suiteRow{{Tree: ".", Label: "My Org"}, {Tree: "dists/stable", Origin: "Tools Inc"}},
			},
			{Name: "new", Type: "apt", Upstream: []string{"http://new.example.org/"}},
			{Name: "epel", Type: "rpm", Upstream: []string{"https://mirror.example.org/epel/"}, Keyring: "/etc/pki/epel.asc"},
			{Name: "pypi", Type: "pypi", Upstream: []string{"https://index.example.org/simple/"}},
			{Name: "inner", Type: "pypi", Upstream: []string{"http://pip.example.org/simple/"}},
		},
		snapshots: map[string]snapshotReport{},
		entered:   make(chan struct{}),
		left:      make(chan struct{}),
	}
}

func (s *shelf) Server(context.Context) (serverReport, error) {
	return serverReport{Version: "v1", Data: "/data", Listen: s.listen}, nil
}

func (s *shelf) Repos(context.Context) ([]repoRow, error) { return s.repos, nil }

func (s *shelf) Generations(context.Context) ([]generationRow, error) {
	return []generationRow{{"debian", "dists/bookworm", 1, noon, "0123456789abcdef"}}, nil
}

func (s *shelf) Status(_ context.Context, repos []string) ([]statusRow, error) {
	s.asked = repos
	up := true
	return []statusRow{
		{Repo: "debian", Type: "apt", Reachable: &up, LastRefresh: noon, Tree: "dists/bookworm", Generation: 1, Observed: noon, Known: 5, Cached: 2, Bytes: 7},
		{Repo: "epel", Type: "rpm", Errors: []string{"no \x1b[31m answer"}},
	}, nil
}

func (s *shelf) Snapshots(context.Context) (all []snapshotReport, err error) {
	for _, snapshot := range s.snapshots {
		all = append(all, snapshot)
	}
	return all, nil
}

func (s *shelf) ShowSnapshot(_ context.Context, name string) (snapshotReport, error) {
	if snapshot, ok := s.snapshots[name]; ok {
		return snapshot, nil
	}
	return snapshotReport{}, &failure{Status: http.StatusNotFound, Message: fmt.Sprintf("no snapshot %q", name), Next: "see chantal snapshot list"}
}

func (s *shelf) CreateSnapshot(ctx context.Context, r createRequest, progress func(string)) (snapshotReport, error) {
	s.created = r
	switch r.Name {
	case "taken":
		return snapshotReport{}, &failure{Status: http.StatusConflict, Message: "the name is taken", Next: "choose another"}
	case "late":
		progress("waiting")
		return snapshotReport{}, &failure{Exit: 2, Message: "went wrong late"}
	case "never":
		close(s.entered)
		<-ctx.Done()
		close(s.left)
		return snapshotReport{}, ctx.Err()
	case "":
		r.Name = "20261123T120000Z"
	}
	progress("waiting for 2 files")
	progress("waiting for 1 file")
	snapshot := snapshotReport{
		Name: r.Name, Created: noon, Labels: r.Labels, Note: r.Note,
		Repos: []snapshotRepo{{Repo: "debian", SnapshotCount: &SnapshotCount{2, 5, 2}}},
	}
	s.snapshots[r.Name] = snapshot
	return snapshot, nil
}

func (s *shelf) PublishSnapshot(ctx context.Context, r publishRequest, progress func(string)) (snapshotReport, error) {
	s.published = r
	return s.CreateSnapshot(ctx, createRequest{Name: r.Name}, progress)
}

func (s *shelf) DeleteSnapshots(ctx context.Context, names []string) error {
	for _, name := range names {
		if _, err := s.ShowSnapshot(ctx, name); err != nil {
			return err
		}
	}
	for _, name := range names {
		delete(s.snapshots, name)
	}
	return nil
}

func (s *shelf) Diff(_ context.Context, q diffRequest) (diffReport, error) {
	r := diffReport{A: q.A, B: q.B, Added: []diffPackage{}, Removed: []diffPackage{}, Changed: []diffChange{}}
	place := func(name string) diffPlace { return diffPlace{"debian", "dists/bookworm", name} }
	switch q.B {
	case "live":
	case "day2":
		r.Changed = []diffChange{{place("hello"), "amd64", "1.9", "1.10", mirror.Upgrade}, {place("bytes"), "all", "1", "1", mirror.Rebuild}}
		r.Added = []diffPackage{{place("new\x1b"), "3", "all", ""}}
		r.Removed = []diffPackage{{place("gone"), "2", "all", ""}}
		r.Advisories = []diffAdvisory{{Repo: "debian", ID: "E-1", Type: "security", CVEs: []string{"CVE-2026-1"}, Title: "About hello"}}
		r.Yanked = []diffYank{{place("six"), "1", "six-1.whl", "broken"}}
	case "apart":
		r.NotCompared = []diffUncompared{
			{Repo: "epel", Missing: []string{"b"}},
			{Repo: "debian", Tree: "dists/x", Index: "dists/x/main/Packages", Missing: []string{"a", "b"}},
		}
	default:
		return r, &failure{Status: http.StatusNotFound, Message: "no ref " + q.B, Next: "see chantal snapshot list"}
	}
	return r, nil
}

func (s *shelf) Layout(_ context.Context, q layoutRequest, progress func(string), put func([]layoutFile)) (layoutReport, error) {
	progress("debian: 1 files fetched")
	r := layoutReport{Repos: []string{"debian"}}
	switch q.Ref {
	case "day1", "day2":
		// The sums are those of the texts.
		put([]layoutFile{{Places: []string{"debian/a"}, Content: []byte("a"), Size: 1, Modified: noon, Mutable: true,
			SHA256: "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}})
		put([]layoutFile{{Places: []string{"debian/b", "debian/by-hash/b"}, Content: []byte("b"), Size: 1, Modified: noon, Mutable: true,
			SHA256: "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"}})
	case "evil":
		put([]layoutFile{{Places: []string{"../a"}, Mutable: true, SHA256: "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}})
	case "gone":
		r.Failed, r.Failures = 2, []layoutFailure{{"debian", mirror.LayoutFailure{Path: "pool/a.deb", Reason: "no upstream has it"}}}
	default:
		return r, &failure{Status: http.StatusNotFound, Message: "no ref " + q.Ref, Next: "see chantal snapshot list"}
	}
	return r, nil
}

func (s *shelf) Verify(_ context.Context, r verifyRequest, progress func(string)) (verifyReport, error) {
	progress("reading 1 of 2 blobs")
	report := verifyReport{Rebuilt: r.Rebuild, Report: keep.Report{
		BlobsChecked: 2, BytesChecked: 3 << 10, Corrupt: []keep.Finding{}, Missing: []keep.Finding{}, Repaired: []keep.Finding{}, Problems: []string{}, OK: true,
	}}
	for _, ref := range r.Refs {
		hello := keep.Finding{Digest: "sha256:ab", Repo: "debian", Path: "pool/hello.deb", Refs: []string{"live", "day1"}}
		switch ref {
		case "corrupt":
			report.Corrupt, report.OK = append(report.Corrupt, hello), r.Repair
			if r.Repair {
				report.Repaired = report.Corrupt
			}
		case "gone":
			if r.Repair {
				hello.Reason = "no upstream has it"
			}
			report.Missing, report.OK = append(report.Missing, hello, keep.Finding{Digest: "sha256:cd", Refs: []string{}}), false
		case "catalog":
			report.Problems, report.OK = append(report.Problems, "the catalog differs from the records"), false
		default:
			return report, &failure{Status: http.StatusNotFound, Message: "no ref " + ref, Next: "see chantal snapshot list"}
		}
	}
	return report, nil
}

func (s *shelf) Sync(ctx context.Context, r syncRequest, steps func(syncStep)) (syncReport, error) {
	s.synced = r
	report := syncReport{DryRun: r.DryRun, MetadataOnly: r.MetadataOnly, Repos: []syncResult{}, Failures: []mirror.SyncFailure{}, OK: true}
	for _, name := range r.Repos {
		steps(syncStep{Event: stepBegun, Time: noon, Repo: name})
		steps(syncStep{Event: stepProgress, Time: noon, Repo: name, Files: 3, Lacking: 2})
		result := syncResult{
			SyncReport:  mirror.SyncReport{Repo: name, Started: noon, Seconds: 1.5, Trees: 1, Files: 3, Bytes: 3 << 10, Lacking: 2, LackingBytes: 2 << 10, Fetched: 2, FetchedBytes: 2 << 10},
			Artifacts:   2,
			Generations: []syncTree{{"dists/bookworm", 2}},
		}
		switch name {
		case "never":
			close(s.entered)
			<-ctx.Done()
			close(s.left)
			return report, ctx.Err()
		case "torn":
			result.Fetched, result.Artifacts, result.Failed = 1, 1, 1
			result.Failures = []mirror.SyncFailure{{Repo: name, Tree: "dists/bookworm", Path: "pool/x.deb", URL: "http://mirror.example.org/pool/x.deb", Reason: "upstream answered\n404"}}
		case "wrong":
			result.Error = "syncing wrong: no such suite"
		}
		report.OK = report.OK && result.good()
		steps(syncStep{Event: stepDone, Time: noon, Repo: name, Result: &result})
		report.add(result)
	}
	return report, nil
}

func (s *shelf) Collect(_ context.Context, r collectRequest, progress func(string)) (keep.Collected, error) {
	progress("looking at what debian needs")
	return keep.Collected{BlobsFreed: 2, BytesFreed: 3 << 10, BlobsKept: 1, BytesKept: 5, Forgotten: 1, DryRun: r.DryRun}, nil
}

func (s *shelf) Stats(_ context.Context, repos []string) (statsReport, error) {
	s.asked = repos
	return statsReport{
		Blobs: 3, Stored: 2 << 20, Logical: 5 << 20, Ratio: 2.5, Hits: 9, Misses: 1, FromCache: 7 << 20, FromUpstream: 2 << 20, Saved: 3 << 20, Since: "2026-11-01T00:00:00Z",
		Repos:  []repoStats{{Repo: "debian", Blobs: 3, Stored: 2 << 20, Logical: 5 << 20, Ratio: 2.5, Hits: 9, Misses: 1}},
		Growth: []dayStats{{"2026-11-22", 3 << 20}, {"2026-11-23", 2 << 20}},
	}, nil
}

func (s *shelf) Why(_ context.Context, digest string) (keep.Why, error) {
	if digest == "ab" {
		return keep.Why{}, &failure{Status: http.StatusNotFound, Message: "no blob " + digest}
	}
	return keep.Why{Digest: chantal.Digest("sha256:" + digest), Stored: true, Size: 7, Kept: []keep.Reason{
		{By: "live", Repo: "debian", Tree: "dists/bookworm", Generation: 2, Path: "pool/hello.deb", Kind: "artifact"},
		{By: "snapshot", Ref: "day1", Repo: "debian", Tree: "dists/bookworm", Generation: 1, Path: "pool/hello.deb", Kind: "artifact"},
	}}, nil
}

func (s *shelf) Explain(_ context.Context, url string) (explanation, error) {
	return explanation{URL: url, OK: true, Status: 200, Repo: "debian", Generation: 1, Observed: noon, Mirrors: []string{"http://mirror.example.org/?a&b"}}, nil
}

func (s *shelf) CA(context.Context) (authority, error) {
	return authority{}, &failure{Status: http.StatusNotFound, Message: "no certificate authority yet", Next: "set forward.intercept: configured"}
}

func (s *shelf) Close() error { return nil }

// shell runs command lines on a shelf that nobody serves.
type shell struct {
	t     *testing.T
	shelf *shelf
	vars  map[string]string
	serve serveFunc
}

func newShell(t *testing.T) *shell {
	dir := t.TempDir()
	t.Chdir(dir)
	return &shell{t: t, shelf: newShelf(), vars: map[string]string{"HOME": dir, "CHANTAL_DATA": dir + "/data"}}
}

func (s *shell) run(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(ctx, append([]string{"chantal"}, args...), app{
		serve: s.serve, stdout: &out, stderr: &err,
		getenv: func(name string) string { return s.vars[name] },
		open: func(context.Context, *environment) (backend, io.Closer, error) {
			return s.shelf, s.shelf, nil
		},
	})
	return code, out.String(), err.String()
}
