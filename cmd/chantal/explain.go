package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func explainCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say what a URL resolves to, and why it would fail; or what keeps a blob",
		ArgsUsage: "URL|DIGEST",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "why", Usage: "the argument is the SHA-256 of a blob, or its beginning: say what keeps it"},
		},
		Action: do(arguments(1, 1, "the URL", connected(func(c *cli.Context, env *environment, b backend) error {
			if c.Bool("why") {
				w, err := b.Why(c.Context, c.Args().First())
				if err != nil {
					return err
				}
				if env.json {
					return env.printJSON(w)
				}
				return env.print(env.whyText(w))
			}
			e, err := b.Explain(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			if env.json {
				return env.printJSON(e)
			}
			return env.printExplanation(e)
		}))),
	}
}

func (env *environment) printExplanation(e explanation) error {
	var b strings.Builder
	field := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-11s %s\n", name, printable(text))
		}
	}
	field("url", e.URL)
	field("repository", e.Repo)
	field("ref", e.Ref)
	field("path", e.Path)
	field("kind", e.Kind)
	field("tree", e.Tree)
	if e.Generation > 0 {
		field("generation", fmt.Sprintf("%d, observed %s", e.Generation, instant(e.Observed)))
	}
	field("digest", e.Digest)
	if e.Size > 0 {
		field("size", size(e.Size))
	}
	field("stored", yesNo(e.Stored))
	for _, m := range e.Mirrors {
		field("mirror", m)
	}
	for _, l := range e.Lists {
		field("list", l)
	}
	answer, color := "yes", green
	if !e.OK {
		answer, color = "no", red
	}
	if e.Status > 0 {
		answer += fmt.Sprintf(" (%d)", e.Status)
	}
	fmt.Fprintf(&b, "%-11s %s\n", "answered", env.paint(color, answer))
	field("because", e.Reason)
	field("next", e.Next)
	return env.print(b.String())
}
