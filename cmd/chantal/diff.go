package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"chantal"
	"chantal/mirror"
	"chantal/snapshot"
)

type (
	diffRequest struct {
		A, B  string   // REF or REPO@REF
		Repos []string // none for all that both refs hold
	}

	diffReport struct {
		A           string           `json:"a"`
		B           string           `json:"b"`
		Added       []diffPackage    `json:"added"`
		Removed     []diffPackage    `json:"removed"`
		Changed     []diffChange     `json:"changed"`
		Advisories  []diffAdvisory   `json:"advisories"`
		Yanked      []diffYank       `json:"yanked"`
		Unyanked    []diffYank       `json:"unyanked"`
		NotCompared []diffUncompared `json:"not_compared"`
	}

	// diffPlace is where a difference is.
	diffPlace struct {
		Repo string `json:"repo"`
		Tree string `json:"tree"`
		Name string `json:"name"`
	}

	diffPackage struct {
		diffPlace
		Version string `json:"version"`
		Arch    string `json:"arch"`
		File    string `json:"file,omitempty"` // the one file of a version that the other side has, too
	}

	diffChange struct {
		diffPlace
		Arch      string           `json:"arch"`
		From      string           `json:"from"`
		To        string           `json:"to"`
		Direction mirror.Direction `json:"direction"` // upgrade, downgrade, rebuild
	}

	diffAdvisory struct {
		Repo     string   `json:"repo"`
		Tree     string   `json:"tree"`
		ID       string   `json:"id"`
		Type     string   `json:"type"`
		Severity string   `json:"severity"`
		Title    string   `json:"title"`
		CVEs     []string `json:"cves"`
		New      bool     `json:"new"` // A does not have it; else it concerns what changed
	}

	diffYank struct {
		diffPlace
		Version string `json:"version"`
		File    string `json:"file"`
		Reason  string `json:"reason"`
	}

	// diffUncompared is what could not be compared: an index, or without one a
	// repository.
	diffUncompared struct {
		Repo    string   `json:"repo"`
		Tree    string   `json:"tree,omitempty"`
		Index   string   `json:"index,omitempty"`
		Missing []string `json:"missing"` // "a", "b" or both: where it is not there
	}
)

func diffCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "compare the packages of two refs",
		ArgsUsage: "REF|REPO@REF REF|REPO@REF",
		Description: "REPO@REF for one repository, or for two different ones; REF for all repositories that both refs hold.\n" +
			"What is compared is what is stored; nothing is fetched.",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "repo", Usage: "compare `REPO` only; may be given again"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 1 where there are differences"},
		},
		Action: do(arguments(2, 2, "a ref to compare", func(c *cli.Context, env *environment) error {
			request := diffRequest{c.Args().Get(0), c.Args().Get(1), c.StringSlice("repo")}
			return connected(func(c *cli.Context, env *environment, b backend) error {
				report, err := b.Diff(c.Context, request)
				if err != nil {
					return err
				}
				if err := env.printDiff(&report); err != nil {
					return err
				}
				if c.Bool("exit-code") && report.differs() {
					return &exitOnly{1}
				}
				return nil
			})(c, env)
		})),
	}
}

func (r *diffReport) differs() bool {
	return len(r.Added)+len(r.Removed)+len(r.Changed)+len(r.Yanked)+len(r.Unyanked)+len(r.Advisories) > 0
}

// held are the sides of a comparison by repository.
type held map[string]mirror.Side

// Diff compares two refs, going by what is stored.
func (l *local) Diff(ctx context.Context, q diffRequest) (diffReport, error) {
	report := diffReport{
		A: q.A, B: q.B, Added: []diffPackage{}, Removed: []diffPackage{}, Changed: []diffChange{},
		Advisories: []diffAdvisory{}, Yanked: []diffYank{}, Unyanked: []diffYank{}, NotCompared: []diffUncompared{},
	}
	repoA, refA := cutRef(q.A)
	repoB, refB := cutRef(q.B)
	if repoA != "" || repoB != "" {
		if len(q.Repos) > 0 {
			return report, namedTwice()
		}
		a, err := l.side(cmp.Or(repoA, repoB), refA)
		if err != nil {
			return report, err
		}
		b, err := l.side(cmp.Or(repoB, repoA), refB)
		if err != nil {
			return report, err
		}
		return report, l.compare(ctx, &report, a, b)
	}
	a, err := l.sides(refA)
	if err != nil {
		return report, err
	}
	b, err := l.sides(refB)
	if err != nil {
		return report, err
	}
	names, err := l.common(&report, a, b, q.Repos)
	if err != nil {
		return report, err
	}
	for _, name := range names {
		if err := l.compare(ctx, &report, a[name], b[name]); err != nil {
			return report, err
		}
	}
	return report, nil
}

func namedTwice() error {
	return &failure{Exit: 2, Status: http.StatusBadRequest, Message: "a repository is named twice", Next: "write REPO@REF, or REF and --repo REPO"}
}

// cutRef takes REPO@REF apart; repo is "" for REF.
func cutRef(text string) (repo, ref string) {
	if repo, ref, ok := strings.Cut(text, "@"); ok {
		return repo, ref
	}
	return "", text
}

// common returns the repositories to compare, and notes those that one side
// alone has.
func (l *local) common(report *diffReport, a, b held, wanted []string) (names []string, err error) {
	for _, name := range wanted {
		if l.mirror.Repo(name) == nil {
			return nil, noSuchRepo(name)
		}
	}
	for _, r := range l.mirror.Repos() {
		if len(wanted) > 0 && !slices.Contains(wanted, r.Name) {
			continue
		}
		_, inA := a[r.Name]
		_, inB := b[r.Name]
		switch {
		case inA && inB:
			names = append(names, r.Name)
		case inA || inB:
			report.NotCompared = append(report.NotCompared, diffUncompared{Repo: r.Name, Missing: missing(!inA, !inB)})
		}
	}
	if len(names) == 0 {
		return nil, &failure{
			Status: http.StatusNotFound, Message: fmt.Sprintf("no repository is in both %s and %s", report.A, report.B),
			Next: "`chantal snapshot show NAME` and `chantal list generations` show what each holds; REPO@REF compares two different ones",
		}
	}
	return names, nil
}

func missing(a, b bool) (sides []string) {
	if a {
		sides = append(sides, "a")
	}
	if b {
		sides = append(sides, "b")
	}
	return sides
}

// sides returns what a ref holds of every repository.
func (l *local) sides(ref string) (held, error) {
	all := held{}
	for _, r := range l.mirror.Repos() {
		s, err := l.side(r.Name, ref)
		if errors.Is(err, errNotHeld) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all[r.Name] = s
	}
	if len(all) == 0 {
		_, err := l.resolve(ref)
		return all, err
	}
	return all, nil
}

// errNotHeld says that a ref is good and holds nothing of a repository.
var errNotHeld = errors.New("not held")

// resolve finds what a ref selects.
func (l *local) resolve(text string) (*snapshot.State, error) {
	ref, err := snapshot.Parse(text)
	if err != nil {
		return nil, snapshotFailure(err)
	}
	selected, err := l.names.Resolve(ref)
	var unsupported *snapshot.UnsupportedError
	if errors.As(err, &unsupported) {
		return nil, &failure{Status: http.StatusNotImplemented, Message: err.Error(), Err: err}
	}
	if err != nil {
		return nil, snapshotFailure(err)
	}
	return selected, nil
}

// side returns what a ref holds of one repository; the error is errNotHeld
// where that is nothing.
func (l *local) side(repo, ref string) (mirror.Side, error) {
	r := l.mirror.Repo(repo)
	if r == nil {
		return mirror.Side{}, noSuchRepo(repo)
	}
	selected, err := l.resolve(ref)
	if err != nil {
		return mirror.Side{}, err
	}
	side := mirror.Side{Repo: r}
	if !selected.Live {
		held, err := selected.At(repo)
		if err != nil {
			return side, &failure{Status: http.StatusNotFound, Message: err.Error(), Err: errNotHeld}
		}
		side.Line, side.At, side.Lacks = held.Line(), held.At, held.Missing
	}
	if some, err := side.Observed(); err != nil || some || selected.Named {
		return side, err
	}
	f := &failure{Status: http.StatusNotFound, Message: "nothing of " + repo + " has been observed yet", Next: "point a client at it first", Err: errNotHeld}
	if !selected.Live {
		f.Message = fmt.Sprintf("ref %q: nothing of %s had been observed by then", ref, repo)
		f.Next = "`chantal list generations` shows what there is"
	}
	return side, f
}

// compare adds what two states differ in to the report.
func (l *local) compare(ctx context.Context, report *diffReport, a, b mirror.Side) error {
	d, err := l.mirror.Diff(ctx, a, b)
	if err != nil {
		return err
	}
	for _, c := range d.Changes {
		place := diffPlace{b.Repo.Name, c.Tree, c.Name}
		switch c.Direction {
		case mirror.Added:
			report.Added = append(report.Added, diffPackage{place, c.To, c.Arch, c.File})
		case mirror.Removed:
			place.Repo = a.Repo.Name
			report.Removed = append(report.Removed, diffPackage{place, c.From, c.Arch, c.File})
		default:
			report.Changed = append(report.Changed, diffChange{place, c.Arch, c.From, c.To, c.Direction})
		}
	}
	for _, n := range d.Advisories {
		report.Advisories = append(report.Advisories, diffAdvisory{
			Repo: b.Repo.Name, Tree: n.Tree, ID: n.ID, Type: n.Type, Severity: n.Severity, Title: n.Title,
			CVEs: append([]string{}, n.CVEs...), New: n.New,
		})
	}
	report.Yanked = append(report.Yanked, yanks(b.Repo.Name, d.Yanked)...)
	report.Unyanked = append(report.Unyanked, yanks(b.Repo.Name, d.Unyanked)...)
	for _, u := range d.Unknown {
		report.NotCompared = append(report.NotCompared, diffUncompared{b.Repo.Name, u.Tree, u.Index, missing(u.A, u.B)})
	}
	return nil
}

func yanks(repo string, notices []mirror.ChangedNotice) (all []diffYank) {
	for _, n := range notices {
		p := chantal.Package{}
		if len(n.Packages) > 0 {
			p = n.Packages[0]
		}
		all = append(all, diffYank{diffPlace{repo, n.Tree, p.Name}, p.Version, n.ID, n.Title})
	}
	return all
}
