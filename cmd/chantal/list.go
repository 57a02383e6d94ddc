package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// lists holds what list can list.
var lists = []string{"repos", "snapshots", "generations", "channels", "recordings"}

func listCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "list",
		Usage:     "list repositories, snapshots, generations, channels or recordings",
		ArgsUsage: "[" + strings.Join(lists, "|") + "]",
		Action: do(arguments(0, 1, "", func(c *cli.Context, env *environment) error {
			show, ok := map[string]func(context.Context, *environment, backend) error{
				"": listRepos, "repos": listRepos, "snapshots": listSnapshots, "generations": listGenerations,
				// This version makes neither of them, so there are none.
				"channels": listNone("channels"), "recordings": listNone("recordings"),
			}[c.Args().First()]
			if !ok {
				return usage(c, "there is no list of %q, %s", c.Args().First(), strings.TrimSuffix(nearest(c.Args().First(), lists), "."))
			}
			return connected(func(c *cli.Context, env *environment, b backend) error {
				return show(c.Context, env, b)
			})(c, env)
		})),
	}
}

func listNone(what string) func(context.Context, *environment, backend) error {
	return func(ctx context.Context, env *environment, b backend) error {
		if env.json {
			return env.printJSON([]string{})
		}
		return env.nothing(ctx, b, what, "")
	}
}

// nothing says that the data directory, which it names, has none of what; next
// is what to do about that.
func (env *environment) nothing(ctx context.Context, b backend, what, next string) error {
	server, err := b.Server(ctx)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("no %s in %s yet", what, cmpOr(server.Data, env.data))
	if next != "" {
		text += "; " + next
	}
	return env.print(text + "\n")
}

func listRepos(ctx context.Context, env *environment, b backend) error {
	repos, err := list(b.Repos(ctx))
	if err != nil {
		return err
	}
	if env.json {
		return env.printJSON(repos)
	}
	if len(repos) == 0 {
		return env.nothing(ctx, b, "repositories", "point a client at "+env.address(ctx, b).url("")+", chantal client apt|dnf|pip|uv --proxy prints how")
	}
	t := table{header: []string{"NAME", "TYPE", " TREES", " GENERATIONS", " ARTIFACTS", " SIZE", "UPSTREAM"}}
	for _, r := range repos {
		upstream := "-"
		switch {
		case len(r.Upstream) > 0:
			upstream = r.Upstream[0]
		case r.List != "":
			upstream = r.List
		}
		if more := len(r.Upstream) - 1; more > 0 {
			upstream += fmt.Sprintf(" (+%d)", more)
		}
		t.add(r.Name, r.Type, number(r.Trees), number(r.Generations), number(r.Artifacts), size(r.Bytes), upstream)
	}
	return env.printTable(t)
}

func listGenerations(ctx context.Context, env *environment, b backend) error {
	generations, err := list(b.Generations(ctx))
	if err != nil {
		return err
	}
	if env.json {
		return env.printJSON(generations)
	}
	if len(generations) == 0 {
		return env.nothing(ctx, b, "generations", "they appear when a client asks for a repository")
	}
	t := table{header: []string{"REPO", "TREE", " GENERATION", "OBSERVED", "ROOT"}}
	for _, g := range generations {
		t.add(g.Repo, g.Tree, number(g.Generation), instant(g.Observed), g.RootSHA256[:min(12, len(g.RootSHA256))])
	}
	return env.printTable(t)
}

func listSnapshots(ctx context.Context, env *environment, b backend) error {
	snapshots, err := list(b.Snapshots(ctx))
	if err != nil {
		return err
	}
	for i := range snapshots {
		snapshots[i].fill()
	}
	if env.json {
		return env.printJSON(snapshots)
	}
	if len(snapshots) == 0 {
		return env.nothing(ctx, b, "snapshots", "make one with chantal snapshot create")
	}
	t := table{header: []string{"NAME", "CREATED", "SEALED", "REPOS", "LABELS"}}
	for _, s := range snapshots {
		var names []string
		for _, r := range s.Repos {
			names = append(names, r.Repo)
		}
		t.add(s.Name, age(s.Created), yesNo(s.Sealed), strings.Join(names, ","), s.labels())
	}
	return env.printTable(t)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
