package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"chantal/internal/testenv"
	"chantal/plugins/formattest"
)

// repository is what apt, rpm and PyPI upstreams have in common.
type repository interface {
	Publish() (testenv.Files, error)
}

// pool is a repository whose packages lie under paths of their own.
type pool interface {
	repository
	Add(testenv.Package) error
	Drop(p testenv.Package, purge bool)
	PoolPath(testenv.Package) string
}

// item is a package as scripts write it: NAME=VERSION, then any of
// ",size=BYTES", ",arch=A", ",depends=D", ",build=N", ",at=TIME" (when PyPI
// received it).
type item struct {
	testenv.Package
	at time.Time
}

func parseItem(s string) (item, error) {
	fields := strings.Split(s, ",")
	name, version, ok := strings.Cut(fields[0], "=")
	if !ok {
		return item{}, fmt.Errorf("%q is not NAME=VERSION", s)
	}
	it := item{testenv.Package{Name: name, Version: version, Size: 5000}, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, f := range fields[1:] {
		var err error
		switch k, v, _ := strings.Cut(f, "="); k {
		case "size":
			it.Size, err = strconv.Atoi(v)
		case "build":
			it.Build, err = strconv.Atoi(v)
		case "arch":
			it.Arch = v
		case "depends":
			it.Depends = v
		case "at":
			it.at, err = time.Parse(time.RFC3339, v)
		default:
			err = fmt.Errorf("no property %q", k)
		}
		if err != nil {
			return item{}, fmt.Errorf("package %q: %w", s, err)
		}
	}
	return it, nil
}

// upstream makes and changes the archives:
//
//	start                              an empty server; sets $UPSTREAM
//	apt NAME OPTION… PACKAGE…          suite=S component=C by-hash flat no-release no-inrelease sha512 expired
//	rpm NAME OPTION… PACKAGE…          simple
//	pypi NAME OPTION… PACKAGE…         html other-host
//	publish NAME PACKAGE…              adds packages, publishes
//	stage NAME PACKAGE…                the same, for the fault flip
//	delete NAME PACKAGE…               unlists them and removes their files, publishes
//	yank NAME PACKAGE…                 (PyPI) publishes
//	sign NAME KEY|none                 publishes with another key, or without any
//	hostile NAME FILE                  (apt) adds the file's text to Packages, publishes
//	bomb NAME gz|zst|xz                (apt) publishes with a bomb for an index
//	copy NAME PREFIX                   publishes it there too, as it is now and stays
//	metalink PATH NAME URL…            (rpm) puts a list of mirrors there, which names the present repomd.xml
//	mirrorlist PATH URL…               the same without naming anything
//	folder NAME DIR                    publishes what lies in a folder, as createrepo_c left it
//	put PATH TEXT|@FILE, remove PATH   changes one file and nothing that speaks of it
//	save PATH FILE                     what is served there
//	fail FAULT PREFIX [TIMES], heal, release
//	down, up                           closes the port; opens it again
//	count PATH N                       so many requests came for it; forget starts anew
func upstream(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	if len(args) == 0 || neg {
		ts.Fatalf("usage: upstream VERB …")
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "start":
		var err error
		w.server, err = testenv.NewServer()
		ts.Check(err)
		w.set(ts, "UPSTREAM", w.server.URL())
		w.set(ts, "UPSTREAM_PORT", w.server.URL()[strings.LastIndex(w.server.URL(), ":")+1:])
	case "apt", "rpm", "pypi":
		ts.Check(w.create(ts, verb, args[0], args[1:]))
	case "publish", "stage", "delete", "yank", "sign", "hostile", "bomb":
		ts.Check(w.change(ts, verb, args[0], args[1:]))
	case "copy", "metalink", "mirrorlist":
		ts.Check(w.list(verb, args))
	default:
		ts.Check(w.control(ts, verb, args))
	}
}

// create makes a repository and publishes it under /NAME/.
func (w *world) create(ts *testscript.TestScript, kind, name string, args []string) error {
	options := map[string]string{}
	var items []string
	for _, a := range args {
		switch k, v, _ := strings.Cut(a, "="); k {
		case "suite", "component":
			options[k] = v
		case "by-hash", "flat", "no-release", "no-inrelease", "sha512", "expired", "simple", "html", "other-host":
			options[k] = "yes"
		default:
			items = append(items, a)
		}
	}
	has := func(o string) bool { return options[o] != "" }
	switch kind {
	case "apt":
		a := testenv.NewAPT(w.keys["archive"], time.Now(), "bookworm")
		if has("suite") {
			a.Suites = strings.Split(options["suite"], "+")
		}
		if has("component") {
			a.Components = strings.Split(options["component"], "+")
		}
		if has("flat") {
			a.Suites = nil
		}
		a.ByHash, a.SHA512 = has("by-hash"), has("sha512")
		if has("expired") {
			a.ValidFor = time.Minute // of an hour ago
		}
		a.ReleaseGPG, a.NoInline = !has("no-release"), has("no-inrelease")
		w.repos[name] = a
	case "rpm":
		r := testenv.NewRPM(w.keys["archive"], time.Now())
		r.Simple = has("simple")
		w.repos[name] = r
	case "pypi":
		i := testenv.NewPyPI(time.Now())
		i.HTMLOnly = has("html")
		if has("other-host") {
			var err error
			if w.files, err = testenv.NewServer(); err != nil {
				return err
			}
			w.set(ts, "FILES", w.files.URL())
			i.Host = w.files.URL() + "/files"
		}
		w.repos[name] = i
	}
	return w.change(ts, "publish", name, items)
}

// change does verb to the repository and publishes it.
func (w *world) change(ts *testscript.TestScript, verb, name string, args []string) error {
	repo := w.repos[name]
	switch verb {
	case "sign":
		if err := w.sign(repo, args[0]); err != nil {
			return err
		}
	case "hostile":
		repo.(*testenv.APT).Stanzas = ts.ReadFile(args[0])
	case "bomb":
		index, err := bomb(args[0])
		if err != nil {
			return err
		}
		repo.(*testenv.APT).Index = index
	default:
		for _, a := range args {
			it, err := parseItem(a)
			if err != nil {
				return err
			}
			if err := apply(repo, verb, it); err != nil {
				return err
			}
		}
	}
	files, err := repo.Publish()
	if err != nil {
		return err
	}
	w.note(name, files)
	if verb == "stage" {
		w.server.Stage(name, files)
		return nil
	}
	w.server.Publish(name, files)
	if index, ok := repo.(*testenv.PyPI); ok && index.Host != "" {
		w.files.Publish("", files)
	}
	return nil
}

func apply(repo repository, verb string, it item) error {
	switch r := repo.(type) {
	case pool:
		if verb == "delete" {
			r.Drop(it.Package, true)
			return nil
		}
		return r.Add(it.Package)
	case *testenv.PyPI:
		switch verb {
		case "delete":
			r.Drop(it.Package)
			return nil
		case "yank":
			r.Yank(it.Package, "broken")
			return nil
		}
		return r.Add(it.Package, it.at)
	}
	return fmt.Errorf("%s: not for a %T", verb, repo)
}

func (w *world) sign(repo repository, name string) error {
	key := w.keys[name]
	if key == nil && name != "none" {
		return fmt.Errorf("no key %q", name)
	}
	switch r := repo.(type) {
	case *testenv.APT:
		r.Key = key
	case *testenv.RPM:
		r.Key = key
	}
	return nil
}

// bomb returns what stands in place of an index, by path below the suite.
func bomb(kind string) (map[string][]byte, error) {
	const size = 8 << 30 // more than any index may unpack to
	index := "main/binary-amd64/Packages."
	switch kind {
	case "gz":
		return map[string][]byte{index + kind: formattest.GzipBomb(size)}, nil
	case "zst":
		return map[string][]byte{index + kind: formattest.ZstdBomb(size)}, nil
	case "xz":
		return map[string][]byte{index + kind: formattest.XZBomb()}, nil
	}
	return nil, fmt.Errorf("no bomb %q", kind)
}

// control does what concerns the server and no repository.
func (w *world) control(ts *testscript.TestScript, verb string, args []string) error {
	s := w.server
	switch verb {
	case "put":
		text := args[1]
		if file, ok := strings.CutPrefix(text, "@"); ok {
			text = ts.ReadFile(file)
		}
		s.Put(args[0], testenv.File{Content: []byte(text), Modified: time.Now()})
	case "folder":
		return publishFolder(s, args[0], ts.MkAbs(args[1]))
	case "remove":
		s.Put(args[0], testenv.File{})
		if w.files != nil {
			w.files.Put(args[0], testenv.File{})
		}
	case "save":
		f, ok := s.File(args[0])
		if !ok {
			return fmt.Errorf("upstream has no %s; it has %s", args[0], strings.Join(s.Paths(), " "))
		}
		at := ts.MkAbs(args[1])
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		return os.WriteFile(at, f.Content, 0o644)
	case "fail":
		kind, err := testenv.ParseFault(args[0])
		if err != nil {
			return err
		}
		times := -1
		if len(args) > 2 {
			if times, err = strconv.Atoi(args[2]); err != nil {
				return err
			}
		}
		s.Fail(kind, args[1], times)
	case "heal":
		s.Heal()
	case "release":
		s.Release()
	case "down":
		s.Down()
		if w.files != nil {
			w.files.Down()
		}
	case "up":
		if w.files != nil {
			if err := w.files.Up(); err != nil {
				return err
			}
		}
		return s.Up()
	case "forget":
		s.Forget()
	case "count":
		if got := strconv.Itoa(s.Count(args[0])); got != args[1] {
			return fmt.Errorf("upstream got %s requests for %s, want %s", got, args[0], args[1])
		}
	default:
		return fmt.Errorf("upstream cannot %q", verb)
	}
	return nil
}

// publishFolder publishes the files below dir under /NAME/.
func publishFolder(s *testenv.Server, name, dir string) error {
	files := testenv.Files{}
	err := filepath.WalkDir(dir, func(at string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		path, err := filepath.Rel(dir, at)
		files[filepath.ToSlash(path)] = testenv.File{Content: content, Modified: info.ModTime()}
		return err
	})
	if err == nil {
		s.Publish(name, files)
	}
	return err
}
