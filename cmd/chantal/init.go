package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// commented is the configuration that init writes: every setting with its
// default, what has none as a comment.
const commented = `# Configuration of Chantal. Every setting is optional; the values here are the
# defaults. ${VAR} and ${VAR:-default} take values from the environment.
# "chantal config check" finds mistakes, "chantal config show" prints what holds,
# "chantal config schema" tells editors what may stand here.

listen: 127.0.0.1:8180           # mirror URLs, forward proxy and /-/ on one address

# listeners:                     # further addresses, each bound to a ref
#   - {address: 127.0.0.1:8181, ref: prod}

# data: /var/lib/chantal         # where everything is kept

clients:                         # who may use the proxy
  - 127.0.0.0/8
  - ::1
  - 10.0.0.0/8
  - 172.16.0.0/12
  - 192.168.0.0/16
  - 169.254.0.0/16
  - fc00::/7
  - fe80::/10

history: 30d                     # how long observed generations stay reachable as instants

# cache: {max_size: 200GiB}      # evict artifacts that nothing pins beyond this size; no limit by default

forward:
  discover: true                 # recognise repositories on hosts that are not configured
  other: deny                    # plain requests that belong to no repository: deny | pass
  connect: tunnel                # CONNECT to public hosts on port 443: tunnel | deny
  intercept: off                 # off | configured: answer CONNECT for hosts of configured repositories with the own CA
  require_ref: false             # true: 407 to anonymous proxy requests

egress:
  allow_private: []              # private upstreams that clients may name, such as 10.1.0.0/16
  offline: false                 # true: answer from the store only
  # proxy: http://proxy.example.org:3128   # the way out; HTTP_PROXY and HTTPS_PROXY of the environment by default
  # no_proxy: [.example.net]     # hosts that it is not asked for; $NO_PROXY by default
  # netrc: /etc/chantal/netrc    # credentials of the upstreams below; $NETRC by default

download:
  parallel: 8
  per_host: 4
  retries: 5
  timeout: 30s
  # bandwidth: 50MiB/s           # all downloads together; or a list: [{from: "08:00", to: "18:00", rate: 10MiB/s}]

gc: {every: 24h}            # free what neither live nor history nor a snapshot needs; 0s for only by chantal gc
scrub: {every: 30d, bandwidth: 10MiB/s}   # read the whole store again in the background; every: 0s for never

# repos:
#   - name: debian
#     type: apt                  # apt | rpm | pypi | generic
#     upstream:                  # tried in order
#       - http://mirror-a.example.org/debian
#       - http://mirror-b.example.org/debian
#     keyring: /usr/share/keyrings/debian-archive-keyring.gpg   # refuse roots that it did not sign
#     refresh: 1m                # how long a tree is served without asking upstream again
#     credentials: {username: me, password: "${PASSWORD:-}"}    # or {token: …}; sent to these upstreams only
#     sync: {suites: [bookworm], components: [main], architectures: [amd64], every: 6h}   # what chantal sync fetches
#   - name: epel
#     type: rpm
#     upstream: https://mirror.example.org/epel/9/Everything/x86_64/
#     sync: {packages: ["htop"], newest: 1, schedule: "15 3 * * *"}
#   - name: pypi
#     type: pypi
#     upstream: https://index.example.org/simple/
#     files: [https://files.example.org]   # hosts that pages may link to; any public host by default
`

func initCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "write a commented configuration",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "chantal.yaml", Usage: "write `FILE`, - for standard output"},
			&cli.BoolFlag{Name: "from-system", Usage: "with the repositories that apt, dnf, pip and uv are configured for here"},
			&cli.StringFlag{Name: "root", Usage: "with --from-system: read the file system below `DIR`, that of an image or another machine"},
		},
		Action: do(noArguments(initialize)),
	}
}

func initialize(c *cli.Context, env *environment) error {
	target := c.String("output")
	if target == "-" && env.json {
		return usage(c, "--json and -o - do not go together")
	}
	if c.IsSet("root") && !c.Bool("from-system") {
		return usage(c, "--root says nothing without --from-system")
	}
	written := written{File: target}
	text, keys := commented, []keyFile(nil)
	if c.Bool("from-system") {
		s, err := thisSystem(c.String("root"), env.getenv)
		if err != nil {
			return err
		}
		all, left, err := s.found()
		if err != nil {
			return &failure{Message: "reading what the clients are configured for: " + err.Error(), Next: "run this as a user who may read it", Err: err}
		}
		if len(all) == 0 {
			return &failure{
				Message: "nothing is configured here for apt, dnf, pip or uv that could be asked over http",
				Next:    "chantal init without --from-system writes a configuration to fill in",
			}
		}
		if target != "-" {
			if keys, err = keyFiles(all, target); err != nil {
				return err
			}
		}
		text = strings.Replace(commented, exampleRepos(), reposOf(all, left), 1)
		written.Repos = len(all)
	}
	if target == "-" {
		return env.print(text)
	}
	for _, key := range keys {
		if err := create(key.path, key.text); err != nil {
			return err
		}
		written.Keys = append(written.Keys, key.path)
	}
	if err := create(target, text); err != nil {
		return err
	}
	if env.json {
		return env.printJSON(written)
	}
	if written.Repos > 0 {
		env.hint("wrote %s with %s; look at its comments, then run chantal config check", target, repositories(written.Repos))
		return nil
	}
	env.hint("wrote %s; change it, then run chantal config check", target)
	return nil
}

// written is what init --json prints.
type written struct {
	File  string   `json:"file"`
	Repos int      `json:"repos,omitempty"` // that the system is configured for
	Keys  []string `json:"keys,omitempty"`  // files written beside it
}

// create writes a file that is not there yet: what is there may be somebody's
// only copy.
func create(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &failure{Message: path + " is already there", Next: "name another file with -o, or remove it", Err: err}
	}
	if err == nil {
		_, err = file.WriteString(text)
		if closed := file.Close(); err == nil {
			err = closed
		}
	}
	if err != nil {
		return &failure{Message: "writing the configuration: " + err.Error(), Next: "name another file with -o", Err: err}
	}
	return nil
}

// exampleRepos is the part of commented that shows repositories.
func exampleRepos() string { return commented[strings.Index(commented, "# repos:\n"):] }

// keyFile is a key that stood in a source, and where it is to be.
type keyFile struct{ path, text string }

// keyFiles gives keys that stand in sources a file beside the configuration.
// None of the files may be there.
func keyFiles(all []*found, target string) (keys []keyFile, err error) {
	if _, err := os.Lstat(target); err == nil {
		return nil, &failure{Message: target + " is already there", Next: "name another file with -o, or remove it"}
	}
	for _, f := range all {
		if f.embedded == "" {
			continue
		}
		name, err := filepath.Abs(filepath.Join(filepath.Dir(target), f.name+".asc"))
		if err != nil {
			return nil, fmt.Errorf("naming the key of %s: %w", f.name, err)
		}
		if _, err := os.Lstat(name); err == nil {
			return nil, &failure{Message: name + " is already there, where a key is to be", Next: "remove it, or name a file in another folder with -o"}
		}
		f.keyrings = addTo(f.keyrings, name)
		keys = append(keys, keyFile{name, f.embedded})
	}
	return keys, nil
}

// reposOf writes repositories as a part of a configuration; left are what could
// not be taken over.
func reposOf(all []*found, left []string) string {
	var b strings.Builder
	b.WriteString("# What this system was configured for. chantal sync fetches in advance what sync: selects;\n" +
		"# without it files are fetched as clients ask for them.\nrepos:\n")
	for _, f := range all {
		f.write(&b)
	}
	for i, why := range left {
		if i == 0 {
			b.WriteString("\n# Left out:\n")
		}
		b.WriteString("#   " + printable(why) + "\n")
	}
	return b.String()
}

func (f *found) write(b *strings.Builder) {
	fmt.Fprintf(b, "  # %s\n  - name: %s\n    type: %s\n", printable(strings.Join(f.from, ", ")), f.name, f.typ)
	switch len(f.upstream) {
	case 0:
	case 1:
		fmt.Fprintf(b, "    upstream: %s\n", quoted(f.upstream[0]))
	default:
		b.WriteString("    upstream:\n")
		for _, u := range f.upstream {
			fmt.Fprintf(b, "      - %s\n", quoted(u))
		}
	}
	if f.list != "" {
		fmt.Fprintf(b, "    %s: %s\n", f.listKey, quoted(f.list))
	}
	switch {
	case len(f.keyrings) == 1:
		fmt.Fprintf(b, "    keyring: %s\n", quoted(f.keyrings[0]))
	case len(f.keyrings) > 1:
		fmt.Fprintf(b, "    # keyring: put the keys of these into one file: %s\n", printable(strings.Join(f.keyrings, ", ")))
	case f.embedded != "":
		b.WriteString("    # keyring: its key stands in the source; with -o FILE it is written beside FILE\n")
	}
	for _, note := range f.notes {
		fmt.Fprintf(b, "    # %s\n", printable(note))
	}
	if len(f.sync) == 0 {
		return
	}
	b.WriteString("    # sync:\n")
	for _, s := range f.sync {
		value := "[" + strings.Join(quotedAll(s.values), ", ") + "]"
		if len(s.values) == 1 && (s.key == "sources" || s.key == "newest" || s.key == "package_list") {
			value = s.values[0]
		}
		fmt.Fprintf(b, "    #   %s: %s\n", s.key, value)
	}
}

// plainText needs no quotes in YAML, wherever it stands.
var plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9._/-]*$`)

// quoted is a text as YAML has it.
func quoted(text string) string {
	if plainText.MatchString(text) && !slices.Contains([]string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}, strings.ToLower(text)) {
		return text
	}
	return strconv.Quote(text)
}

func quotedAll(texts []string) []string {
	list := make([]string, len(texts))
	for i, text := range texts {
		list[i] = quoted(text)
	}
	return list
}
