package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"chantal/internal/config"
)

func configCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "check, show or describe the configuration",
		Subcommands: []*cli.Command{
			{
				Name:      "check",
				Usage:     "report every mistake with file, line and column",
				ArgsUsage: "[FILE]",
				Action:    do(arguments(0, 1, "", checkConfig)),
			},
			{
				Name:   "show",
				Usage:  "print the effective configuration",
				Action: do(noArguments(showConfig)),
			},
			{
				Name:   "schema",
				Usage:  "print the JSON Schema of configuration files",
				Action: do(noArguments(configSchema)),
			},
		},
	}
}

// checked is what config check --json prints.
type checked struct {
	File   string        `json:"file"` // "" where there is none
	OK     bool          `json:"ok"`
	Errors config.Errors `json:"errors"`
}

func checkConfig(c *cli.Context, env *environment) error {
	path, err := config.Find(cmpOr(c.Args().First(), env.configFlag), env.getenv)
	if err != nil {
		return &failure{Exit: 2, Message: err.Error(), Next: "correct the name, or write one with chantal init", Err: err}
	}
	settings, err := env.read(path)
	answer := checked{File: path, OK: err == nil, Errors: config.Errors{}}
	if err != nil && !errors.As(err, &answer.Errors) {
		return err
	}
	if env.json {
		if printed := env.printJSON(answer); printed != nil {
			return printed
		}
	}
	switch {
	case err != nil || env.json:
		return err
	case path == "":
		return env.print("no configuration file; the defaults hold\n")
	default:
		return env.print(fmt.Sprintf("%s: no mistakes, %s\n", path, repositories(len(settings.Repos))))
	}
}

func repositories(n int) string {
	if n == 1 {
		return "1 repository"
	}
	return number(n) + " repositories"
}

func showConfig(c *cli.Context, env *environment) error {
	if err := env.load(); err != nil {
		return err
	}
	effective := *env.config
	effective.Data = env.data
	if env.json {
		return env.printJSON(&effective)
	}
	text, err := effective.Marshal()
	if err != nil {
		return err
	}
	from := "no configuration file; the defaults"
	if env.config.File != "" {
		from = "read from " + env.config.File
	}
	return env.print("# " + from + "\n" + string(text))
}

func configSchema(_ *cli.Context, env *environment) error {
	text, err := config.Schema()
	if err != nil {
		return err
	}
	return env.print(string(text) + "\n")
}
