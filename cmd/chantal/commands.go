package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// action is what a command does.
type action = func(c *cli.Context, env *environment) error

// commands builds the tree of commands.
func commands(a app) *cli.App {
	do := func(f action) cli.ActionFunc {
		return func(c *cli.Context) error {
			env, err := newEnvironment(c, a)
			if err != nil {
				return err
			}
			return f(c, env)
		}
	}
	tree := &cli.App{
		Name:  "chantal",
		Usage: "the proxy for apt, dnf and pip that remembers every state it has seen",
		Description: "Exit codes: 0 done; 1 failed, or a check found problems; 2 wrong usage or configuration; 130 interrupted.\n" +
			"Flags may stand anywhere on the line.",
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Writer:                    a.stdout,
		ErrWriter:                 a.stderr,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usageError,
		Flags:                     globalFlags(),
		Commands: []*cli.Command{
			serveCommand(do, a.serve), initCommand(do), configCommand(do), listCommand(do), statusCommand(do), statsCommand(do),
			syncCommand(do), snapshotCommand(do), diffCommand(do), folderCommand(do), verifyCommand(do), gcCommand(do),
			clientCommand(do), caCommand(do), explainCommand(do),
			versionCommand(do),
		},
	}
	tree.Commands = append(tree.Commands, completionCommands(do, func() *cli.App { return tree })...)
	for _, c := range tree.Commands {
		finish(c, "chantal "+c.Name)
		c.HelpName = c.Name // the library puts the program's name before it
	}
	return tree
}

// finish sets what all commands have in common.
func finish(c *cli.Command, name string) {
	c.HideHelpCommand = true
	c.HelpName = name
	c.OnUsageError = usageError
	if len(c.Subcommands) > 0 {
		c.Action = func(c *cli.Context) error {
			return &failure{Exit: 2, Message: name + " needs a subcommand", Next: "see " + name + " --help"}
		}
	}
	for _, sub := range c.Subcommands {
		finish(sub, name+" "+sub.Name)
	}
}

func usageError(c *cli.Context, err error, _ bool) error { return usage(c, "%v", err) }

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "read the configuration from `FILE` (CHANTAL_CONFIG)"},
		&cli.StringFlag{Name: "data", Usage: "keep everything in `DIR` (CHANTAL_DATA)"},
		&cli.StringFlag{Name: "server", Usage: "ask the serve at `URL|SOCKET` (CHANTAL_SERVER)"},
		&cli.BoolFlag{Name: "json", Usage: "print one JSON document and nothing else"},
		&cli.BoolFlag{Name: "quiet", Usage: "no progress and no hints"},
		&cli.BoolFlag{Name: "no-color", Usage: "no colour (NO_COLOR)"},
		&cli.StringFlag{Name: "log-level", Usage: "log from `LEVEL` on: debug, info, warn, error"},
		&cli.StringFlag{Name: "log-format", Usage: "log as `FORMAT`: text, json"},
	}
}

// noArguments is arguments for a command that takes none.
func noArguments(f action) action { return arguments(0, 0, "", f) }

// arguments checks that there are at least least and at most most arguments,
// any number where most is negative; what names them.
func arguments(least, most int, what string, f action) action {
	return func(c *cli.Context, env *environment) error {
		switch n := c.NArg(); {
		case n < least:
			return usage(c, "%s is missing", what)
		case most >= 0 && n > most:
			return usage(c, "%s", fmt.Sprintf("one argument too many: %q", c.Args().Get(most)))
		}
		return f(c, env)
	}
}
