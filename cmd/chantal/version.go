package main

import (
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// release is set by the linker for released binaries.
var release = ""

// version returns the version of this binary: the release, else what the Go
// tool recorded of the commit.
func version() string {
	if release != "" {
		return release
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	revision, dirty := "", ""
	for _, s := range build.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + dirty
}

func versionCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version",
		Action: do(noArguments(func(c *cli.Context, env *environment) error {
			if env.json {
				return env.printJSON(map[string]string{
					"version": version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			return env.print("chantal " + version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n")
		})),
	}
}
