package main

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// system is a machine whose clients are configured already.
type system struct {
	files   fs.FS               // from its root
	getenv  func(string) string // of whoever asks; nil for another machine's tree
	machine string              // as uname -m has it
}

// thisSystem is the machine itself, or the tree of another one below root.
func thisSystem(root string, getenv func(string) string) (*system, error) {
	s := &system{files: os.DirFS("/"), getenv: getenv}
	if root != "" {
		if info, err := os.Stat(root); err != nil || !info.IsDir() {
			return nil, &failure{Exit: 2, Message: "--root " + root + " is no folder", Next: "name the root of a file system", Err: err}
		}
		s.files, s.getenv = os.DirFS(root), nil
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, err
	}
	s.machine = unix.ByteSliceToString(name.Machine[:])
	return s, nil
}

// env returns a variable of whoever asks.
func (s *system) env(name string) string {
	if s.getenv == nil {
		return ""
	}
	return s.getenv(name)
}

// home is the folder of whoever asks, or of root where that is not known.
func (s *system) home() string { return cmpOr(s.env("HOME"), "/root") }

// read returns the content of the file with that absolute path; "" where there
// is none.
func (s *system) read(name string) (string, error) {
	text, err := fs.ReadFile(s.files, strings.TrimPrefix(path.Clean(name), "/"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return "", nil
	}
	return string(text), err
}

// glob returns the absolute paths that match a pattern, sorted.
func (s *system) glob(pattern string) []string {
	names, err := fs.Glob(s.files, strings.TrimPrefix(pattern, "/"))
	if err != nil {
		return nil // the patterns are ours
	}
	for i, name := range names {
		names[i] = "/" + name
	}
	slices.Sort(names)
	return names
}

// found is a repository that a client is configured for.
type found struct {
	name     string // wanted; another one where it is taken
	typ      string
	from     []string // files that speak of it
	upstream []string // without credentials
	list     string   // URL of a list of mirrors
	listKey  string   // metalink or mirrorlist
	keyrings []string // files; several where the system has several
	embedded string   // a key that stands in the source itself
	notes    []string // for people, each a line of comment
	sync     []selected
}

// selected is one key of a sync with its values.
type selected struct {
	key    string
	values []string
}

// found is everything that is configured on the system, and what of it cannot
// be taken over.
func (s *system) found() (all []*found, left []string, err error) {
	for _, look := range []func() ([]*found, []string, error){s.aptRepos, s.dnfRepos, s.indexes} {
		repos, rest, err := look()
		if err != nil {
			return nil, nil, err
		}
		all, left = append(all, repos...), append(left, rest...)
	}
	taken := map[string]bool{}
	for _, f := range all {
		f.name = freeRepoName(f, taken)
		taken[f.name] = true
	}
	return all, left, nil
}

// upstreamOf returns the form of a URL that a configuration has, without
// credentials; ok is false where Chantal cannot ask there. secret says that
// there were some.
func upstreamOf(raw string) (bare string, secret, ok bool) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Contains(raw, "$") || u.Fragment != "" {
		return "", false, false
	}
	secret = u.User != nil
	u.User = nil
	return u.String(), secret, true
}

// withoutSecrets is what of a URL may be shown, whatever it is.
func withoutSecrets(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "an address that is no URL"
	}
	if u.User != nil {
		u.User = url.User("xxxxx")
	}
	return u.String()
}

const secretNote = "the address has a user and password there: put them into a file named by egress.netrc, or into credentials:"

// plainNames are parts of paths that tell nothing of a repository.
var plainNames = regexp.MustCompile(`^(apt|deb|debs|rpm|rpms|repo|repos|linux|stable|main|os|simple|pypi-?simple|root|packages|el?[0-9.]*|[0-9.]+|x86_64|aarch64|amd64|arm64|.)$`)

// freeRepoName makes a name of what a repository is called by the system, or of
// its URL: the last part of its path that tells something, else the host's name
// with it.
func freeRepoName(f *found, taken map[string]bool) string {
	address := f.list
	if len(f.upstream) > 0 {
		address = f.upstream[0]
	}
	u, err := url.Parse(address)
	if err != nil {
		u = &url.URL{}
	}
	parts := strings.FieldsFunc(u.Path, func(r rune) bool { return r == '/' })
	candidates := []string{f.name}
	if f.name == "" && len(parts) > 0 && !plainNames.MatchString(repoWord(parts[len(parts)-1])) {
		candidates = append(candidates, parts[len(parts)-1])
	}
	candidates = append(candidates, strings.Join(append([]string{u.Hostname()}, parts...), "-"))
	for n := 2; ; n++ {
		for _, c := range candidates {
			if name := repoWord(c); name != "" && !taken[name] {
				return name
			}
		}
		candidates = []string{cmpOr(f.name, candidates[len(candidates)-1]) + "-" + number(n)}
	}
}

var notInNames = regexp.MustCompile(`[^a-z0-9._-]+`)

// repoWord is a text as the name of a repository; "" where nothing of it is
// left.
func repoWord(text string) string {
	return strings.Trim(notInNames.ReplaceAllString(strings.ToLower(text), "-"), "-._")
}

// addTo adds those of values that a list does not have yet.
func addTo(list []string, values ...string) []string {
	for _, v := range values {
		if v != "" && !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}
