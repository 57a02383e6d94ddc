package testenv

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"crypto/sha512"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/ulikunitz/xz"
)

// APT is a Debian repository whose suites hold the same packages. Not safe for
// concurrent use; what Publish returned is never changed.
type APT struct {
	Key        *Key     // nil for a repository that is not signed
	Suites     []string // folders under dists/, "bookworm", "stable/updates"; none for a flat repository
	Components []string // the first holds the packages; nil for "main"
	Arch       string   // of the index; empty for amd64
	ByHash     bool     // Acquire-By-Hash, with the files of every publishing kept
	Brief      bool     // with ByHash: those of the present publishing alone
	SHA512     bool     // list SHA512 beside SHA256
	MD5        bool     // list MD5Sum too
	ReleaseGPG bool     // Release and Release.gpg beside InRelease
	NoInline   bool     // no InRelease
	ValidFor   time.Duration
	Unsigned   bool              // InRelease is plain text, though there is a Key
	Index      map[string][]byte // what replaces an index before Release is written, by path below the suite
	Stanzas    string            // added to Packages as it stands
	Stamp      string            // the version of something that every index of every component speaks of; empty for nothing

	date   time.Time
	pool   Files
	index  map[string]Package // what Packages lists, by pool path
	byHash Files
}

// NewAPT returns a repository without packages. The first publishing is dated
// an hour before now, each further one a minute after the one before.
func NewAPT(key *Key, now time.Time, suites ...string) *APT {
	return &APT{
		Key: key, Suites: suites, ReleaseGPG: true, date: now.UTC().Truncate(time.Second).Add(-time.Hour),
		pool: Files{}, index: map[string]Package{}, byHash: Files{},
	}
}

// Date returns the Date of the next publishing.
func (a *APT) Date() time.Time { return a.date }

// SetDate sets the Date of the next publishing, in whole seconds.
func (a *APT) SetDate(t time.Time) { a.date = t.UTC().Truncate(time.Second) }

// PoolPath returns where the .deb of p lies, relative to the repository.
func (a *APT) PoolPath(p Package) string {
	name := fmt.Sprintf("%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"), cmp.Or(p.Arch, "all"))
	if len(a.Suites) == 0 {
		return name
	}
	return path.Join("pool", a.components()[0], p.Name[:1], p.Name, name)
}

// Add lists p and puts its file into the pool. A package with the same name,
// version and architecture is replaced.
func (a *APT) Add(p Package) error {
	deb, err := Deb(p)
	if err != nil {
		return err
	}
	at := a.PoolPath(p)
	a.pool[at] = File{Content: deb, Modified: a.date}
	a.index[at] = p
	return nil
}

// Drop lists p no more; with purge its file leaves the pool as well.
func (a *APT) Drop(p Package, purge bool) {
	at := a.PoolPath(p)
	delete(a.index, at)
	if purge {
		delete(a.pool, at)
	}
}

func (a *APT) components() []string {
	if len(a.Components) == 0 {
		return []string{"main"}
	}
	return a.Components
}

// packages returns the Packages file.
func (a *APT) packages() []byte {
	var b bytes.Buffer
	for _, at := range slices.Sorted(maps.Keys(a.index)) {
		deb := a.pool[at].Content
		b.WriteString(a.index[at].control())
		name := at
		if len(a.Suites) == 0 {
			name = "./" + at
		}
		fmt.Fprintf(&b, "Filename: %s\nSize: %d\nMD5sum: %x\nSHA256: %s\n\n", name, len(deb), md5.Sum(deb), sha256hex(deb))
	}
	b.WriteString(a.Stanzas)
	return b.Bytes()
}

// Publish returns the repository as it is now and moves its date on.
func (a *APT) Publish() (Files, error) {
	files := maps.Clone(a.pool)
	if a.Brief {
		clear(a.byHash)
	}
	for _, suite := range a.Suites {
		if err := a.suite(files, suite); err != nil {
			return nil, fmt.Errorf("publish suite %s: %w", suite, err)
		}
	}
	if len(a.Suites) == 0 {
		if err := a.flat(files); err != nil {
			return nil, fmt.Errorf("publish flat repository: %w", err)
		}
	}
	if a.ByHash {
		maps.Copy(files, a.byHash)
	}
	a.date = a.date.Add(time.Minute)
	return files, nil
}

func (a *APT) flat(files Files) error {
	indexes := map[string][]byte{"Packages": a.packages()}
	return a.release(files, ".", indexes)
}

func (a *APT) suite(files Files, suite string) error {
	indexes := map[string][]byte{}
	arch := cmp.Or(a.Arch, "amd64")
	for i, c := range a.components() {
		var list []byte
		var contents bytes.Buffer
		var words bytes.Buffer
		if i == 0 {
			list = a.packages()
			for _, at := range slices.Sorted(maps.Keys(a.index)) {
				p := a.index[at]
				fmt.Fprintf(&contents, "%s misc/%s\n", p.payloadPath(), p.Name)
				text := p.Name + ", made for a test"
				fmt.Fprintf(&words, "Package: %s\nDescription-md5: %x\nDescription-en: %s\n\n", p.Name, md5.Sum([]byte(text+"\n")), text)
			}
		}
		if a.Stamp != "" {
			stamp := Package{Name: "stamp-" + c, Version: a.Stamp}
			list = append(list, stamp.control()...)
			list = fmt.Appendf(list, "Filename: pool/stamp-%s_%s_all.deb\nSize: 100\nSHA256: %s\n\n", c, a.Stamp, sha256hex([]byte(a.Stamp)))
			fmt.Fprintf(&contents, "usr/share/stamp/%s misc/stamp-%s\n", a.Stamp, c)
			fmt.Fprintf(&words, "Package: stamp-%s\nDescription-md5: %x\nDescription-en: %s\n\n", c, md5.Sum([]byte(a.Stamp)), a.Stamp)
		}
		indexes[c+"/binary-"+arch+"/Packages"] = list
		indexes[c+"/Contents-"+arch] = contents.Bytes()
		indexes[c+"/i18n/Translation-en"] = words.Bytes()
	}
	return a.release(files, path.Join("dists", suite), indexes)
}

// release writes the indexes, plain and packed, into files and then the roots
// that name them.
func (a *APT) release(files Files, dir string, indexes map[string][]byte) error {
	all := map[string][]byte{}
	for name, content := range indexes {
		all[name] = content
		var err error
		if all[name+".gz"], err = gzipped(content); err != nil {
			return err
		}
		if all[name+".xz"], err = xzipped(content); err != nil {
			return err
		}
	}
	maps.Copy(all, a.Index)
	for name, content := range all {
		f := File{Content: content, Modified: a.date}
		files[path.Join(dir, name)] = f
		if !a.ByHash {
			continue
		}
		a.byHash[path.Join(dir, path.Dir(name), "by-hash/SHA256", sha256hex(content))] = f
		if a.SHA512 {
			a.byHash[path.Join(dir, path.Dir(name), "by-hash/SHA512", fmt.Sprintf("%x", sha512.Sum512(content)))] = f
		}
	}
	text := a.releaseText(dir, all)
	root := func(name string, content []byte) {
		files[path.Join(dir, name)] = File{Content: content, Modified: a.date}
	}
	if a.ReleaseGPG {
		root("Release", text)
	}
	if a.Key == nil || a.Unsigned {
		root("InRelease", text)
		return nil
	}
	if !a.NoInline {
		signed, err := a.Key.Clearsign(text, a.date)
		if err != nil {
			return err
		}
		root("InRelease", signed)
	}
	if !a.ReleaseGPG {
		return nil
	}
	detached, err := a.Key.Detach(text, a.date)
	if err != nil {
		return err
	}
	root("Release.gpg", detached)
	return nil
}

// releaseText returns the Release file for dir ("dists/SUITE", ".").
func (a *APT) releaseText(dir string, indexes map[string][]byte) []byte {
	var b bytes.Buffer
	b.WriteString("Origin: Example\nLabel: Example\n")
	if suite, ok := strings.CutPrefix(dir, "dists/"); ok {
		fmt.Fprintf(&b, "Suite: %s\nCodename: %s\n", suite, suite)
		fmt.Fprintf(&b, "Architectures: %s\nComponents: %s\n", cmp.Or(a.Arch, "amd64"), strings.Join(a.components(), " "))
	}
	const stamp = "Mon, 02 Jan 2006 15:04:05 UTC"
	fmt.Fprintf(&b, "Date: %s\n", a.date.Format(stamp))
	if a.ValidFor != 0 {
		fmt.Fprintf(&b, "Valid-Until: %s\n", a.date.Add(a.ValidFor).Format(stamp))
	}
	if a.ByHash {
		b.WriteString("Acquire-By-Hash: yes\n")
	}
	list := func(field string, sum func([]byte) string) {
		fmt.Fprintf(&b, "%s:\n", field)
		for _, name := range slices.Sorted(maps.Keys(indexes)) {
			fmt.Fprintf(&b, " %s %16d %s\n", sum(indexes[name]), len(indexes[name]), name)
		}
	}
	if a.MD5 {
		list("MD5Sum", func(c []byte) string { return fmt.Sprintf("%x", md5.Sum(c)) })
	}
	list("SHA256", sha256hex)
	if a.SHA512 {
		list("SHA512", func(c []byte) string { return fmt.Sprintf("%x", sha512.Sum512(c)) })
	}
	return b.Bytes()
}

func xzipped(content []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := xz.WriterConfig{DictCap: 1 << 20}.NewWriter(&b)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(content); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
