// Package arch holds the rules about who may import whom, and checks them.
//
// The rules are the architecture: formats know neither network nor disk, few
// packages know HTTP, fewer know the disk, and only the command knows
// everything. A package that the table does not list is a mistake too, so
// that each new one is placed on purpose.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// module is what our own import paths begin with; it is also the name of the
// package at the top, which the table calls ".".
const module = "chantal"

// everything, in the table, allows all of our packages.
const everything = "*"

// A layer says which of our packages one package may import. The nouns at the
// top are open to all.
type layer struct {
	imports []string
	why     string
}

// layers is the whole house: each package by its folder.
func layers() map[string]layer {
	const (
		pure    = "formats are pure functions of bytes: what they need is handed to them, so that each can be tested and fuzzed alone"
		base    = "the foundations know the nouns and not each other, so that each can be understood and replaced alone"
		onDisk  = "what is kept on disk is kept through one seam, so that a test can see and break every operation"
		mirror  = "the live image joins store, catalog and upstream and does not know how clients ask, nor any format by name"
		names   = "names are sets of generations: freezing one needs neither network nor HTTP, and completing one is handed in"
		doors   = "the doors find a View and serve it: how it is stored and fetched is not theirs to know"
		keep    = "gc and verify work on store and catalog alone, also while there is no server"
		wiring  = "the command wires by hand and may know everything; nothing may know the command"
		outside = "a test of the whole may know everything"
	)
	return map[string]layer{
		".":                      {nil, "the nouns know nothing but the standard library"},
		"plugins/apt":            {nil, pure},
		"plugins/rpm":            {nil, pure},
		"plugins/pypi":           {nil, pure},
		"plugins/formattest":     {nil, pure},
		"internal/disk":          {nil, base},
		"internal/disk/disktest": {[]string{"internal/disk"}, "what breaks the disk for tests knows the seam and nothing of what is kept"},
		"internal/cas":           {[]string{"internal/disk"}, onDisk},
		"internal/catalog":       {[]string{"internal/disk"}, onDisk},
		"internal/fetch":         {nil, base},
		"internal/config":        {nil, base},
		"internal/sign":          {nil, base},
		"internal/filter":        {nil, "an expression over packages needs to know what a package is and nothing else"},
		"internal/testenv":       {nil, base},
		"internal/arch":          {nil, base},
		"internal/plain":         {[]string{"internal/disk"}, "a folder of plain files is written through the seam to the disk, whatever the files are"},
		"internal/httpcache":     {[]string{"internal/cas", "internal/catalog", "internal/fetch"}, "HTTP's caching rules need a store and an upstream and know no repository"},
		"internal/keep":          {[]string{"internal/cas", "internal/catalog"}, keep},
		"mirror":                 {[]string{"internal/cas", "internal/catalog", "internal/fetch"}, mirror},
		"snapshot":               {[]string{"internal/cas", "internal/catalog"}, names},
		"proxy":                  {[]string{"mirror", "snapshot", "internal/httpcache"}, doors},
		"cmd/chantal":            {[]string{everything}, wiring},
		"e2e":                    {[]string{everything}, outside},
		"e2e/bench":              {[]string{everything}, outside},
	}
}

// inTests are what tests of any package may import beside: what was made for
// tests, and real formats, keys and a real store to try the others with.
func inTests() []string {
	return []string{
		"internal/testenv", "plugins/formattest", "plugins/apt", "plugins/rpm", "plugins/pypi", "internal/sign",
		"internal/cas", "internal/catalog", "internal/fetch", "internal/disk", "internal/disk/disktest",
	}
}

// A boundary says who alone may import something that is not ours, and what
// lies below it. Tests are free.
type boundary struct {
	path string
	only []string // folders, with those below them, or single files
	why  string
}

func boundaries() []boundary {
	return []boundary{
		{"github.com/urfave/cli", []string{"cmd/chantal"},
			"what a command line looks like is the command's business only"},
		{"github.com/vbauerster/mpb", []string{"cmd/chantal"},
			"the core tells what happens, and the terminal decides how that looks"},
		{"github.com/elazarl/goproxy", []string{"proxy/connect.go"},
			"goproxy's defaults tunnel everything and sign with a published key: one file sets every field of it"},
		{"cel.dev/cel-go", []string{"internal/filter"},
			"one package knows the language that filters are written in"},
		{"go.etcd.io/bbolt", []string{"internal/catalog"},
			"the catalog is the one place that knows how names and times are stored"},
		{"net/http", []string{"internal/fetch", "internal/httpcache", "internal/testenv", "proxy", "cmd/chantal", "e2e"},
			"only fetch, httpcache and proxy know HTTP; status codes are no way for the others to report errors"},
		{"os", []string{"internal/disk", "internal/config", "internal/sign", "internal/testenv", "cmd/chantal", "proxy/ca.go", "e2e"},
			"the store and the catalog reach the disk through internal/disk alone; beside them only settings, keys and the command itself know it"},
	}
}

// A seam says what code in some folders may use of a package that could reach
// the disk as well: only what cannot. Tests are free.
type seam struct {
	path  string
	names []string // what may be used of it
}

// seams are for the packages that keep state on disk. They may not import os at
// all, as the boundaries say.
func seams(folder string) []seam {
	if folder != "internal/cas" && folder != "internal/catalog" {
		return nil
	}
	return []seam{
		{"path/filepath", []string{"Base", "Clean", "Dir", "Ext", "FromSlash", "Join", "Rel", "Separator", "ToSlash"}},
		{"syscall", []string{"Stat_t", "Errno", "EDQUOT", "EIO", "ENOSPC", "EROFS"}},
		{"golang.org/x/sys/unix", nil},
		{"io/ioutil", nil},
	}
}

// checkSeams returns what a file uses to get around the seam to the disk.
func checkSeams(name string, file *ast.File) (broken []string) {
	if strings.HasSuffix(name, "_test.go") {
		return nil
	}
	for _, s := range seams(path.Dir(name)) {
		local := path.Base(s.path)
		for _, spec := range file.Imports {
			if strings.Trim(spec.Path.Value, "`\"") == s.path && spec.Name != nil {
				broken = append(broken, fmt.Sprintf("%s may not import %s under another name: what it uses of it is checked", name, s.path))
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == local && x.Obj == nil && !slices.Contains(s.names, sel.Sel.Name) {
				broken = append(broken, fmt.Sprintf("%s may not use %s.%s: the disk is reached through internal/disk alone, so that tests can see and break every operation",
					name, local, sel.Sel.Name))
			}
			return true
		})
	}
	return broken
}

// Check returns what in the module with the root fsys breaks the rules, one
// sentence each; none is what is wanted. The error is about reading the files.
func Check(fsys fs.FS) (broken []string, err error) {
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (base == "testdata" || base[0] == '.' || base[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		file, imports, err := parse(fsys, name)
		if err != nil {
			return err
		}
		broken = append(broken, checkFile(name, imports)...)
		broken = append(broken, checkSeams(name, file)...)
		return nil
	})
	return broken, err
}

// parse reads a file, and of most no more than its imports.
func parse(fsys fs.FS, name string) (*ast.File, []string, error) {
	source, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, nil, err
	}
	mode := parser.ImportsOnly
	if seams(path.Dir(name)) != nil {
		mode = 0
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, source, mode)
	if err != nil {
		return nil, nil, fmt.Errorf("reading imports: %w", err)
	}
	var imports []string
	for _, spec := range file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		imports = append(imports, p)
	}
	return file, imports, nil
}

// checkFile returns what is wrong with the imports of one file.
func checkFile(name string, imports []string) (broken []string) {
	folder := path.Dir(name)
	l, known := layers()[folder]
	if !known {
		return []string{fmt.Sprintf("%s: the package %s is not in the table of layers; decide what it may import and add it", name, folder)}
	}
	isTest := strings.HasSuffix(name, "_test.go")
	allowed := l.imports
	if isTest {
		allowed = append(slices.Clone(allowed), inTests()...)
	}
	for _, p := range imports {
		if ours, ok := strings.CutPrefix(p, module+"/"); ok {
			if ours != folder && !slices.Contains(allowed, ours) && !slices.Contains(allowed, everything) {
				broken = append(broken, fmt.Sprintf("%s may not import %s: %s", name, p, l.why))
			}
			continue
		}
		if isTest {
			continue
		}
		if first, _, _ := strings.Cut(p, "/"); folder == "." && strings.Contains(first, ".") {
			broken = append(broken, fmt.Sprintf("%s may not import %s: %s", name, p, l.why))
		}
		for _, b := range boundaries() {
			may := slices.ContainsFunc(b.only, func(place string) bool { return below(name, place) })
			if below(p, b.path) && !may {
				broken = append(broken, fmt.Sprintf("%s may not import %s: %s", name, p, b.why))
			}
		}
	}
	return broken
}

// below reports whether the import path p is base or lies below it.
func below(p, base string) bool { return p == base || strings.HasPrefix(p, base+"/") }
