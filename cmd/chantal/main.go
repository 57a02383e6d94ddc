// Chantal is a proxy and mirror for package repositories that serves every
// state it has observed again. This package is its command line: it wires the
// other packages by hand, and shows people and scripts what they say. It holds
// no rule of its own about repositories, storage or HTTP.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"chantal/internal/config"
)

// app is what run needs of the world. The functions have to be set; the
// process's own streams and variables stand in for what is nil.
type app struct {
	serve          serveFunc
	open           openFunc
	stdout, stderr io.Writer
	getenv         func(string) string
}

// environment is what every command works in.
type environment struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	log            *slog.Logger
	json           bool // one JSON document on stdout, nothing else there
	quiet          bool // no progress, no hints
	color          bool // stdout is a terminal that wants colour
	server         string
	config         *config.Config
	data           string // absolute path of the data directory

	rebuild bool // make the catalog anew before the data directory is opened

	dataFlag   string
	configFlag string
	open       openFunc
}

// run executes the command line args, the program's name first, and returns
// the exit code: 0 done, 1 failed, 2 wrong usage or configuration, 130
// interrupted (ctx ended). Errors are told in one line on stderr.
func run(ctx context.Context, args []string, a app) int {
	if a.stdout == nil {
		a.stdout = os.Stdout
	}
	if a.stderr == nil {
		a.stderr = os.Stderr
	}
	if a.getenv == nil {
		a.getenv = os.Getenv
	}
	tree := commands(a)
	arranged, err := arrange(tree, args)
	if err == nil {
		err = tree.RunContext(ctx, arranged)
	}
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		f := &failure{}
		if !errors.As(err, &f) || f.Message != interruption {
			f = &failure{Message: interruption}
		}
		fmt.Fprintln(a.stderr, "chantal: "+f.Error())
		return 130
	}
	var silent *exitOnly
	if errors.As(err, &silent) {
		return silent.code
	}
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		for _, m := range mistakes {
			fmt.Fprintln(a.stderr, oneLine(m.Error()))
		}
	}
	f := asFailure(err)
	fmt.Fprintln(a.stderr, "chantal: "+oneLine(f.Error()))
	return f.Exit
}

// interruption is the message of what ends because its user wants it to.
const interruption = "interrupted"

// exitOnly ends the process with a code after everything has been said.
type exitOnly struct{ code int }

func (e *exitOnly) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

// usage is the failure of a command line that makes no sense.
func usage(c *cli.Context, format string, args ...any) error {
	return &failure{
		Exit: 2, Message: fmt.Sprintf(format, args...),
		Next: fmt.Sprintf("see %s --help", cmpOr(c.Command.HelpName, "chantal")),
	}
}

// newEnvironment reads the global flags.
func newEnvironment(c *cli.Context, a app) (*environment, error) {
	env := &environment{
		stdout: a.stdout, stderr: a.stderr, getenv: a.getenv, open: a.open,
		json: c.Bool("json"), quiet: c.Bool("quiet"),
		server:     cmpOr(c.String("server"), a.getenv("CHANTAL_SERVER")),
		dataFlag:   c.String("data"),
		configFlag: c.String("config"),
	}
	if f, ok := a.stdout.(*os.File); ok && !env.json {
		env.color = term.IsTerminal(int(f.Fd())) && !c.Bool("no-color") && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	}
	level := slog.LevelWarn
	if c.Command.Name == "serve" {
		level = slog.LevelInfo
	}
	if name := c.String("log-level"); name != "" {
		if err := level.UnmarshalText([]byte(name)); err != nil {
			return nil, usage(c, "--log-level %q is not one of debug, info, warn, error", name)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch format := c.String("log-format"); format {
	case "", "text":
		env.log = slog.New(slog.NewTextHandler(a.stderr, options))
	case "json":
		env.log = slog.New(slog.NewJSONHandler(a.stderr, options))
	default:
		return nil, usage(c, "--log-format %q is neither text nor json", format)
	}
	return env, nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// load reads the configuration and finds the data directory.
func (env *environment) load() error {
	path, err := config.Find(env.configFlag, env.getenv)
	if err != nil {
		return &failure{Exit: 2, Message: err.Error(), Next: "correct the name, or write one with chantal init", Err: err}
	}
	if env.config, err = env.read(path); err != nil {
		return err
	}
	env.data, err = config.DataDir(env.dataFlag, env.getenv, os.Getuid(), env.config.Data)
	if err != nil {
		return &failure{Exit: 2, Message: err.Error(), Err: err}
	}
	return nil
}

// read reads one configuration file, "" for none; the error says how many
// mistakes it has and holds them as config.Errors.
func (env *environment) read(path string) (*config.Config, error) {
	if path == "" {
		return config.Default(), nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &failure{Exit: 2, Message: "reading the configuration: " + err.Error(), Next: "name another with --config", Err: err}
	}
	c, err := config.Parse(path, text, env.getenv)
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		return nil, &failure{
			Exit: 2, Message: fmt.Sprintf("%s in %s", count(len(mistakes), "mistake"), path),
			Next: "correct the lines above, then run chantal config check", Err: err,
		}
	}
	return c, err
}

// connected runs f with the backend for env.
func connected(f func(c *cli.Context, env *environment, b backend) error) func(*cli.Context, *environment) error {
	return func(c *cli.Context, env *environment) error {
		if err := env.load(); err != nil {
			return err
		}
		b, closer, err := connect(c.Context, env)
		if err != nil {
			return err
		}
		err = f(c, env, b)
		if closed := closer.Close(); err == nil {
			err = closed
		}
		return err
	}
}
