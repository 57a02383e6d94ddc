package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"chantal/internal/config"
)

// refGrammar is REF[+signed][~RECORDING], where REF may be an instant with
// colons.
var refGrammar = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}(\+signed)?(~[A-Za-z0-9][A-Za-z0-9._-]{0,127})?$`)

// order is what a client command was asked to print.
type order struct {
	at    endpoint
	ref   string    // "" for live
	repos []repoRow // of the client's type; none where only proxy lines are wanted
	one   bool      // a repository was named

	editions map[string]bool // repositories whose roots were made here under the ref
}

// signed reports whether the ref asks for roots that are signed here.
func (o order) signed() bool {
	ref, _, _ := strings.Cut(o.ref, "~")
	return strings.HasSuffix(ref, "+signed")
}

// findEditions notes which repositories the ref has editions of; their suites
// are what these have.
func (o *order) findEditions(ctx context.Context, b backend) error {
	ref, _, _ := strings.Cut(o.ref, "~")
	ref = strings.TrimSuffix(ref, "+signed")
	if ref == "" {
		return nil
	}
	all, err := b.Snapshots(ctx)
	if err != nil {
		return err
	}
	o.editions = map[string]bool{}
	for _, s := range all {
		for _, held := range s.Repos {
			if s.Name != ref || !held.Edition {
				continue
			}
			o.editions[held.Repo] = true
			for i := range o.repos {
				if r := &o.repos[i]; r.Name == held.Repo && held.Suites != nil {
					r.Suites = held.Suites
				}
			}
		}
	}
	return nil
}

// clientKinds holds what client prints for.
var clientKinds = []struct {
	name, repoType  string
	mirror, proxied func(order) string
}{
	{"apt", config.Apt, aptSources, aptProxy},
	{"dnf", config.RPM, dnfMirror, dnfProxy},
	{"pip", config.PyPI, pipMirror, pipProxy},
	{"uv", config.PyPI, uvMirror, uvProxy},
}

func clientCommand(do func(action) cli.ActionFunc) *cli.Command {
	command := &cli.Command{Name: "client", Usage: "print the configuration for a client"}
	for _, kind := range clientKinds {
		sub := &cli.Command{
			Name:      kind.name,
			Usage:     "print the configuration for " + kind.name,
			ArgsUsage: "[REPO[@REF]]",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "proxy", Usage: "use Chantal as a proxy instead of a mirror"},
			},
		}
		if kind.name == "apt" {
			sub.Flags = append(sub.Flags, &cli.BoolFlag{Name: "snapshots", Usage: "lines for apt --snapshot REF"})
		}
		sub.Action = do(arguments(0, 1, "", func(c *cli.Context, env *environment) error {
			repo, ref, given := strings.Cut(c.Args().First(), "@")
			if given && !refGrammar.MatchString(ref) {
				return usage(c, "%q is no ref", ref)
			}
			show := kind.mirror
			switch {
			case c.Bool("proxy") && c.Bool("snapshots"):
				return usage(c, "--proxy and --snapshots do not go together")
			case c.Bool("proxy"):
				show = kind.proxied
			case c.Bool("snapshots"):
				show = aptSnapshots
			}
			if ref == "live" {
				ref = ""
			}
			o := order{ref: ref, one: repo != ""}
			if c.Bool("proxy") && repo == "" {
				return env.proxyLines(c.Context, o, show)
			}
			return connected(func(c *cli.Context, env *environment, b backend) error {
				var err error
				if o.repos, err = reposFor(c.Context, b, kind.repoType, repo); err != nil {
					return err
				}
				if err := o.findEditions(c.Context, b); err != nil {
					return err
				}
				o.at = env.address(c.Context, b)
				return env.lines(show(o))
			})(c, env)
		}))
		command.Subcommands = append(command.Subcommands, sub)
	}
	return command
}

// lines prints what a client needs.
func (env *environment) lines(text string) error {
	if env.json {
		return env.printJSON(map[string]string{"text": text})
	}
	return env.print(text)
}

// proxyLines prints lines that depend on the address alone, for which no data
// directory has to be there.
func (env *environment) proxyLines(ctx context.Context, o order, show func(order) string) error {
	if err := env.load(); err != nil {
		return err
	}
	running, err := connectRunning(ctx, env)
	if err != nil {
		return err
	}
	o.at = addressOf(env.config.Listen)
	if running != nil {
		defer running.Close()
		o.at = env.address(ctx, running)
	}
	return env.lines(show(o))
}

// reposFor returns the repositories of that type, or the one named.
func reposFor(ctx context.Context, b backend, repoType, name string) ([]repoRow, error) {
	all, err := b.Repos(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range all {
		names = append(names, r.Name)
		if r.Name == name && r.Type != repoType {
			return nil, &failure{Message: fmt.Sprintf("repository %q is of type %s, not %s", name, r.Type, repoType), Next: "use the client for that type"}
		}
	}
	repos := slices.DeleteFunc(slices.Clone(all), func(r repoRow) bool {
		return r.Type != repoType || (name != "" && r.Name != name)
	})
	switch {
	case len(repos) > 0:
		return repos, nil
	case name == "":
		return nil, &failure{
			Status: http.StatusNotFound, Message: "there is no repository of type " + repoType + " yet",
			Next: "configure one, or print the proxy lines with --proxy and let the client find it",
		}
	case len(names) == 0:
		return nil, &failure{Status: http.StatusNotFound, Message: fmt.Sprintf("no repository %q, nor any other yet", name), Next: "configure it"}
	}
	return nil, &failure{Status: http.StatusNotFound, Message: fmt.Sprintf("no repository %q", name), Next: nearest(name, names) + " See chantal list"}
}

// address returns where clients reach the server: --server, else where the
// running serve listens, else where the configuration says it will.
func (env *environment) address(ctx context.Context, b backend) endpoint {
	if u, err := url.Parse(env.server); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		return endpoint{u.Scheme, u.Host}
	}
	if server, err := b.Server(ctx); err == nil && server.Listen != "" {
		return addressOf(server.Listen)
	}
	return addressOf(env.config.Listen)
}
