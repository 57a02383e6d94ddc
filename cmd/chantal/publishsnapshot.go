package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"chantal"
	"chantal/internal/catalog"
	"chantal/internal/filter"
	"chantal/mirror"
	"chantal/snapshot"
)

// publishRequest asks for a snapshot with metadata made here.
type publishRequest struct {
	Name    string            `json:"name"`
	Sources []string          `json:"sources"`         // refs; several are merged
	Repos   []string          `json:"repos,omitempty"` // none for all
	Filter  string            `json:"filter,omitempty"`
	Resign  bool              `json:"resign,omitempty"` // without a filter: the indexes stay as they are where the format can do that
	All     bool              `json:"all_versions,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Note    string            `json:"note,omitempty"`
	Force   bool              `json:"force,omitempty"`
	Brief   bool              `json:"brief,omitempty"`
}

func publishFlags(more ...cli.Flag) []cli.Flag {
	return append(more,
		&cli.StringSliceFlag{Name: "repo", Usage: "of `REPO` only; may be given again"},
		&cli.StringSliceFlag{Name: "label", Usage: "attach `K=V`; may be given again"},
		&cli.StringFlag{Name: "note", Usage: "attach `TEXT`"},
		&cli.BoolFlag{Name: "force", Usage: "take the name of a deleted snapshot"},
	)
}

func publishCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "make a snapshot with regenerated, signed metadata, of all packages or of some",
		ArgsUsage: "SRC NAME",
		Description: "SRC is a ref: a snapshot, an instant, live. EXPR is CEL over pkg.name, pkg.version, pkg.arch, pkg.section,\n" +
			"pkg.source, pkg.component, pkg.size, pkg.uploaded, pkg.path, pkg.repo, pkg.type and pkg.fields[\"maintainer\"], with\n" +
			"version(pkg.version) >= version(\"1.2\") in the format's own order and glob(pkg.name, \"lib*\").",
		Flags: publishFlags(
			&cli.StringFlag{Name: "filter", Usage: "keep the packages for which `EXPR` is true"},
			&cli.BoolFlag{Name: "resign", Usage: "sign the roots anew and leave the indexes as they are, where the format can do that"},
		),
		Action: do(arguments(2, 2, "SRC or NAME", func(c *cli.Context, env *environment) error {
			return env.publish(c, publishRequest{
				Name: c.Args().Get(1), Sources: []string{c.Args().First()}, Filter: c.String("filter"), Resign: c.Bool("resign"),
			})
		})),
	}
}

func mergeCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "merge",
		Usage:     "make a snapshot of the repositories of several",
		ArgsUsage: "NAME SRC…",
		Description: "Where several sources have the same repository, its packages are put together: of those with the same name\n" +
			"and architecture the last source's stay.",
		Flags: publishFlags(&cli.BoolFlag{Name: "all-versions", Usage: "keep the versions of every source"}),
		Action: do(arguments(3, -1, "NAME, or a second SRC", func(c *cli.Context, env *environment) error {
			return env.publish(c, publishRequest{Name: c.Args().First(), Sources: c.Args().Tail(), All: c.Bool("all-versions")})
		})),
	}
}

// publish sends the request, completed by what the flags say.
func (env *environment) publish(c *cli.Context, r publishRequest) error {
	labels, err := labelsOf(c)
	if err != nil {
		return err
	}
	r.Repos, r.Labels, r.Note, r.Force, r.Brief = c.StringSlice("repo"), labels, c.String("note"), c.Bool("force"), !env.json
	return connected(func(c *cli.Context, env *environment, b backend) error {
		s, err := b.PublishSnapshot(c.Context, r, func(line string) { env.hint("%s", printable(line)) })
		if err != nil {
			return err
		}
		s.fill()
		if env.json {
			return env.printJSON(s)
		}
		return env.print(s.Name + "\n")
	})(c, env)
}

func (a *api) publish(w http.ResponseWriter, r *http.Request) {
	var request publishRequest
	if !decode(w, r, &request, "an edition", `{"name": …, "sources": […], "filter": …}`) {
		return
	}
	stream := &eventStream{w: w}
	made, err := a.backend.PublishSnapshot(r.Context(), request, stream.progress)
	stream.end(event{Snapshot: &made}, err)
}

// PublishSnapshot implements backend.
func (l *local) PublishSnapshot(ctx context.Context, r publishRequest, progress func(string)) (snapshotReport, error) {
	q := snapshot.PublishRequest{Name: r.Name, Repos: r.Repos, Labels: r.Labels, Note: r.Note, Force: r.Force}
	for _, text := range r.Sources {
		ref, err := snapshot.Parse(text)
		if err != nil {
			return snapshotReport{}, snapshotFailure(err)
		}
		q.Sources = append(q.Sources, ref)
	}
	keeps, err := filters(r.Filter)
	if err != nil {
		return snapshotReport{}, err
	}
	signer, err := l.signer()
	if err != nil {
		return snapshotReport{}, err
	}
	now, err := l.catalog.Clock() // which never goes back, as dates at one URL must not
	if err != nil {
		return snapshotReport{}, err
	}
	defer l.store.Hold()()
	var seen, kept int
	q.Make = func(ctx context.Context, sources []catalog.Frozen) ([]chantal.Generation, error) {
		repo := l.mirror.Repo(sources[0].Repo)
		if repo == nil {
			return nil, noSuchRepo(sources[0].Repo)
		}
		made, err := l.mirror.Publish(ctx, mirror.Publishing{
			Sources: sources, Keep: keeps(repo), All: r.All, Resign: r.Resign && r.Filter == "",
			Signer: signer, Date: mirror.SigningDate(now),
		}, progress)
		const few = 10 // lines about single trees
		for i, tree := range made.Left {
			if len(made.Left) > few && i == few-1 {
				progress(fmt.Sprintf("%d more of %s are left out", len(made.Left)-i, repo.Name))
				break
			}
			progress(fmt.Sprintf("%s %s is left out: of its packages none is known, or held", repo.Name, tree))
		}
		seen, kept = seen+made.Seen, kept+made.Kept
		if err == nil && r.Filter != "" && made.Kept == 0 {
			progress(fmt.Sprintf("the filter accepts nothing of %s", repo.Name))
		}
		return made.Generations, err
	}
	s, err := l.names.Publish(ctx, q, progress)
	if err != nil {
		return snapshotReport{}, publishFailure(err)
	}
	if seen > 0 {
		progress(fmt.Sprintf("%d of %d files are in %s", kept, seen, s.Name))
	}
	if r.Brief {
		return outline(s), nil
	}
	return l.report(ctx, s)
}

// filters returns what an expression makes of each repository; "" keeps all.
func filters(expression string) (func(*mirror.Repo) chantal.Keep, error) {
	if expression == "" {
		return func(*mirror.Repo) chantal.Keep { return nil }, nil
	}
	byType := map[string]*filter.Filter{}
	for kind, format := range formats() {
		order, _ := format.(chantal.Comparer)
		f, err := filter.Compile(expression, kind, order)
		if err != nil {
			return nil, &failure{
				Exit: 2, Status: http.StatusBadRequest, Message: err.Error(),
				Next: `write for example --filter 'pkg.name == "nginx" || glob(pkg.section, "lib*")'`, Err: err,
			}
		}
		byType[kind] = f
	}
	return func(repo *mirror.Repo) chantal.Keep {
		f := byType[repo.Type]
		if f == nil {
			return nil
		}
		return func(_ int, p *chantal.Promise, field func(string) string) (bool, error) {
			return f.Keeps(repo.Name, p, field)
		}
	}, nil
}

// publishFailure says what to do about an error of a publication.
func publishFailure(err error) error {
	var none *mirror.UnpublishableError
	var conflict *mirror.ConflictError
	var wrong *filter.Error
	var unsupported *snapshot.UnsupportedError
	switch {
	case errors.As(err, &none):
		return &failure{Status: http.StatusNotImplemented, Message: err.Error(), Next: "name the other repositories with --repo", Err: err}
	case errors.As(err, &conflict):
		return &failure{Status: http.StatusConflict, Message: err.Error(), Next: "leave one of the sources out, or one of the packages with snapshot publish --filter first", Err: err}
	case errors.As(err, &wrong):
		return &failure{Exit: 2, Status: http.StatusBadRequest, Message: err.Error(), Err: err}
	case errors.As(err, &unsupported):
		return &failure{Status: http.StatusNotImplemented, Message: err.Error(), Err: err}
	}
	return snapshotFailure(err)
}

// labelsOf reads the flags --label.
func labelsOf(c *cli.Context) (map[string]string, error) {
	var labels map[string]string
	for _, label := range c.StringSlice("label") {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return nil, usage(c, "--label %q is not K=V", label)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels, nil
}
