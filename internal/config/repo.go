package config

import (
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// newRepo returns a repository with the defaults of every type.
func newRepo() Repo {
	return Repo{Refresh: time.Minute, ListRefresh: 10 * time.Minute}
}

// repoDecoder reads one repository.
type repoDecoder struct {
	*decoder
	repo Repo
	keys fields // of the repository
	sync fields // of its sync

	syncKeys map[string]*token.Position // where those that are there stand
}

// types are what repositories may be.
func types() []string { return []string{Apt, RPM, PyPI, Generic} }

// table is every key of a repository. Those that mean nothing for its type are
// mistakes, as a keyring that is never asked would be taken for protection.
func (r *repoDecoder) table(where string) fields {
	repo := &r.repo
	upstream := many(r.decoder, &repo.Upstream, webURL(), "one base URL or several, tried in order")
	decode := upstream.decode
	upstream.decode = func(n ast.Node) {
		before := len(r.errs)
		if decode(n); len(repo.Upstream) == 0 && len(r.errs) == before {
			r.fail(position(n), "%s needs at least one upstream URL", where)
		}
	}
	r.keys = fields{
		"name":        one(r.decoder, &repo.Name, repoID().required(), "the first part of its mirror URLs").required(),
		"type":        one(r.decoder, &repo.Type, oneOf(types()...).required(), "apt, rpm, pypi, or generic: any tree of files").required(),
		"upstream":    upstream,
		"credentials": r.credentials(&repo.Credentials, where+".credentials"),
		"keyring":     one(r.decoder, &repo.Keyring, anyText(), "a file of OpenPGP public keys: a root that none of them signed is refused").only(Apt, RPM),
		"refresh":     one(r.decoder, &repo.Refresh, duration(), "how long a tree is served without asking upstream again"),
		"files":       many(r.decoder, &repo.Files, webURL(), "hosts, as URLs, that pages may link to beside the index's own; any public host by default").only(PyPI),

		"mirrorlist":   one(r.decoder, &repo.Mirrorlist, listURL().required(), "URL of a plain list of mirrors, which follow those of upstream").only(RPM),
		"metalink":     one(r.decoder, &repo.Metalink, listURL().required(), "URL of a metalink: its mirrors follow those of upstream, and only roots that it lists are taken").only(RPM),
		"list_refresh": one(r.decoder, &repo.ListRefresh, duration(), "how long a list of mirrors is used without asking for it again").only(RPM),
	}
	r.keys["sync"] = r.selection(where + ".sync")
	return r.keys
}

// selection is what chantal sync fetches.
func (r *repoDecoder) selection(where string) field {
	y := newSync()
	r.sync = r.syncTable(y)
	return field{
		says: "what chantal sync fetches; every key narrows it down", schema: r.sync.schema(),
		decode: func(n ast.Node) {
			r.repo.Sync = y
			r.syncKeys = r.mapping(n, where, r.sync)
		},
	}.only(Apt, RPM, PyPI)
}

func newSync() *Sync {
	y := &Sync{}
	y.Wheels, y.Sdists = true, true
	return y
}

func (r *repoDecoder) syncTable(y *Sync) fields {
	d := r.decoder
	return fields{
		"packages":     many(d, &y.Packages, glob(), "shell globs on the package name").only(Apt, RPM),
		"exclude":      many(d, &y.Exclude, glob(), "shell globs on the package name: these are left out"),
		"package_list": r.lists(&y.PackageLists),

		"architectures": many(d, &y.Architectures, anyText(), "amd64, x86_64; those that fit all are always held").only(Apt, RPM),

		"suites":     many(d, &y.Suites, anyText(), "suites, as sources name them: bookworm, bookworm-updates").only(Apt),
		"components": many(d, &y.Components, anyText(), "components: main, contrib").only(Apt),
		"languages":  many(d, &y.Languages, anyText(), "languages of translated descriptions, all or none; en by default").only(Apt),
		"sources":    one(d, &y.Sources, boolean(), "source packages, too").only(Apt),
		"udebs":      one(d, &y.Udebs, boolean(), "packages of the installer, too").only(Apt),
		"installer":  one(d, &y.Installer, boolean(), "images of the installer, too").only(Apt),
		"contents":   one(d, &y.Contents, boolean(), "lists of files per package, too").only(Apt),

		"newest":   one(d, &y.Newest, atLeastZero(), "so many versions of each package and architecture; 0 for all").only(RPM),
		"modules":  many(d, &y.Modules, glob(), "globs on NAME or NAME:STREAM of modules").only(RPM),
		"treeinfo": one(d, &y.Tree, boolean(), "what .treeinfo lists, too: images for installing").only(RPM),

		"projects":    many(d, &y.Projects, anyText(), "names or globs, each perhaps with versions (PEP 440): six, flask>=3").only(PyPI),
		"wheels":      one(d, &y.Wheels, boolean(), "wheels").only(PyPI),
		"sdists":      one(d, &y.Sdists, boolean(), "source distributions").only(PyPI),
		"prereleases": one(d, &y.Prereleases, boolean(), "pre-releases also of projects that have other releases").only(PyPI),
		"python":      many(d, &y.Python, glob(), "globs on the Python tags of wheels (PEP 425): cp311, py3").only(PyPI),
		"platforms":   many(d, &y.Platforms, glob(), "globs on the platform tags of wheels: any, manylinux*_x86_64").only(PyPI),

		"every":    one(d, &y.Every, duration(), "how often serve does it by itself; never by default"),
		"schedule": one(d, &y.Schedule, schedule(), "when serve does it by itself, in place of every: minute, hour, day of the month, month, day of the week"),
	}
}

// lists is a key with names of files, of which the place is kept.
func (r *repoDecoder) lists(into *[]ListFile) field {
	var paths []string
	for _, file := range *into {
		paths = append(paths, file.Path)
	}
	f := many(r.decoder, &paths, anyText(), "files with a name or glob on each line, beside packages or projects; relative to this file")
	decode := f.decode
	f.decode = func(n ast.Node) {
		decode(n)
		pos := position(n)
		for _, path := range paths {
			*into = append(*into, ListFile{Path: path, Line: pos.Line, Column: pos.Column})
		}
	}
	return f
}

// finish looks at the whole of what was read.
func (r *repoDecoder) finish(keys map[string]*token.Position) {
	repo := &r.repo
	if repo.Type != "" {
		r.fits(r.keys, keys)
		r.fits(r.sync, r.syncKeys)
	}
	if repo.Sync != nil && repo.Type != PyPI {
		repo.Sync.Wheels, repo.Sync.Sdists = false, false
	}
	if r.syncKeys["every"] != nil && r.syncKeys["schedule"] != nil {
		r.fail(r.syncKeys["schedule"], "a repository has one rhythm; remove %q or %q", "every", "schedule")
	}
	lists := keys["mirrorlist"] != nil || keys["metalink"] != nil
	if keys["mirrorlist"] != nil && keys["metalink"] != nil {
		later := keys["mirrorlist"]
		if keys["metalink"].Offset > later.Offset {
			later = keys["metalink"]
		}
		r.fail(later, "a repository has one list of mirrors; remove %q or %q", "mirrorlist", "metalink")
	}
	if !lists {
		repo.ListRefresh = 0
		if keys["list_refresh"] != nil && repo.Type == RPM {
			r.fail(keys["list_refresh"], "%q says nothing without %q or %q", "list_refresh", "mirrorlist", "metalink")
		}
	}
}

// fits reports keys that mean nothing for the repository's type.
func (r *repoDecoder) fits(f fields, keys map[string]*token.Position) {
	for key, pos := range keys {
		if !f[key].fits(r.repo.Type) {
			r.fail(pos, "%q is for type %s, not %s", key, strings.Join(f[key].types, " or "), r.repo.Type)
		}
	}
}

// schema completes the schema of a repository with what depends on more than
// one key.
func (r *repoDecoder) schema(s schema) schema {
	needs := func(key string) schema { return schema{"required": []string{key}} }
	s["anyOf"] = []any{needs("upstream"), needs("mirrorlist"), needs("metalink")}
	s["not"] = schema{"allOf": []any{needs("mirrorlist"), needs("metalink")}}
	s["dependentSchemas"] = schema{"list_refresh": schema{"anyOf": []any{needs("mirrorlist"), needs("metalink")}}}
	s["properties"].(schema)["sync"].(schema)["dependentSchemas"] = schema{"every": schema{"not": needs("schedule")}}
	var byType []any
	for _, t := range types() {
		none := r.keys.unfit(t)
		if none["sync"] == nil {
			none["sync"] = schema{"properties": r.sync.unfit(t)}
		}
		byType = append(byType, schema{
			"if": schema{"properties": schema{"type": schema{"const": t}}}, "then": schema{"properties": none},
		})
	}
	s["allOf"] = byType
	return s
}
