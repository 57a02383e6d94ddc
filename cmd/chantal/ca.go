package main

import "github.com/urfave/cli/v2"

func caCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:  "ca",
		Usage: "the certificate authority for intercepted hosts",
		Subcommands: []*cli.Command{{
			Name:  "show",
			Usage: "print its certificate as PEM",
			Action: do(noArguments(connected(func(c *cli.Context, env *environment, b backend) error {
				ca, err := b.CA(c.Context)
				if err != nil {
					return err
				}
				if env.json {
					return env.printJSON(ca)
				}
				if ca.Fingerprint != "" {
					env.hint("SHA-256 fingerprint: %s", ca.Fingerprint)
				}
				return env.print(ca.PEM)
			}))),
		}},
	}
}
