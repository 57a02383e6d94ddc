// Package pypi knows the simple repository API of Python package indexes
// (PEP 503, 592, 629, 658/714, 691, 700, 740, 792): which paths are project
// pages and files, what a page promises, how an upstream's HTML becomes the
// JSON that is kept, and how both representations are made of it.
//
// A repository has the paths "simple/" (the list of projects), "simple/NAME/"
// (a project's page, NAME normalised) and, for files, which may live on any
// host, "+files/HOST/PATH". The upstream URL of a repository is the index
// itself, so "simple/" is not part of what is asked there (see Prefix).
//
// The kept form of every page is JSON with absolute file URLs. The package
// must know neither network nor disk nor clock.
package pypi

import (
	"fmt"
	"io"
	"iter"
	"path"
	"strings"
	"time"

	"chantal"
)

// list is the path of the list of projects, and what all pages begin with.
const list = "simple/"

// files is what the paths of all files begin with. The plus sign keeps it
// apart from every project name.
const files = "+files/"

// Format is the chantal.Format of Python package indexes; it is also a Locator,
// an Ingester, a Renderer and a Publisher. Its zero value is ready for use, by
// any number of goroutines.
type Format struct{}

// Prefix returns "simple/": the upstream URL is the index itself.
func (Format) Prefix() string { return list }

// Accept returns what upstream is asked for: JSON, and HTML from the indexes
// that have nothing else.
func (Format) Accept() string {
	return "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
}

// Limit returns 256 MiB for the list of projects and 64 MiB for their pages.
func (Format) Limit(path string) int64 {
	if path == list {
		return 256 << 20
	}
	return 64 << 20
}

// Classify implements chantal.Format. Pages are roots, under any spelling of
// the project's name, with and without the final slash, and with or without
// "simple/"; the canonical path has the normalised name and the slash. The
// files behind links that Render makes are
//
//	+files/sha256/HEX/HOST/PATH           Artifact at +files/HOST/PATH with that Digest
//	+files/-/HOST/PATH                    the same without Digest
//	+files/sha256/HEX/HOST/PATH.metadata  Meta; the canonical path keeps HEX
//	+files/…/PATH.asc                     Meta at +files/HOST/PATH.asc
//	+files/HOST/…/FILE/provenance         Meta (PEP 740)
//
// HEX is the wheel's digest, also in the path of its .metadata sibling, since
// clients append the suffix to the wheel's link. It is no Digest of the
// sibling; it stays in the sibling's path, and Parse promises that very path,
// so that a sibling too is found only together with the right wheel.
func (Format) Classify(path string) chantal.Class {
	if rest, ok := strings.CutPrefix(path, files); ok {
		return classifyFile(path, rest)
	}
	if path == "" || path == "simple" || path == list {
		return rootClass("")
	}
	name, below := strings.CutPrefix(path, list)
	name, slash := strings.CutSuffix(name, "/")
	if (below || slash) && validName(name) && (slash || !isDistribution(name)) {
		return rootClass(Normalize(name))
	}
	if name := path[strings.LastIndexByte(path, '/')+1:]; isDistribution(name) {
		return chantal.Class{Kind: chantal.Artifact, Path: path, Trees: treesOf(name)}
	}
	return chantal.Class{Kind: chantal.Opaque, Path: path}
}

// rootClass is the class of a project's page, or with "" of the list.
func rootClass(project string) chantal.Class {
	path := pagePath(project)
	t := chantal.Tree{Name: strings.TrimSuffix(path, "/"), Roots: []string{path}}
	return chantal.Class{Kind: chantal.Root, Path: path, Tree: t, Trees: []string{t.Name}}
}

// pagePath is the path of a project's page, or with "" of the list.
func pagePath(project string) string {
	if project == "" {
		return list
	}
	return list + project + "/"
}

// pageProject is the inverse of pagePath; ok is false for other paths.
func pageProject(path string) (project string, ok bool) {
	if path == list {
		return "", true
	}
	name, below := strings.CutPrefix(path, list)
	name, slash := strings.CutSuffix(name, "/")
	return name, below && slash && validName(name) && Normalize(name) == name
}

func classifyFile(whole, rest string) chantal.Class {
	var digest chantal.Digest
	if named, ok := strings.CutPrefix(rest, "sha256/"); ok {
		hex, file, _ := strings.Cut(named, "/")
		d, err := chantal.NewDigest("sha256", hex)
		if err != nil {
			return chantal.Class{Kind: chantal.Opaque, Path: whole}
		}
		digest, rest = d, file
	} else if unnamed, ok := strings.CutPrefix(rest, "-/"); ok {
		rest = unnamed
	}
	host, file, _ := strings.Cut(rest, "/")
	host, ok := canonicalHost(host)
	if file = squeeze(file); !ok || checkPath(file) != nil {
		return chantal.Class{Kind: chantal.Opaque, Path: whole}
	}
	c := chantal.Class{Kind: chantal.Artifact, Path: files + host + "/" + file, Digest: digest}
	name := file[strings.LastIndexByte(file, '/')+1:]
	if of, ok := strings.CutSuffix(name, metadataSuffix); ok {
		c.Kind, c.Digest, name = chantal.Meta, "", of
		if digest != "" {
			c.Path = siblingPath(digest, host, file)
		}
	} else if of, ok := strings.CutSuffix(name, signatureSuffix); ok {
		c.Kind, c.Digest, name = chantal.Meta, "", of
	} else if dir, last := path.Split(file); last == provenance && isDistribution(path.Base(dir)) {
		c.Kind, c.Digest, name = chantal.Meta, "", path.Base(dir)
	}
	c.Trees = treesOf(name)
	return c
}

// siblingPath is the canonical path of a .metadata sibling whose link names
// the digest of the wheel.
func siblingPath(wheel chantal.Digest, host, file string) string {
	return files + "sha256/" + wheel.Hex() + "/" + host + "/" + file
}

// treesOf returns the trees that may promise a file of that name; nil if the
// name says nothing.
func treesOf(filename string) []string {
	var trees []string
	for _, project := range ProjectOf(filename) {
		trees = append(trees, list+project)
	}
	return trees
}

// Check implements chantal.Format: the root must be a page as Ingest keeps it,
// of the tree's project, with all its files usable. Indexes sign nothing, so
// keys are not looked at, and they tell no date.
func (Format) Check(t chantal.Tree, files map[string][]byte, _ chantal.Keyring, _ time.Time) (chantal.Verdict, error) {
	if len(t.Roots) == 0 {
		return chantal.Verdict{}, fmt.Errorf("check tree %q: it has no roots", t.Name)
	}
	root := t.Roots[0]
	body, ok := files[root]
	if !ok {
		return chantal.Verdict{}, fmt.Errorf("check tree %q: no %s", t.Name, root)
	}
	p, err := decodePage(root, body)
	if err != nil {
		return chantal.Verdict{}, fmt.Errorf("check %s: %w", root, err)
	}
	if err := p.check(); err != nil {
		return chantal.Verdict{}, fmt.Errorf("check %s: %w", root, err)
	}
	v := chantal.Verdict{Roots: []string{root}}
	for path := range files {
		if path != root {
			if v.Rejected == nil {
				v.Rejected = map[string]string{}
			}
			v.Rejected[path] = "not a root of this tree"
		}
	}
	return v, nil
}

// Parse implements chantal.Format for a project's page in the kept form. Each
// file yields one Artifact; a .metadata sibling yields one or two Meta
// promises with the same URL: at +files/HOST/PATH.metadata, and where the
// wheel has a sha256 also at the path that Classify gives for the link. A
// signature sibling yields a Meta promise without digests, and so does the
// provenance that a file names, as long as that has an https URL. A quarantined
// project promises nothing (PEP 792).
func (Format) Parse(path string, r io.Reader) iter.Seq2[chantal.Promise, error] {
	project, ok := pageProject(path)
	if !ok || project == "" {
		return nil
	}
	return func(yield func(chantal.Promise, error) bool) {
		body, err := io.ReadAll(r)
		if err != nil {
			yield(chantal.Promise{}, fmt.Errorf("read %s: %w", path, err))
			return
		}
		p, err := decodePage(path, body)
		if err != nil {
			yield(chantal.Promise{}, fmt.Errorf("parse %s: %w", path, err))
			return
		}
		for f, err := range p.offered() {
			if err != nil {
				yield(chantal.Promise{}, fmt.Errorf("parse %s: %w", path, err))
				return
			}
			for _, promise := range promises(project, f) {
				if !yield(promise, nil) {
					return
				}
			}
		}
	}
}

// promises returns what a page says of one file and its siblings.
func promises(project string, f *file) []chantal.Promise {
	at := f.link.host + "/" + f.link.path
	artifact := chantal.Promise{
		Path: files + at, URL: f.link.url, Kind: chantal.Artifact,
		Digests: f.digests, Size: f.size,
		Package: &chantal.Package{
			Name: project, Version: versionOf(f.name, project), Uploaded: f.uploaded,
		},
	}
	all := []chantal.Promise{artifact}
	sibling := func(path, suffix string, digests []chantal.Digest) {
		all = append(all, chantal.Promise{
			Path: path + suffix, URL: f.link.url + suffix, Kind: chantal.Meta,
			Digests: digests, Size: -1, Package: artifact.Package,
		})
	}
	if f.hasMetadata {
		sibling(artifact.Path, metadataSuffix, f.metadata)
		if wheel := artifact.SHA256(); wheel != "" {
			sibling(siblingPath(wheel, f.link.host, f.link.path), metadataSuffix, f.metadata)
		}
	}
	if f.signed {
		sibling(artifact.Path, signatureSuffix, nil)
	}
	if f.attested != nil {
		all = append(all, chantal.Promise{
			Path: files + f.attested.host + "/" + f.attested.path, URL: f.attested.url, Kind: chantal.Meta,
			Size: -1, Package: artifact.Package,
		})
	}
	return all
}

// Attestations implements chantal.Attester: the provenance of a file.
func (Format) Attestations(artifact *chantal.Promise, listed []chantal.Promise) []chantal.Promise {
	var found []chantal.Promise
	for i, p := range listed {
		if p.Kind != chantal.Artifact || p.URL != artifact.URL {
			continue
		}
		for _, q := range listed[i+1:] {
			if q.Kind == chantal.Artifact {
				break // what belongs to a file follows it
			}
			if strings.HasSuffix(q.Path, "/"+provenance) {
				found = append(found, q)
			}
		}
	}
	return found
}
