package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"chantal/internal/keep"
	"chantal/snapshot"
)

type (
	verifyRequest struct {
		Refs    []string `json:"refs,omitempty"` // REF or REPO@REF; none for everything
		Repair  bool     `json:"repair,omitempty"`
		Rebuild bool     `json:"rebuild,omitempty"`
	}

	verifyReport struct {
		keep.Report
		Rebuilt bool `json:"rebuilt,omitempty"` // the catalog was made anew first
	}
)

func verifyCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "read what is stored again and check that every state can be served",
		ArgsUsage: "[REF|REPO@REF]…",
		Description: "Without a REF everything is read: every blob, aliases, records, the catalog, and every snapshot,\n" +
			"live, and past instants have to be servable. Blobs that are not what their names say are set aside:\n" +
			"the next request fetches them again. Exit code 1: something is wrong, and was not repaired.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "repair", Usage: "fetch what is damaged or missing again, from any mirror that has it"},
			&cli.BoolFlag{Name: "rebuild", Usage: "make the catalog anew from the records first"},
		},
		Action: do(func(c *cli.Context, env *environment) error {
			request := verifyRequest{Refs: c.Args().Slice(), Repair: c.Bool("repair"), Rebuild: c.Bool("rebuild")}
			env.rebuild = request.Rebuild
			return connected(func(c *cli.Context, env *environment, b backend) error {
				progress, clear := env.progressLine()
				report, err := b.Verify(c.Context, request, progress)
				clear()
				if err != nil {
					return err
				}
				return env.printVerify(report, request.Repair)
			})(c, env)
		}),
	}
}

// progressLine shows lines in place of each other on a terminal, and nothing
// elsewhere.
func (env *environment) progressLine() (show func(string), clear func()) {
	f, ok := env.stderr.(*os.File)
	if env.quiet || !ok || !term.IsTerminal(int(f.Fd())) {
		return func(string) {}, func() {}
	}
	const start = "\r\x1b[K" // ECMA-48: carriage return, erase to the end of the line
	return func(line string) { fmt.Fprint(env.stderr, start+printable(line)) }, func() { fmt.Fprint(env.stderr, start) }
}

// printVerify shows a report; what is wrong is an error.
func (env *environment) printVerify(r verifyReport, repair bool) error {
	var err error
	if env.json {
		err = env.printJSON(r)
	} else {
		err = env.print(env.verifyText(r))
	}
	if err != nil || r.OK {
		return err
	}
	left := len(r.Corrupt) + len(r.Missing) - len(r.Repaired)
	f := &failure{Message: r.summary()}
	switch {
	case left > 0 && repair:
		f.Next = "what could not be fetched again has its reason beside it"
	case left > 0:
		f.Next = "chantal verify --repair fetches it again from upstream"
	case strings.Contains(strings.Join(r.Problems, "\n"), "catalog"):
		f.Next = "chantal verify --rebuild makes the catalog anew from the records"
	default:
		f.Next = "correct what is listed as a problem"
	}
	return f
}

func (env *environment) verifyText(r verifyReport) string {
	var b strings.Builder
	if r.Rebuilt {
		fmt.Fprintln(&b, "the catalog has been made anew from the records")
	}
	for _, part := range []struct {
		what, color string
		list        []keep.Finding
	}{{"corrupt ", red, r.Corrupt}, {"missing ", red, r.Missing}, {"repaired", green, r.Repaired}} {
		for _, f := range part.list {
			fmt.Fprintf(&b, "%s  %s\n", env.paint(part.color, part.what), describe(f))
		}
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "%s   %s\n", env.paint(red, "problem"), printable(p))
	}
	read := fmt.Sprintf("%s read, %s", count(r.BlobsChecked, "blob"), size(r.BytesChecked))
	if r.OK {
		return b.String() + read + ": " + env.paint(green, "everything is in order") + "\n"
	}
	return b.String() + read + "\n"
}

// describe is a finding as one line for people.
func describe(f keep.Finding) string {
	text := string(f.Digest)
	if f.Path != "" {
		text = f.Repo + " " + printable(f.Path) + "  " + text
	}
	if len(f.Refs) > 0 {
		text += "  (" + strings.Join(f.Refs, ", ") + ")"
	} else {
		text += "  (nothing needs it)"
	}
	if f.Reason != "" {
		text += ": " + printable(f.Reason)
	}
	return text
}

// summary says what is wrong, in one sentence.
func (r *verifyReport) summary() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{len(r.Corrupt), "corrupt"}, {len(r.Missing), "missing"}, {len(r.Repaired), "repaired"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if n := len(r.Problems); n > 0 {
		parts = append(parts, count(n, "problem"))
	}
	return "not everything is in order: " + strings.Join(parts, ", ")
}

// progressEvery is how often people are told how far verify has come.
const progressEvery = 200 * time.Millisecond

func (l *local) Verify(ctx context.Context, r verifyRequest, progress func(string)) (verifyReport, error) {
	report := verifyReport{Rebuilt: r.Rebuild}
	if r.Rebuild {
		if err := l.catalog.Rebuild(); err != nil {
			return report, &failure{Message: err.Error(), Next: "stop serve, and run chantal verify --rebuild again", Err: err}
		}
	}
	everything, err := keep.Everything(l.catalog, time.Now().Add(-l.config.Load().History))
	if err != nil {
		return report, err
	}
	states := everything
	if len(r.Refs) > 0 {
		if states, err = l.states(r.Refs); err != nil {
			return report, err
		}
	}
	var told time.Time
	report.Report, err = l.keeper.Verify(ctx, keep.Request{
		States: states, Blobs: len(r.Refs) == 0, Repair: r.Repair, Everything: everything,
		Progress: func(p keep.Progress) {
			if now := time.Now(); now.Sub(told) >= progressEvery {
				told = now
				progress(fmt.Sprintf("reading %d of %d blobs, %s", p.Blobs, p.Total, size(p.Bytes)))
			}
		},
	})
	return report, err
}

// states returns what refs select: REF or REPO@REF.
func (l *local) states(refs []string) (all []keep.State, err error) {
	for _, text := range refs {
		repo, name, ok := strings.Cut(text, "@")
		if !ok {
			repo, name = "", text
		} else if l.mirror.Repo(repo) == nil {
			return nil, noSuchRepo(repo)
		}
		states, err := l.statesOf(repo, name)
		if err != nil {
			return nil, err
		}
		all = append(all, states...)
	}
	return all, nil
}

func (l *local) statesOf(repo, name string) ([]keep.State, error) {
	ref, err := snapshot.Parse(name)
	if err != nil {
		return nil, snapshotFailure(err)
	}
	selected, err := l.names.Resolve(ref)
	var unsupported *snapshot.UnsupportedError
	switch {
	case errors.As(err, &unsupported):
		return nil, &failure{Status: http.StatusNotImplemented, Message: err.Error(), Err: err}
	case err != nil:
		return nil, snapshotFailure(err)
	case selected.Live:
		return keep.Live(l.catalog, repo)
	case !selected.Named:
		at, err := selected.At(repo)
		if err != nil {
			return nil, err
		}
		states, err := keep.At(l.catalog, repo, at.At, name)
		if err == nil && len(states) == 0 {
			err = &failure{
				Status: http.StatusNotFound, Message: fmt.Sprintf("ref %q: nothing had been observed by then", name),
				Next: "`chantal list generations` shows what there is",
			}
		}
		return states, err
	}
	if repo != "" {
		if _, err := selected.At(repo); err != nil {
			return nil, snapshotFailure(err)
		}
	}
	s, err := l.names.Get(name)
	if err != nil {
		return nil, snapshotFailure(err)
	}
	return keep.Snapshot(l.catalog, s, repo)
}
