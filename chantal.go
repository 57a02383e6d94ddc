// Package chantal holds the nouns of the project: what a package repository
// is, seen as a Merkle tree with a mutable top, and what the packages of this
// module say to each other about it.
//
// A root (InRelease, repomd.xml, a PyPI project page) names indexes and
// artifacts by digest. One root and everything it names is a tree; one
// observed state of a tree is a generation. A promise is what metadata says of
// one file. A ref selects which generations a client sees; a view answers
// paths from them.
//
// This file has what every reader needs; abilities.go has what a format may be
// able to do beside. The package imports the standard library only and knows
// neither network nor disk.
package chantal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// Digest is a checksum with its algorithm, "sha256:9f86…", in lower case. The
// zero value means "not known". Blobs are named by sha256; other algorithms
// occur only as promises made by metadata.
type Digest string

// digestLen holds the algorithms known and the length of their hexadecimal
// form.
var digestLen = map[string]int{
	"sha512": 128, "sha384": 96, "sha256": 64, "sha224": 56,
	"blake2b": 128, "blake2b-256": 64, "sha1": 40, "md5": 32,
}

// strength orders the algorithms; a higher number is preferred. What is below
// strong can be made to collide and proves nothing across repositories.
var strength = map[string]int{
	"sha512": 7, "sha384": 6, "sha256": 5, "blake2b": 4, "blake2b-256": 4, "sha224": 3, "sha1": 2, "md5": 1,
}

// NewDigest returns the digest with the algorithm algo (any case) and the
// hexadecimal value hex (any case). The error says what is wrong with them.
func NewDigest(algo, hex string) (Digest, error) {
	algo, hex = strings.ToLower(algo), strings.ToLower(hex)
	n, ok := digestLen[algo]
	if !ok {
		return "", fmt.Errorf("digest algorithm %q is not known", algo)
	}
	if len(hex) != n {
		return "", fmt.Errorf("%s digest has %d digits, not %d", algo, len(hex), n)
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("%s digest has the character %q", algo, c)
		}
	}
	return Digest(algo + ":" + hex), nil
}

// ParseDigest is NewDigest for the written form "algo:hex".
func ParseDigest(s string) (Digest, error) {
	algo, hex, ok := strings.Cut(s, ":")
	if !ok {
		return "", fmt.Errorf("digest %q has no algorithm", s)
	}
	return NewDigest(algo, hex)
}

// Algo returns the algorithm, "sha256".
func (d Digest) Algo() string { algo, _, _ := strings.Cut(string(d), ":"); return algo }

// Hex returns the hexadecimal value in lower case.
func (d Digest) Hex() string { _, hex, _ := strings.Cut(string(d), ":"); return hex }

// Strong reports whether no two files are known to share such a digest; false
// for md5, sha1 and the zero Digest.
func (d Digest) Strong() bool { return strength[d.Algo()] > strength["sha1"] }

// Stronger reports whether d is preferred to e.
func (d Digest) Stronger(e Digest) bool { return strength[d.Algo()] > strength[e.Algo()] }

// Kind says what part a file plays in its repository.
type Kind uint8

const (
	Opaque   Kind = iota // no metadata speaks of it: keys, installer images, changelogs
	Root                 // a mutable entry file that names everything else: InRelease, repomd.xml, simple/six/
	Meta                 // metadata that a root names by digest: Packages.xz, primary.xml.gz, a wheel's .metadata
	Artifact             // what is installed: .deb, .rpm, wheel, sdist
)

func (k Kind) String() string {
	return [...]string{"opaque", "root", "index", "artifact"}[k&3]
}

// Promise is what metadata says of one file: the file at Path has these
// digests and this size.
type Promise struct {
	Path    string   // relative to the repository, cleaned, never absolute, never with ".."
	URL     string   // where the file lives, when not at the repository's upstream plus Path
	Alt     string   // a path named after the digest where upstream has the same bytes (by-hash); tried before Path; empty if none
	Kind    Kind     // Meta or Artifact
	Digests []Digest // every one the metadata lists, strongest first; empty where it lists none
	Size    int64    // in bytes; -1 where metadata does not say
	Package *Package // for artifacts that are packages
}

// SHA256 returns the promised sha256, or "" where none is promised.
func (p *Promise) SHA256() Digest {
	for _, d := range p.Digests {
		if d.Algo() == "sha256" {
			return d
		}
	}
	return ""
}

// Has reports whether d is one of the promised digests.
func (p *Promise) Has(d Digest) bool {
	for _, e := range p.Digests {
		if d == e {
			return true
		}
	}
	return false
}

// Package is what people, filters and comparisons need to know of an artifact.
type Package struct {
	Name, Version, Arch, Section string
	Uploaded                     time.Time // when upstream received it; zero where metadata does not say
}

// Tree is the unit of consistency: root files and everything they name. Name
// is the folder that holds the roots ("dists/bookworm", "repodata",
// "simple/six", "." for a flat repository at the top), or for a file that
// nothing promises the path of that file itself.
type Tree struct {
	Name  string
	Roots []string // paths relative to the repository, the main one first
}

// Class is what a path alone reveals.
type Class struct {
	Kind   Kind
	Path   string   // the canonical path; differs from the given one where many spellings name one file
	Tree   Tree     // for a Root: the tree it belongs to
	Digest Digest   // for a path that is named after a digest: that digest
	Trees  []string // names of the only trees that could promise the path; nil if any could
}

// Format knows one ecosystem's repositories. Implementations are pure: no
// network, no disk, no clock; they are safe for concurrent use.
type Format interface {
	// Classify says what path, relative to the repository and cleaned, is.
	// It is total: a path that the format knows nothing of is Opaque.
	Classify(path string) Class

	// Check decides which of files (root path → bytes) make one consistent
	// state of the tree. keys is nil where no keyring is configured. An error
	// means that the tree has no usable root among them: not the format at
	// all, damaged, not signed by keys.
	Check(t Tree, files map[string][]byte, keys Keyring, now time.Time) (Verdict, error)

	// Parse yields what the file with that path (a root, or an index as its
	// root lists it) promises; r is already decompressed. It returns nil for
	// files that never promise anything. A path that would leave the
	// repository is an error, and so is input that ends early; the sequence
	// ends at its first error.
	Parse(path string, r io.Reader) iter.Seq2[Promise, error]
}

// Verdict is what Check found.
type Verdict struct {
	Roots    []string          // the files that belong to the generation, the main one first
	Rejected map[string]string // the others, with the reason
	Date     time.Time         // when upstream says it made the root; zero where it does not
	Signer   *Signature        // nil where no keyring was given
	Doubtful map[string]string // those of Roots that may be of another state though nothing proves it, with the reason
}

// Keyring checks signatures.
type Keyring interface {
	// Verify checks a detached signature, binary or armored (RFC 9580), over
	// signed, as of now. Any good signature by any key of the ring suffices.
	Verify(signed, signature []byte, now time.Time) (*Signature, error)
}

// Signature says who signed, and when, and when that was checked.
type Signature struct {
	Fingerprint string    `json:"fingerprint"` // of the primary key, upper-case hexadecimal
	Signed      time.Time `json:"signed"`
	Checked     time.Time `json:"checked"`
}

// RootFile is one root file of a generation, as upstream answered it.
type RootFile struct {
	Path     string    `json:"path"`
	Digest   Digest    `json:"digest"` // sha256
	Size     int64     `json:"size"`
	ETag     string    `json:"etag,omitempty"`    // upstream's, for asking again
	Modified time.Time `json:"modified,omitzero"` // upstream's Last-Modified
	Type     string    `json:"type,omitempty"`    // upstream's Content-Type
	URL      string    `json:"url,omitempty"`     // where it was found, after redirects
	Recent   bool      `json:"recent,omitempty"`  // was so new that etag and modified may be those of what came next, too
}

// Generation is one observed, immutable state of a tree. Everything below
// follows from Roots by digest.
type Generation struct {
	Repo   string     `json:"repo"`
	Tree   string     `json:"tree"`
	Number int        `json:"generation"`    // from 1
	Roots  []RootFile `json:"roots"`         // the main one first
	Date   time.Time  `json:"date,omitzero"` // what the root says of its own age
	Signer *Signature `json:"signer,omitempty"`
}

// Root returns the root file with that path, or nil.
func (g *Generation) Root(path string) *RootFile {
	for i := range g.Roots {
		if g.Roots[i].Path == path {
			return &g.Roots[i]
		}
	}
	return nil
}

// Observation says that a tree was seen in a state at a time. Times rise
// strictly within a tree; the same generation may be observed again later.
type Observation struct {
	Repo       string    `json:"repo"`
	Tree       string    `json:"tree"`
	Generation int       `json:"generation"`
	Observed   time.Time `json:"observed"`
	Modified   time.Time `json:"modified"` // the Last-Modified that clients get; whole seconds, rises by at least one per observation
}

// View answers paths of one repository from one state: live, a snapshot, an
// instant.
type View interface {
	// Open returns the file at path. The caller closes it. Errors:
	// fs.ErrNotExist (nothing there), *UpstreamError, *MismatchError,
	// *RefusedError, context errors.
	Open(ctx context.Context, path string) (*File, error)
}

// File is an open file of a View.
type File struct {
	Path       string
	Kind       Kind
	Digest     Digest    // sha256 of the content; "" while a file that nobody promised is arriving
	Size       int64     // -1 while not known
	Modified   time.Time // whole seconds
	Type       string    // upstream's Content-Type; may be empty
	Tree       string    // "" where no tree is involved
	Generation int       // 0 where no tree is involved
	ByDigest   bool      // the path itself names the digest
	Before     time.Time // a page to be cut to the files uploaded before it; zero for none
	Cache      CacheStatus
	Content    io.ReadSeekCloser // when complete an *os.File, or a copy in memory of a small one; a Growing while arriving
}

// Close closes the content.
func (f *File) Close() error { return f.Content.Close() }

// Growing is the content of a file that is still arriving. Reads wait for
// bytes and never return the last 64 KiB before the whole has been verified.
type Growing interface {
	io.ReadSeekCloser
	io.WriterTo
	// Wait returns when the content is complete and verified, or with the
	// reason why it never will be.
	Wait(ctx context.Context) error
}

// CacheStatus says where an answer came from (RFC 9211).
type CacheStatus uint8

const (
	Hit         CacheStatus = iota // from the store
	Miss                           // fetched, and stored
	Revalidated                    // upstream confirmed what the store has, for this request
	Stale                          // from the store because upstream could not be asked
)

// UpstreamError says that a file could not be had because upstream could not
// be reached or answered with an error; trying again later may help.
type UpstreamError struct {
	URL    string
	Status int   // HTTP status; 0 when there was no answer
	Err    error // the cause; nil when Status tells it all
}

func (e *UpstreamError) Error() string {
	switch {
	case e.Err != nil:
		return fmt.Sprintf("upstream %s: %v", e.URL, e.Err)
	default:
		return fmt.Sprintf("upstream %s answered %d", e.URL, e.Status)
	}
}

func (e *UpstreamError) Unwrap() error { return e.Err }

// MismatchError says that upstream has other bytes than metadata promises.
type MismatchError struct {
	Path      string
	Want, Got string // digests or sizes, for people
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: upstream has other bytes than its metadata promises (want %s, got %s)", e.Path, e.Want, e.Got)
}

// DiskError says that the disk does not take what is to be kept. It is tried
// again all the time; a client may do the same.
type DiskError struct {
	Dir  string // where
	Full bool   // for want of space
	Err  error  // the operating system's
}

func (e *DiskError) Error() string {
	if e.Full {
		return fmt.Sprintf("the disk of %s is full (%v)", e.Dir, e.Err)
	}
	return fmt.Sprintf("the disk of %s takes no writes (%v)", e.Dir, e.Err)
}

func (e *DiskError) Unwrap() error { return e.Err }

// RefusedError says that Chantal's own rules forbid what was asked.
type RefusedError struct {
	What string // what was asked for
	Why  string // the rule, and which setting would allow it
}

func (e *RefusedError) Error() string { return e.What + ": " + e.Why }

// ErrOffline is the cause in errors about files that the store lacks while
// nothing may be fetched.
var ErrOffline = errors.New("offline, and the store does not have it")

// ErrNotKept means that a file was verified and given to those who followed it
// from its start, and is not in the store: the disk does not take it, and it is
// too large for memory. Who comes later has to have it fetched once more.
var ErrNotKept = errors.New("the disk does not take the file, and it is too large to be kept in memory")
