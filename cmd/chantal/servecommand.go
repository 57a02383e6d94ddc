package main

import (
	"github.com/urfave/cli/v2"

	"chantal/internal/config"
)

func serveCommand(do func(action) cli.ActionFunc, serve serveFunc) *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "run the proxy until it is interrupted",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Usage: "listen on `ADDRESS` instead of the configured one"},
			&cli.BoolFlag{Name: "offline", Usage: "answer from the store only"},
		},
		Action: do(noArguments(func(c *cli.Context, env *environment) error {
			o := serveOptions{Listen: c.String("listen"), Offline: c.Bool("offline")}
			if o.Listen != "" {
				if _, err := config.ParseAddress(o.Listen); err != nil {
					return usage(c, "--listen: %v", err)
				}
			}
			if err := env.load(); err != nil {
				return err
			}
			return serve(c.Context, env, o)
		})),
	}
}
