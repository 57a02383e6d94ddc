package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"chantal"
	"chantal/internal/disk"
	"chantal/internal/plain"
	"chantal/mirror"
	"chantal/snapshot"
)

type (
	layoutRequest struct {
		Ref   string   `json:"ref"`             // REF or REPO@REF
		Repos []string `json:"repos,omitempty"` // none for all that the ref holds
	}

	// layoutFile is one file of what a ref holds, as a folder has it.
	layoutFile struct {
		Places   []string  `json:"places"` // relative to the folder
		SHA256   string    `json:"sha256"` // hexadecimal
		Stored   string    `json:"stored,omitempty"`
		Content  []byte    `json:"content,omitempty"` // where there is no Stored
		Size     int64     `json:"size"`
		Modified time.Time `json:"modified"`
		Mutable  bool      `json:"mutable,omitempty"`
		Spare    bool      `json:"spare,omitempty"`
	}

	// layoutReport says what a ref holds. With failures no file was handed over.
	layoutReport struct {
		Repos    []string        `json:"repos"`
		Failed   int             `json:"failed"` // files that cannot be had
		Failures []layoutFailure `json:"failures,omitempty"`
	}

	layoutFailure struct {
		Repo string `json:"repo"`
		mirror.LayoutFailure
	}

	// folderReport is what publish --json prints.
	folderReport struct {
		Ref  string     `json:"ref"`
		Dir  string     `json:"dir"`
		Link plain.Mode `json:"link"`
		layoutReport
		plain.Report
	}
)

func folderCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "write a ref as a plain folder that any web server can serve",
		ArgsUsage: "REF|REPO@REF DIR",
		Description: "REPO@REF is written to DIR itself, REF to one folder per repository in it. What is missing is fetched first.\n" +
			"DIR is replaced at once when all of it is there; it has to be new, empty, or made by publish.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "link", Value: string(plain.Hard), Usage: "make the files `HOW`: hard, sym (links), copy, reflink"},
			&cli.StringSliceFlag{Name: "repo", Usage: "publish `REPO` only; may be given again"},
		},
		Action: do(arguments(2, 2, "a ref, or the folder for it,", func(c *cli.Context, env *environment) error {
			mode := plain.Mode(c.String("link"))
			if !slices.Contains(plain.Modes(), mode) {
				return usage(c, "--link %q is none of hard, sym, copy, reflink", mode)
			}
			dir, err := filepath.Abs(c.Args().Get(1))
			if err != nil {
				return err
			}
			request := layoutRequest{c.Args().First(), c.StringSlice("repo")}
			return connected(func(c *cli.Context, env *environment, b backend) error {
				return env.publishFolder(c.Context, b, request, dir, mode)
			})(c, env)
		})),
	}
}

// publishFolder writes what a ref holds to dir.
func (env *environment) publishFolder(ctx context.Context, b backend, q layoutRequest, dir string, mode plain.Mode) (err error) {
	tree, err := plain.Begin(disk.Disk{}, dir, mode)
	if err != nil {
		return folderFailure(err, dir)
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	progress, clear := env.progressLine()
	report, err := b.Layout(ctx, q, progress, func(files []layoutFile) {
		for _, f := range files {
			if err := putFile(tree, f); err != nil {
				stop(folderFailure(err, dir))
				return
			}
		}
	})
	clear()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	all := folderReport{Ref: q.Ref, Dir: dir, Link: mode, layoutReport: report}
	if report.Failed == 0 {
		if all.Report, err = tree.Swap(plain.About{Ref: q.Ref, Repos: report.Repos}); err != nil {
			return folderFailure(err, dir)
		}
	}
	return env.printFolder(&all)
}

func putFile(tree *plain.Tree, f layoutFile) error {
	g := plain.File{Places: f.Places, From: f.Stored, Content: f.Content, Size: f.Size, Modified: f.Modified, Mutable: f.Mutable, Spare: f.Spare}
	if n, err := hex.Decode(g.SHA256[:], []byte(f.SHA256)); err != nil || n != sha256.Size {
		return fmt.Errorf("%s: %q is no SHA-256", f.Places, f.SHA256)
	}
	return tree.Put(g)
}

// folderFailure says what to do about an error of package plain.
func folderFailure(err error, dir string) error {
	var refused *plain.RefusedError
	switch {
	case errors.As(err, &refused):
		return &failure{Message: err.Error(), Err: err}
	case errors.Is(err, disk.ErrLocked):
		return &failure{Message: "another chantal publish works on " + dir, Next: "wait until it is done", Err: err}
	}
	return &failure{Message: err.Error(), Next: dir + " is as it was", Err: err}
}

func (env *environment) printFolder(r *folderReport) error {
	if env.json {
		if r.Repos == nil {
			r.Repos = []string{}
		}
		if err := env.printJSON(r); err != nil {
			return err
		}
	}
	if r.Failed > 0 {
		for _, f := range r.Failures {
			env.hint("chantal: %s: %s: %s", f.Repo, printable(f.Path), printable(f.Reason))
		}
		what := "files cannot be had"
		if r.Failed == 1 {
			what = "file cannot be had"
		}
		return &failure{Message: fmt.Sprintf("%d %s; %s is as it was", r.Failed, what, r.Dir), Next: "try again when upstream answers, or publish another ref"}
	}
	if r.Gap {
		env.hint("chantal: the file system of %s cannot exchange two folders: for a moment there was none", r.Dir)
	}
	if env.json {
		return nil
	}
	return env.print(fmt.Sprintf("%s is %s: %s, %s; %d added, %d replaced, %d removed, %d unchanged\n",
		r.Dir, r.Ref, count(r.Files, "file"), size(r.Bytes), r.Added, r.Replaced, r.Removed, r.Unchanged))
}

// layoutBatch is how many files are handed over at a time.
const layoutBatch = 64

// Layout hands over all files of what a ref holds, when all of them are there.
func (l *local) Layout(ctx context.Context, q layoutRequest, progress func(string), put func([]layoutFile)) (report layoutReport, err error) {
	defer l.store.Hold()() // what is found to be there has to be until it is handed over
	if err := l.mirror.Settle(ctx); err != nil {
		return report, err
	}
	repo, ref := cutRef(q.Ref)
	names := q.Repos
	switch {
	case repo != "" && len(names) > 0:
		return report, namedTwice()
	case repo != "":
		names = []string{repo}
	case len(names) == 0:
		sides, err := l.sides(ref)
		if err != nil {
			return report, err
		}
		for _, r := range l.mirror.Repos() {
			if _, ok := sides[r.Name]; ok {
				names = append(names, r.Name)
			}
		}
		if len(names) == 0 {
			return report, &failure{Message: fmt.Sprintf("ref %q holds nothing", ref), Next: "point a client at the server first"}
		}
	}
	var layouts []*mirror.Layout
	for _, name := range names {
		layout, err := l.layout(name, ref)
		if err != nil {
			return report, err
		}
		defer layout.Close()
		layouts = append(layouts, layout)
		failed, failures, err := layout.Fetch(ctx, progress)
		if err != nil {
			return report, err
		}
		report.Failed += failed
		for _, f := range failures {
			report.Failures = append(report.Failures, layoutFailure{name, f})
		}
	}
	report.Repos = names
	if report.Failed > 0 {
		return report, nil
	}
	for i, layout := range layouts {
		prefix := ""
		if repo == "" {
			prefix = names[i] + "/"
		}
		if err := handOver(ctx, layout, prefix, put); err != nil {
			return report, err
		}
	}
	return report, nil
}

// layout returns what a ref holds of one repository.
func (l *local) layout(name, ref string) (*mirror.Layout, error) {
	side, err := l.side(name, ref)
	if err != nil {
		return nil, err
	}
	parsed, err := snapshot.Parse(ref)
	if err != nil || !parsed.Signed {
		return l.mirror.Layout(side, nil)
	}
	if !side.Repo.Signs() {
		err := &snapshot.UnsupportedError{Ref: ref, Part: "+signed for repositories of type " + side.Repo.Type}
		return nil, &failure{Status: http.StatusNotImplemented, Message: err.Error(), Next: "publish it without", Err: err}
	}
	return l.mirror.Layout(side, func(base chantal.View) chantal.View {
		return side.Repo.Signed(base, mirror.Place{Ref: ref}, func() (chantal.Signer, error) { return l.signer() })
	})
}

// handOver passes the files on in batches, below a prefix.
func handOver(ctx context.Context, layout *mirror.Layout, prefix string, put func([]layoutFile)) error {
	var batch []layoutFile
	for f, err := range layout.Files(ctx) {
		if err != nil {
			return err
		}
		places := make([]string, len(f.Places))
		for i, p := range f.Places {
			places[i] = prefix + p
		}
		batch = append(batch, layoutFile{places, f.Digest.Hex(), f.Stored, f.Content, f.Size, f.Modified, f.Mutable, f.Spare})
		if len(batch) == layoutBatch {
			put(batch)
			batch = nil
		}
	}
	if len(batch) > 0 {
		put(batch)
	}
	return ctx.Err()
}
