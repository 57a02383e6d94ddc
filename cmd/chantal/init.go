package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"
)

// commented is the configuration that init writes: every setting with its
// default, what has none as a comment.
const commented = `# Configuration of Chantal. Every setting is optional; the values here are the
# defaults. ${VAR} and ${VAR:-default} take values from the environment.
# "chantal config check" finds mistakes, "chantal config show" prints what holds.

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
  # bandwidth: 50MiB/s           # all downloads together; no limit by default

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
#   - name: epel
#     type: rpm
#     upstream: https://mirror.example.org/epel/9/Everything/x86_64/
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
		},
		Action: do(noArguments(initialize)),
	}
}

func initialize(c *cli.Context, env *environment) error {
	path := c.String("output")
	if path == "-" {
		if env.json {
			return usage(c, "--json and -o - do not go together")
		}
		return env.print(commented)
	}
	// O_EXCL: what is there may be somebody's only copy.
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &failure{Message: path + " is already there", Next: "name another file with -o, or remove it", Err: err}
	}
	if err == nil {
		_, err = file.WriteString(commented)
		if closed := file.Close(); err == nil {
			err = closed
		}
	}
	if err != nil {
		return &failure{Message: "writing the configuration: " + err.Error(), Next: "name another file with -o", Err: err}
	}
	if env.json {
		return env.printJSON(map[string]string{"file": path})
	}
	env.hint("wrote %s; change it, then run chantal config check", path)
	return nil
}
