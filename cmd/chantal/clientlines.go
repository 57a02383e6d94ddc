package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
)

// endpoint is where clients reach Chantal.
type endpoint struct {
	scheme string
	host   string // with the port
}

// addressOf turns an address to listen on into one to connect to: an address
// that stands for all of the machine's becomes the machine's name.
func addressOf(listen string) endpoint {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return endpoint{"http", listen}
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "localhost"
		if name, err := os.Hostname(); err == nil && name != "" {
			host = name
		}
	}
	return endpoint{"http", net.JoinHostPort(host, port)}
}

// url returns the server's URL without a final slash, with ref as the proxy
// user where there is one. The password is there because pip sends nothing
// without one; colons are encoded because the user ends at the first.
func (e endpoint) url(ref string) string {
	if ref != "" {
		ref = strings.ReplaceAll(ref, ":", "%3A") + ":x@"
	}
	return e.scheme + "://" + ref + e.host
}

// name returns the host without the port.
func (e endpoint) name() string { return (&url.URL{Host: e.host}).Hostname() }

// mirror returns the URL of a repository under the order's ref, without a
// final slash.
func (o order) mirror(r repoRow) string {
	u := o.at.url("") + "/" + r.Name
	if o.ref != "" {
		u += "@" + o.ref
	}
	return u
}

// banner returns the lines that clients need to use the proxy that listens on
// the address, for people.
func banner(listen string) string {
	o := order{at: addressOf(listen)}
	u := o.at.url("")
	return fmt.Sprintf(`apt   echo 'Acquire::http::Proxy "%[1]s";' > /etc/apt/apt.conf.d/99chantal
dnf   echo 'proxy=%[1]s' >> /etc/dnf/dnf.conf
pip   pip config set global.proxy %[1]s
uv    export HTTP_PROXY=%[1]s HTTPS_PROXY=%[1]s
https is only passed through and not kept: for https sources and indexes see "chantal client apt|dnf|pip|uv" and forward.intercept
freeze what they fetch with "chantal snapshot create NAME"
`, u)
}

func aptProxy(o order) string {
	var b strings.Builder
	b.WriteString("// for /etc/apt/apt.conf.d/99chantal\n")
	b.WriteString("// apt silently ignores a root older than the one it has from the same URL: this moves a client only\n")
	b.WriteString("// forward. To go back, use a mirror URL with the ref in its path (chantal client apt REPO@REF), a ref\n")
	b.WriteString("// with +signed, or empty /var/lib/apt/lists first.\n")
	fmt.Fprintf(&b, "Acquire::http::Proxy \"%s\";\n", o.at.url(o.ref))
	return b.String()
}

// aptSources prints deb822 stanzas, one for each set of components.
func aptSources(o order) string {
	var b strings.Builder
	b.WriteString("# for /etc/apt/sources.list.d/chantal.sources\n")
	for _, r := range o.repos {
		stanzas := suites(r)
		if len(stanzas) == 0 {
			fmt.Fprintf(&b, "\n# No suite of %s was seen yet: complete these lines.\n", r.Name)
			fmt.Fprintf(&b, "# Types: deb\n# URIs: %s\n# Suites: SUITE\n# Components: main\n", o.mirror(r))
		}
		for _, s := range stanzas {
			fmt.Fprintf(&b, "\nTypes: deb\nURIs: %s\nSuites: %s\n", o.mirror(r), strings.Join(s.suites, " "))
			if s.components != "" {
				fmt.Fprintf(&b, "Components: %s\n", s.components)
			}
			b.WriteString(o.signedBy(r))
		}
	}
	return b.String()
}

// ownKey is where clients keep the key of this server.
const ownKey = "/etc/apt/keyrings/chantal.asc"

// signedBy returns the lines that name the keys of a repository's roots.
func (o order) signedBy(r repoRow) string {
	get := "# its key: curl -o " + ownKey + " " + o.at.url("") + "/-/key.asc\n"
	switch {
	case o.signed() && r.Keyring != "" && !o.editions[r.Name]: // the same source without +signed is the vendor's
		return get + "Signed-By: " + r.Keyring + " " + ownKey + "\n"
	case o.signed() || o.editions[r.Name]:
		return get + "Signed-By: " + ownKey + "\n"
	case r.Keyring != "":
		return "Signed-By: " + r.Keyring + "\n"
	}
	return "# Signed-By: the vendor's key; without it apt uses all keys it trusts\n"
}

// stanza is suites that have the same components.
type stanza struct {
	suites     []string
	components string // "" for flat repositories
}

func suites(r repoRow) (stanzas []stanza) {
	for _, s := range r.Suites {
		suite, found := strings.CutPrefix(s.Tree, "dists/")
		components := strings.Join(s.Components, " ")
		switch {
		case !found:
			// A flat repository's suite is its folder, and ends in a slash.
			suite, components = strings.TrimSuffix(s.Tree, "/")+"/", ""
		case components == "":
			components = "main"
		}
		at := slices.IndexFunc(stanzas, func(t stanza) bool { return t.components == components })
		if at < 0 {
			stanzas = append(stanzas, stanza{components: components})
			at = len(stanzas) - 1
		}
		stanzas[at].suites = append(stanzas[at].suites, suite)
	}
	return stanzas
}

// plainName is a name that apt.conf takes as part of a key.
var plainName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// aptSnapshots prints what lets apt --snapshot name any ref: by host at the
// first update, by Label or Origin once apt knows the Release.
func aptSnapshots(o order) string {
	var b strings.Builder
	b.WriteString("// for /etc/apt/apt.conf.d/99chantal-snapshots; apt 2.7 or newer. Add \"Snapshot: enable\" to the stanzas of the\n")
	b.WriteString("// sources, so that apt refuses a source that is not mapped here instead of taking its live state.\n")
	b.WriteString("#clear Acquire::Snapshots::URI::Origin;\n#clear Acquire::Snapshots::URI::Override;\n")
	set := func(key, name, template string) {
		if strings.ContainsAny(name, "\"\n\r") || name == "" {
			return
		}
		if plainName.MatchString(name) {
			fmt.Fprintf(&b, "Acquire::Snapshots::URI::%s::%s \"%s\";\n", key, name, template)
			return
		}
		fmt.Fprintf(&b, "Acquire::Snapshots::URI::%s { \"%s\" \"%s\"; };\n", key, name, template)
	}
	repos := map[string][]repoRow{} // by upstream host
	var hosts []string
	for _, r := range o.repos {
		for _, upstream := range r.Upstream {
			u, err := url.Parse(upstream)
			if err != nil || u.Hostname() == "" {
				continue
			}
			host := u.Hostname()
			if repos[host] == nil {
				hosts = append(hosts, host)
			}
			if !slices.ContainsFunc(repos[host], func(q repoRow) bool { return q.Name == r.Name }) {
				repos[host] = append(repos[host], r)
			}
		}
	}
	own := o.at.name()
	for _, host := range hosts {
		if host == own {
			continue
		}
		template := o.at.url("") + "/" + repos[host][0].Name + "@@SNAPSHOTID@/"
		if len(repos[host]) > 1 {
			template = o.at.url("") + "/-/at/@SNAPSHOTID@/" + host + "/@PATH@/"
		}
		fmt.Fprintf(&b, "Acquire::Snapshots::URI::Host::%s \"%s\";\n", host, template)
	}
	fmt.Fprintf(&b, "Acquire::Snapshots::URI::Host::%s \"%s/@PATH@@@SNAPSHOTID@/\";\n", own, o.at.url(""))
	overrides(o, set)
	return b.String()
}

// overrides calls set for every Label, or Origin where there is no Label, that
// belongs to one repository alone: several that share one are told apart by
// their hosts and paths.
func overrides(o order, set func(key, name, template string)) {
	type key struct{ kind, name string }
	owners := map[key][]string{}
	var keys []key
	for _, r := range o.repos {
		for _, s := range r.Suites {
			k := key{"Override::Label", s.Label}
			if s.Label == "" {
				k = key{"Override::Origin", s.Origin}
			}
			if owners[k] == nil {
				keys = append(keys, k)
			}
			if !slices.Contains(owners[k], r.Name) {
				owners[k] = append(owners[k], r.Name)
			}
		}
	}
	for _, k := range keys {
		if len(owners[k]) == 1 {
			set(k.kind, k.name, o.at.url("")+"/"+owners[k][0]+"@@SNAPSHOTID@/")
		}
	}
}

func dnfMirror(o order) string {
	var b strings.Builder
	b.WriteString("# for /etc/yum.repos.d/chantal.repo\n")
	for _, r := range o.repos {
		own := ""
		if o.editions[r.Name] {
			own = o.at.url("") + "/-/key.asc"
		}
		b.WriteString(dnfSection(r, "baseurl", o.mirror(r)+"/", own))
	}
	return b.String()
}

// dnfSection is the section of a repository. own is the URL of the key that its
// metadata is signed with, where that was made here; the packages are the
// vendor's.
func dnfSection(r repoRow, key, at, own string) string {
	section := fmt.Sprintf("\n[%s]\nname=%s\n%s=%s\nenabled=1\ngpgcheck=1\n", r.Name, r.Name, key, at)
	var keys []string
	if r.Keyring != "" {
		keys = append(keys, "file://"+r.Keyring)
	} else {
		section += "# gpgkey=the vendor's key, where it is not imported yet\n"
	}
	if own != "" {
		keys = append(keys, own)
		section += "repo_gpgcheck=1\n"
	}
	if len(keys) > 0 {
		section += "gpgkey=" + strings.Join(keys, " ") + "\n"
	}
	return section
}

// dnfProxy prints the lines for all repositories, or with one named its whole
// section. dnf sends the user at once only with all four of them.
func dnfProxy(o order) string {
	proxy := "proxy=" + o.at.url("") + "\n"
	if o.ref != "" {
		proxy += "proxy_username=" + o.ref + "\nproxy_password=x\nproxy_auth_method=basic\n"
	}
	if !o.one {
		return "# for /etc/dnf/dnf.conf\n[main]\n" + proxy
	}
	var b strings.Builder
	b.WriteString("# for /etc/yum.repos.d/chantal.repo\n")
	for _, r := range o.repos {
		key, at := "baseurl", ""
		switch {
		case r.List != "":
			key, at = r.ListForm, r.List
		case len(r.Upstream) > 0:
			at = r.Upstream[0]
		}
		b.WriteString(dnfSection(r, key, at, "") + proxy)
	}
	return b.String()
}

func pipMirror(o order) string {
	var b strings.Builder
	b.WriteString("# for pip.conf: /etc/pip.conf, ~/.config/pip/pip.conf or $VIRTUAL_ENV/pip.conf\n[global]\n")
	for i, r := range o.repos {
		key := "index-url = "
		if i > 0 {
			key = "extra-index-url = "
			if i > 1 {
				key = "    "
			}
		}
		b.WriteString(key + o.mirror(r) + "/simple/\n")
	}
	if o.at.scheme == "http" {
		b.WriteString("trusted-host = " + o.at.name() + "\n")
	}
	return b.String()
}

func pipProxy(o order) string {
	return "# for pip.conf: /etc/pip.conf, ~/.config/pip/pip.conf or $VIRTUAL_ENV/pip.conf\n" +
		"# An https index is remembered only with forward.intercept: then add cert = FILE with what chantal ca show prints.\n" +
		"[global]\nproxy = " + o.at.url(o.ref) + "\n"
}

func uvMirror(o order) string {
	var b strings.Builder
	b.WriteString("# for uv.toml: ~/.config/uv/uv.toml or beside pyproject.toml\n")
	for i, r := range o.repos {
		fmt.Fprintf(&b, "\n[[index]]\nurl = \"%s/simple/\"\n", o.mirror(r))
		if i == 0 {
			b.WriteString("default = true\n")
		}
	}
	return b.String()
}

func uvProxy(o order) string {
	u := o.at.url(o.ref)
	return "# for the shell; an https index is remembered only with forward.intercept: then also set SSL_CERT_FILE to a\n" +
		"# bundle with what chantal ca show prints.\n" +
		"export HTTP_PROXY=" + u + "\nexport HTTPS_PROXY=" + u + "\n"
}
