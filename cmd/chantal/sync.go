package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"chantal"
	"chantal/internal/config"
	"chantal/mirror"
)

type (
	syncRequest struct {
		Repos        []string `json:"repos,omitempty"` // none for all that have a sync in the configuration
		DryRun       bool     `json:"dry_run,omitempty"`
		MetadataOnly bool     `json:"metadata_only,omitempty"`
	}

	// syncReport is how all of a request ended. Its counts are the sums of
	// those of its repositories.
	syncReport struct {
		OK           bool                 `json:"ok"` // everything that was selected is there
		DryRun       bool                 `json:"dry_run"`
		MetadataOnly bool                 `json:"metadata_only"`
		Seconds      float64              `json:"seconds"`
		Files        int                  `json:"files"`
		Bytes        int64                `json:"bytes"`
		Lacking      int                  `json:"lacking"`
		LackingBytes int64                `json:"lacking_bytes"`
		Fetched      int                  `json:"fetched"`
		FetchedBytes int64                `json:"fetched_bytes"`
		Failed       int                  `json:"failed"`
		Repos        []syncResult         `json:"repos"`
		Failures     []mirror.SyncFailure `json:"failures"`
		Skipped      []string             `json:"skipped,omitempty"` // configured repositories without a sync
	}
)

func syncCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "sync",
		Usage:     "fetch what the configuration selects and the store lacks",
		ArgsUsage: "[REPO…]",
		Description: "Without a REPO all that have a sync: in the configuration. What is stored is not fetched again, also after\n" +
			"an interruption. Exit code 1: not everything could be had; what is missing is listed at the end.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "fetch metadata only, and say what the rest would come to"},
			&cli.BoolFlag{Name: "metadata-only", Usage: "fetch roots and indexes, and no packages"},
		},
		Action: do(connected(func(c *cli.Context, env *environment, b backend) error {
			view := env.syncView()
			report, err := b.Sync(c.Context, syncRequest{
				Repos: c.Args().Slice(), DryRun: c.Bool("dry-run"), MetadataOnly: c.Bool("metadata-only"),
			}, view.step)
			view.close()
			if err != nil {
				return interrupted(c.Context, err)
			}
			return env.printSync(report)
		})),
	}
}

// interrupted says of an interruption that nothing is lost by it.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	return &failure{Message: interruption, Next: "what has arrived is kept: chantal sync goes on from there", Err: err}
}

// Sync fills the repositories one after the other: each uses all the
// connections there may be.
func (l *local) Sync(ctx context.Context, r syncRequest, steps func(syncStep)) (syncReport, error) {
	began := time.Now()
	report := syncReport{DryRun: r.DryRun, MetadataOnly: r.MetadataOnly, Repos: []syncResult{}, Failures: []mirror.SyncFailure{}}
	requests, skipped, err := l.syncRequests(r)
	if err != nil {
		return report, err
	}
	report.Skipped = skipped
	for _, q := range requests {
		result, err := l.syncs.run(ctx, q, steps)
		switch {
		case errors.Is(err, errClosing):
			return report, &failure{Status: http.StatusServiceUnavailable, Message: err.Error(), Next: "what has arrived is kept: chantal sync goes on from there", Err: err}
		case err != nil:
			return report, err
		}
		report.add(result)
	}
	report.Seconds = time.Since(began).Seconds()
	report.OK = report.Failed == 0 && !slices.ContainsFunc(report.Repos, func(r syncResult) bool { return !r.good() })
	return report, nil
}

func (r *syncReport) add(s syncResult) {
	r.Failures = append(r.Failures, s.Failures...)
	s.Failures = nil
	r.Repos = append(r.Repos, s)
	r.Files += s.Files
	r.Bytes += s.Bytes
	r.Lacking += s.Lacking
	r.LackingBytes += s.LackingBytes
	r.Fetched += s.Fetched
	r.FetchedBytes += s.FetchedBytes
	r.Failed += s.Failed
}

// syncRequests turns a request into one for each repository, by the
// configuration in force. All mistakes are found before the first begins.
func (l *local) syncRequests(r syncRequest) (requests []mirror.SyncRequest, skipped []string, err error) {
	cfg := l.config.Load()
	for _, name := range r.Repos {
		if l.mirror.Repo(name) == nil {
			return nil, nil, noSuchRepo(name)
		}
		if !slices.ContainsFunc(cfg.Repos, func(c config.Repo) bool { return c.Name == name }) {
			return nil, nil, &failure{
				Exit: 2, Status: http.StatusBadRequest, Message: name + " is not in the configuration, so nothing says what of it is to be there",
				Next: "add it with sync:, as docs/tasks/mirror-in-full.md shows",
			}
		}
	}
	for i := range cfg.Repos {
		c := &cfg.Repos[i]
		named := slices.Contains(r.Repos, c.Name)
		if len(r.Repos) > 0 && !named {
			continue
		}
		if c.Sync == nil {
			if named {
				return nil, nil, noSync(c)
			}
			skipped = append(skipped, c.Name)
			continue
		}
		q, err := l.syncRequest(cfg, c)
		if err != nil {
			return nil, nil, err
		}
		q.DryRun, q.MetadataOnly = r.DryRun, r.MetadataOnly
		requests = append(requests, q)
	}
	if len(requests) == 0 {
		return nil, nil, &failure{
			Exit: 2, Status: http.StatusBadRequest, Message: "no repository has sync: in the configuration",
			Next: "say there what is to be fetched, as docs/tasks/mirror-in-full.md shows",
		}
	}
	return requests, skipped, nil
}

// syncRequest is what the configuration asks for of one repository. Mistakes in
// the selection that can be told without upstream are told here.
func (l *local) syncRequest(cfg *config.Config, c *config.Repo) (mirror.SyncRequest, error) {
	q := mirror.SyncRequest{Repo: c.Name}
	var err error
	if q.Selection, err = selection(cfg, c); err != nil {
		return q, err
	}
	selector, ok := formats()[c.Type].(chantal.Selector)
	if !ok || selector.Catalog(&q.Selection).Name != "" {
		return q, nil
	}
	if _, err := selector.Trees(&q.Selection, nil); err != nil {
		return q, &failure{Exit: 2, Status: http.StatusBadRequest, Message: "sync of " + c.Name + ": " + err.Error(), Next: "correct it in the configuration", Err: err}
	}
	return q, nil
}

// noSync says what is missing.
func noSync(c *config.Repo) error {
	example := map[string]string{
		config.Apt:  "sync: {suites: [bookworm], components: [main], architectures: [amd64]}",
		config.RPM:  "sync: {newest: 1}, or sync: {} for everything",
		config.PyPI: `sync: {projects: [six, "flask>=3"]}`,
	}[c.Type]
	if example == "" {
		return &failure{
			Exit: 2, Status: http.StatusBadRequest, Message: c.Name + " is of type " + c.Type + ", of which nothing lists the files",
			Next: "name other repositories; its files are kept as clients ask for them",
		}
	}
	return &failure{
		Exit: 2, Status: http.StatusBadRequest, Message: "nothing says what of " + c.Name + " is to be there",
		Next: "add to it in the configuration: " + example,
	}
}

// maxTrees is of how many trees a result names the generations; an index of
// projects has more.
const maxTrees = 1000

// fill is Sync of the mirror, with what its trees are at in the end.
func (n *node) fill(ctx context.Context, q mirror.SyncRequest, events func(mirror.SyncEvent)) (syncResult, error) {
	var trees []string
	report, err := n.mirror.Sync(ctx, q, func(e mirror.SyncEvent) {
		if e.Kind == mirror.SyncTreeDone && len(trees) <= maxTrees {
			trees = append(trees, e.Tree)
		}
		events(e)
	})
	result := syncResult{SyncReport: report}
	slices.Sort(trees)
	if len(trees) > maxTrees {
		trees = nil
	}
	for _, tree := range trees {
		if head, err := n.catalog.Head(q.Repo, tree); err == nil {
			result.Generations = append(result.Generations, syncTree{tree, head.Generation})
		}
	}
	return result, err
}

// printSync shows a report; what is missing is an error.
func (env *environment) printSync(r syncReport) error {
	if env.json {
		if err := env.printJSON(r); err != nil {
			return err
		}
	} else {
		if err := env.printSyncTable(r); err != nil {
			return err
		}
		for _, f := range r.Failures {
			fmt.Fprintln(env.stderr, printable(describeFailure(f)))
		}
		for _, s := range r.Repos {
			if s.Error != "" {
				fmt.Fprintln(env.stderr, printable(oneLine(s.Error)))
			}
		}
	}
	if r.OK {
		return nil
	}
	var parts []string
	if r.Failed > 0 {
		parts = append(parts, count(r.Failed, "failure"))
	}
	if n := len(slices.DeleteFunc(slices.Clone(r.Repos), func(s syncResult) bool { return s.Error == "" })); n > 0 {
		parts = append(parts, repositories(n)+" given up")
	}
	return &failure{
		Message: "not everything is there: " + strings.Join(parts, ", "),
		Next:    "chantal sync tries what is missing again, and fetches nothing else",
	}
}

// describeFailure is what could not be had, where, and why.
func describeFailure(f mirror.SyncFailure) string {
	what := f.Repo
	switch {
	case f.URL != "":
		what += " " + f.URL
	case f.Path != "":
		what += " " + f.Path
	default:
		what += " " + f.Tree
	}
	// The reason may begin with the URL, too.
	reason := strings.TrimPrefix(f.Reason, "upstream "+f.URL)
	return what + ": " + oneLine(strings.TrimLeft(reason, ": "))
}

func (env *environment) printSyncTable(r syncReport) error {
	if env.quiet {
		return nil
	}
	lacking, bytes := " FETCHED", " SIZE"
	if r.DryRun {
		lacking, bytes = " TO FETCH", " SIZE"
	}
	t := table{header: []string{"REPO", " TREES", " UNCHANGED", " FILES", lacking, bytes, " FAILED", " TIME"}}
	for _, s := range r.Repos {
		n, b := s.Artifacts, s.FetchedBytes
		if r.DryRun {
			n, b = s.Lacking, s.LackingBytes
		}
		t.add(s.Repo, number(s.Trees), number(s.Unchanged), number(s.Files), number(n), size(b), number(s.Failed), took(s.Seconds))
	}
	if err := env.printTable(t); err != nil || len(r.Skipped) == 0 {
		return err
	}
	return env.print(fmt.Sprintf("\nno sync: in the configuration, so nothing fetched: %s\n", strings.Join(r.Skipped, ", ")))
}

// took writes how long something took.
func took(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
