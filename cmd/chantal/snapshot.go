package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func snapshotCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:  "snapshot",
		Usage: "freeze what was observed, and manage what is frozen",
		Subcommands: []*cli.Command{
			{
				Name:      "create",
				Usage:     "freeze repositories and print the snapshot's name",
				ArgsUsage: "[NAME]",
				Flags: []cli.Flag{
					&cli.StringSliceFlag{Name: "repo", Usage: "freeze `REPO` only; may be given again"},
					&cli.StringFlag{Name: "at", Usage: "freeze what was observed at `INSTANT`"},
					&cli.StringSliceFlag{Name: "label", Usage: "attach `K=V`; may be given again"},
					&cli.StringFlag{Name: "note", Usage: "attach `TEXT`"},
					&cli.BoolFlag{Name: "force", Usage: "take the name of a deleted snapshot"},
				},
				Action: do(arguments(0, 1, "", createSnapshot)),
			},
			publishCommand(do), mergeCommand(do),
			{
				Name:   "list",
				Usage:  "list snapshots",
				Action: do(noArguments(connected(func(c *cli.Context, env *environment, b backend) error { return listSnapshots(c.Context, env, b) }))),
			},
			{
				Name:      "show",
				Usage:     "show what a snapshot holds",
				ArgsUsage: "NAME",
				Action:    do(arguments(1, 1, "the snapshot's NAME", connected(showSnapshot))),
			},
			{
				Name:      "delete",
				Usage:     "delete snapshots",
				ArgsUsage: "NAME…",
				Action:    do(arguments(1, -1, "the snapshot's NAME", connected(deleteSnapshots))),
			},
		},
	}
}

// fill makes empty collections of missing ones, so that JSON has no null.
func (s *snapshotReport) fill() {
	s.Repos, _ = list(s.Repos, nil)
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
}

func (s *snapshotReport) labels() string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
		pairs = append(pairs, key+"="+s.Labels[key])
	}
	return strings.Join(pairs, ",")
}

func createSnapshot(c *cli.Context, env *environment) error {
	labels, err := labelsOf(c)
	if err != nil {
		return err
	}
	request := createRequest{
		Name: c.Args().First(), Repos: c.StringSlice("repo"), At: c.String("at"), Labels: labels,
		Note: c.String("note"), Force: c.Bool("force"), Brief: !env.json,
	}
	return connected(func(c *cli.Context, env *environment, b backend) error {
		snapshot, err := b.CreateSnapshot(c.Context, request, func(line string) { env.hint("%s", printable(line)) })
		if err != nil {
			return err
		}
		snapshot.fill()
		for _, missing := range snapshot.Missing {
			env.hint("chantal: upstream no longer has %s; the snapshot is without it", printable(missing))
		}
		if env.json {
			return env.printJSON(snapshot)
		}
		return env.print(snapshot.Name + "\n")
	})(c, env)
}

func showSnapshot(c *cli.Context, env *environment, b backend) error {
	s, err := b.ShowSnapshot(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	s.fill()
	if env.json {
		return env.printJSON(s)
	}
	var head strings.Builder
	fmt.Fprintf(&head, "%s  created %s (%s), sealed: %s\n", env.paint(bold, s.Name), s.Created.UTC().Format("2006-01-02T15:04:05Z"), age(s.Created), yesNo(s.Sealed))
	if len(s.Labels) > 0 {
		fmt.Fprintf(&head, "labels: %s\n", printable(s.labels()))
	}
	if s.Note != "" {
		fmt.Fprintf(&head, "note: %s\n", printable(s.Note))
	}
	for _, missing := range s.Missing {
		fmt.Fprintf(&head, "missing: %s\n", printable(missing))
	}
	if err := env.print(head.String() + "\n"); err != nil {
		return err
	}
	t := table{header: []string{"REPO", " TREES", " ARTIFACTS", " PRESENT"}}
	for _, r := range s.Repos {
		count := SnapshotCount{}
		if r.SnapshotCount != nil {
			count = *r.SnapshotCount
		}
		t.add(r.Repo, number(count.Trees), number(count.Known), number(count.Present))
	}
	return env.printTable(t)
}

func deleteSnapshots(c *cli.Context, env *environment, b backend) error {
	names := c.Args().Slice()
	if err := b.DeleteSnapshots(c.Context, names); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(deleted{names})
	}
	env.hint("deleted %s", strings.Join(names, ", "))
	return nil
}
