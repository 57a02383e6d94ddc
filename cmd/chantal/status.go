package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func statusCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show how each repository is doing",
		ArgsUsage: "[REPO…]",
		Action: do(connected(func(c *cli.Context, env *environment, b backend) error {
			rows, err := list(b.Status(c.Context, c.Args().Slice()))
			if err != nil {
				return err
			}
			for i := range rows {
				rows[i].Errors, _ = list(rows[i].Errors, nil)
			}
			if env.json {
				return env.printJSON(rows)
			}
			if len(rows) == 0 {
				return env.nothing(c.Context, b, "repositories", "point a client at "+env.address(c.Context, b).url(""))
			}
			if err := env.printStatus(rows); err != nil {
				return err
			}
			if err := env.printSyncs(rows); err != nil {
				return err
			}
			server, err := b.Server(c.Context)
			if err != nil {
				return err
			}
			if err := env.printScrub(server.Scrub); err != nil {
				return err
			}
			return env.printGC(server.GC)
		})),
	}
}

// printGC tells people what went wrong with freeing what nothing needs.
func (env *environment) printGC(r *gcReport) error {
	switch {
	case r == nil:
		return nil
	case r.Error != "":
		return env.print(fmt.Sprintf("\ngc: %s: %s\n", age(r.At), env.paint(red, printable(r.Error))))
	case r.OverLimit > 0:
		return env.print("\ngc: " + overLimit(r.OverLimit) + "\n")
	}
	return nil
}

func (env *environment) printStatus(rows []statusRow) error {
	t := table{header: []string{"REPO", "TYPE", "REACHABLE", "REFRESHED", "NEWEST", " CACHED", " SIZE", " ERRORS"}}
	var errors strings.Builder
	for _, s := range rows {
		reachable := "not asked"
		if s.Reachable != nil {
			reachable = yesNo(*s.Reachable)
		}
		newest := "-"
		if s.Generation > 0 {
			newest = fmt.Sprintf("%s %d, %s", s.Tree, s.Generation, age(s.Observed))
		}
		t.add(s.Repo, s.Type, reachable, age(s.LastRefresh), newest,
			fmt.Sprintf("%d/%d", s.Cached, s.Known), size(s.Bytes), number(len(s.Errors)))
		for _, e := range s.Errors {
			fmt.Fprintf(&errors, "%s: %s\n", s.Repo, env.paint(red, printable(e)))
		}
	}
	if err := env.printTable(t); err != nil {
		return err
	}
	if errors.Len() > 0 {
		return env.print("\n" + errors.String())
	}
	return nil
}
