package chantal

import (
	"io"
	"iter"
	"net/url"
	"time"
)

// The abilities in this file are optional: a Format has them or not, which is
// found out by type assertion.

type (
	// Locator recognises repositories in URLs that nobody configured.
	Locator interface {
		// Locate returns where a repository of this format could begin, given
		// one URL below it and the request's Accept header, in the order in
		// which to try them. Nothing is one before its Root has been checked.
		Locate(u *url.URL, accept string) []Location

		// Prefix is what repository paths begin with that the upstream URL
		// already contains: "simple/" for PyPI, whose upstream URL is the
		// index itself; "" for the others.
		Prefix() string
	}

	// Closer names what nobody may have asked for and is needed all the same.
	Closer interface {
		// Required returns those of listed (what the roots promise) without
		// which a new generation may not be served.
		Required(listed []Promise) []Promise
		// Closure returns those of listed that a frozen generation must hold.
		Closure(listed []Promise) []Promise
	}

	// Ingester asks upstream for roots in a certain representation and brings
	// every other one into the form that is kept.
	Ingester interface {
		Accept() string
		// Limit is the size in bytes beyond which a root at path is refused.
		Limit(path string) int64
		// Ingest returns the bytes to keep for upstream's answer: body, of
		// type contentType, found at pageURL after redirects.
		Ingest(path, pageURL, contentType string, body []byte) ([]byte, error)
	}

	// Renderer makes what clients get of a kept root.
	Renderer interface {
		// Represent chooses the representation: the media type that Render is
		// asked for. format is the request's "format" query parameter.
		Represent(accept, format string) (mediaType string, err error)
		// Render returns the page in that media type.
		Render(path string, root []byte, mediaType string, o Rendering) ([]byte, error)
	}
)

// Deriver is the optional ability of a Format, found by type assertion, to make
// files that upstream has beside a page, out of its database: of what the page
// says, so that they are of one state with it.
type Deriver interface {
	// Derived returns the path of the page that the file at path is made of; ""
	// where path is none of these files.
	Derived(path string) (page string)
	// Needs returns which of the page's files is read beside it; the zero
	// Promise for none. The error is a fs.ErrNotExist where the page says that
	// there is no file at path.
	Needs(path string, page []byte, before time.Time) (Promise, error)
	// Derive returns the file. needed is the content of what Needs returned; nil
	// where that is not to be had. The error may be a fs.ErrNotExist.
	Derive(path string, page, needed []byte, o Rendering) (body []byte, mediaType string, err error)
}

// Attester is the optional ability of a Format, found by type assertion, to
// tell what upstream attests of an artifact: files of which no digest is
// promised, since they may change.
type Attester interface {
	// Attestations returns those of listed that attest the artifact.
	Attestations(artifact *Promise, listed []Promise) []Promise
}

// MirrorLister is the optional ability of a Format, found by type assertion, to
// read and write lists of mirrors: files outside of a repository that say
// where its copies are, and perhaps which of their roots are right.
type MirrorLister interface {
	// Lists returns the root that lists lead to, relative to the repository,
	// and the forms that lists come in.
	Lists() (root string, forms []string)
	// NamesRoots reports whether lists of that form say which roots are right.
	NamesRoots(form string) bool
	// ListURL returns the one spelling of a list's URL, without what clients
	// add for themselves. likely says whether, going by its shape, u may be
	// the URL of a list at all; only the content tells whether it is.
	ListURL(u *url.URL) (canonical *url.URL, likely bool)
	// ParseList reads a list. The error says why body is none, or none that
	// leads anywhere.
	ParseList(body []byte) (MirrorList, error)
	// RenderList writes a list.
	RenderList(l MirrorList) (body []byte, mediaType string)
}

// MirrorList is what a list of mirrors says.
type MirrorList struct {
	Form  string       // one of its Format's
	Bases []string     // where the copies begin, the preferred first: http and https URLs that end in "/"
	Roots []ListedRoot // the states of the root that are right, the present one first; nil where the list does not say
}

// ListedRoot is what a list of mirrors says of one state of the root.
type ListedRoot struct {
	Digests []Digest // strongest first, at least one
	Size    int64    // in bytes; -1 where the list does not say
	Date    time.Time
}

// Comparer is the optional ability of a Format, found by type assertion, to
// order versions as its ecosystem's own tools do.
type Comparer interface {
	// CompareVersions returns a negative number where a is older than b, zero
	// where neither is newer, else a positive one. It is a total preorder over
	// all strings; what is no version comes before what is one.
	CompareVersions(a, b string) int
}

// Layouter is the optional ability of a Format, found by type assertion, to lay
// a repository out as plain files for web servers that know nothing of it. A
// Format without it has its files where their paths say.
type Layouter interface {
	// Places returns for each of listed, which is all that the roots of a tree
	// promise, the paths at which clients look for it; nil where they do not.
	Places(listed []Promise) [][]string
	// List returns the page that lists the trees with those main roots; "" for
	// no such page.
	List(roots []string) (path string, page []byte)
}

// Advisory is what a repository says of packages beside the files they come in:
// that an update matters, or that a release had better not be used.
type Advisory struct {
	ID       string // "EXAMPLE-2026:17"; of what is Yanked the name of the file
	Type     string // "security", "bugfix", "enhancement", "newpackage", or Yanked
	Severity string
	Title    string // in one line; of what is Yanked the reason
	CVEs     []string
	Packages []Package // name, version and architecture of each
}

// Yanked is the Type of an Advisory that takes a file back (PEP 592).
const Yanked = "yanked"

// Advisor is the optional ability of a Format, found by type assertion, to read
// what generations say of packages.
type Advisor interface {
	// Advisories yields them in no order. The error is a fs.ErrNotExist where
	// the index that has them is not stored.
	Advisories(c Contents) iter.Seq2[Advisory, error]
}

// Contents is a generation to read from: its roots, and what they lead to.
type Contents interface {
	Tree() Tree
	// Root returns a root file of the generation, or nil.
	Root(path string) []byte
	// Listed returns what the roots promise.
	Listed() []Promise
	// Promises yields what an index promises; nothing for one that never
	// promises anything. The error is a fs.ErrNotExist where the index is not
	// stored.
	Promises(index Promise) iter.Seq2[Promise, error]
	// Open returns the content of an index, decompressed. The caller closes it.
	// The error is a fs.ErrNotExist where the index is not stored.
	Open(index Promise) (io.ReadCloser, error)
}

// Selection is what of a repository a full mirror holds. What a field leaves
// empty is not restricted by it; the words are the format's own.
type Selection struct {
	Packages, Exclude []string // globs on the package name; of both an excluded one is not held
	Architectures     []string // "amd64", "x86_64", without those that fit all ("all", "noarch"), which are always held

	// Of apt.
	Suites, Components []string // a suite that ends in "/" is a folder without dists/: "./"
	Languages          []string // of translated descriptions; empty for English, "all" for every one, "none" for none
	Sources            bool     // source packages
	Udebs              bool     // packages of the installer
	Installer          bool     // images of the installer
	Contents           bool     // lists of files per package

	// Of rpm.
	Newest  int      // so many versions of each package and architecture; 0 for all
	Modules []string // globs on NAME or NAME:STREAM; empty for all
	Tree    bool     // what .treeinfo lists: installation images

	// Of pypi.
	Projects          []string // names or globs, each perhaps with a version specifier (PEP 440): "flask>=3"
	Wheels, Sdists    bool
	Prereleases       bool     // also where a project has others
	Python, Platforms []string // globs on the tags of wheels (PEP 425): "cp311", "manylinux*_x86_64"
}

// Selector is the optional ability of a Format, found by type assertion, to
// tell what belongs to a selection.
type Selector interface {
	// Catalog returns the tree of which the root lists the repository's other
	// trees, where sel cannot be told without it; the zero Tree where it can.
	Catalog(sel *Selection) Tree

	// Trees returns the trees that sel names. catalog is the content of the
	// root of Catalog; nil where there is none. The error says what is wrong
	// with the selection, whatever part of it that is.
	Trees(sel *Selection, catalog []byte) ([]SelectedTree, error)

	// Serial returns the number of the newest change that a root knows of, to
	// compare with SelectedTree.Serial; 0 where it does not say.
	Serial(path string, root []byte) int64

	// Indexes returns the metadata of c's roots that belongs to sel: groups of
	// files that have the same content, the preferred one first. One of each
	// group is needed; a group of which upstream has no file is not an error,
	// for Release lists what nobody made. Only the roots of c are read. The
	// error says that nothing of the tree belongs to sel, and what there is.
	Indexes(sel *Selection, c Contents) ([][]Promise, error)

	// Artifacts returns what decides whether an artifact that the root itself
	// or one of Indexes promises belongs to sel. It may read c several times;
	// of Indexes what is not stored is passed over. The function may be called
	// in any order, and not concurrently.
	Artifacts(sel *Selection, c Contents) (func(p *Promise) bool, error)
}

// SelectedTree is a tree that a selection names.
type SelectedTree struct {
	Tree
	Serial int64 // its root is behind what the catalog says while its serial is lower; 0 where the catalog does not say
}

// Publisher is the optional ability of a Format, found by type assertion, to
// write metadata of a part of what generations hold.
type Publisher interface {
	// Publish writes the metadata of one tree that holds those artifacts of the
	// sources that keep accepts, and returns its roots by path. All sources are
	// generations of trees with that name; where there are several, what keep
	// accepts of them is put together, and what the tree says of itself is from
	// the last one. Nothing is taken over that names an artifact which is not
	// held, or that no longer fits what is written. An artifact keeps its path.
	// Nil roots and no error mean that nothing remains that is worth a tree: a
	// project without files. An index that is needed and not stored is a
	// fs.ErrNotExist.
	Publish(sources []Contents, keep Keep, out Publication) (roots map[string][]byte, err error)
}

// Keep decides whether an artifact is held. source counts the sources from 0.
// field returns what the metadata says of it beside the promise, by a name of
// the format's own in lower case ("maintainer", "depends", "license",
// "requires-python"); "" where it says nothing. "component" and "source", the
// name of the source package, are what apt and rpm call so. Both are valid
// during the call. Keep may be called concurrently. It fails where sources have
// different files under one path.
//
// Of a tree whose root lists the repository's other trees (Selector.Catalog)
// Keep is asked for these: p has the Kind Root and the Path of a tree's main
// root, and is held where that tree was published with roots. Such a tree is
// therefore published last.
type Keep func(source int, p *Promise, field func(name string) string) (bool, error)

// Publication takes what a Publisher writes.
type Publication interface {
	// Write stores an index, compressed as suffix says (".gz", ".xz", ".zst",
	// "" for not at all); fill writes it plain, and may call Write in turn. The
	// same content gives the same bytes. algos are the digest algorithms that
	// are wanted of both forms. Write may be called concurrently.
	Write(suffix string, algos []string, fill func(io.Writer) error) (Written, error)
	Signer
	// Date is what the roots are to say of their age; whole seconds.
	Date() time.Time
}

// Written is an index as it was stored.
type Written struct {
	Digests      []Digest // of the stored bytes, in the order asked for
	Size         int64
	PlainDigests []Digest // of what was compressed; the same where nothing was
	PlainSize    int64
}

// Signer signs roots (RFC 9580). It is safe for concurrent use.
type Signer interface {
	// ClearSign returns text in the cleartext signature framework.
	ClearSign(text []byte, at time.Time) ([]byte, error)
	// DetachSign returns an armored detached signature over body.
	DetachSign(body []byte, at time.Time) ([]byte, error)
	// PublicKey returns the armored public key.
	PublicKey() []byte
}

// Resigner is the optional ability of a Format, found by type assertion, to
// make roots that say the same under another signature.
type Resigner interface {
	// Resign returns the roots of a tree, by path, signed anew: they say
	// date of their own age and name no end of their validity.
	Resign(t Tree, roots map[string][]byte, date time.Time, s Signer) (map[string][]byte, error)
}

// Rendering says how a page is to be made.
type Rendering struct {
	Local  bool      // links lead to this server, relative to the page; else upstream's own URLs stay
	Before time.Time // only files uploaded before it; zero for all. No file left is fs.ErrNotExist
}

// Location is a place where a repository could begin.
type Location struct {
	Base string // the upstream URL, ending in "/"
	Root string // the root that has to check, relative to the repository
	Path string // the path of the URL in question, relative to the repository
}
