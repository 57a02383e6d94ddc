package testenv

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"maps"
	"slices"
	"strings"
	"time"
)

// RPM is a repository with repodata/. Not safe for concurrent use; what
// Publish returned is never changed.
type RPM struct {
	Key     *Key   // nil for no repomd.xml.asc
	Simple  bool   // "primary.xml.gz", not "HASH-primary.xml.gz"
	Updates string // what updateinfo has in its <updates>; empty for no updateinfo

	date     time.Time
	packages map[string]rpmPackage // by path
	pool     Files
}

type rpmPackage struct {
	Package
	start, end int // of the header, in bytes
}

// NewRPM returns a repository without packages. The first publishing is dated
// an hour before now, each further one a minute after the one before.
func NewRPM(key *Key, now time.Time) *RPM {
	return &RPM{
		Key: key, date: now.UTC().Truncate(time.Second).Add(-time.Hour),
		packages: map[string]rpmPackage{}, pool: Files{},
	}
}

// SetDate sets what the next publishing says of its own age, in whole seconds.
func (r *RPM) SetDate(t time.Time) { r.date = t.UTC().Truncate(time.Second) }

// PoolPath returns where the .rpm of p lies, relative to the repository.
func (r *RPM) PoolPath(p Package) string {
	return fmt.Sprintf("Packages/%s/%s-%s-%s.%s.rpm", p.Name[:1], p.Name, p.Version, release, cmp.Or(p.Arch, "noarch"))
}

// Add lists p and puts its file in place, in the place of an equally named one.
func (r *RPM) Add(p Package) error {
	file, start, end, err := RPMFile(p)
	if err != nil {
		return fmt.Errorf("rpm %s: %w", p.Name, err)
	}
	at := r.PoolPath(p)
	r.packages[at] = rpmPackage{p, start, end}
	r.pool[at] = File{Content: file, Modified: r.date}
	return nil
}

// Drop lists p no more; with purge its file is removed as well.
func (r *RPM) Drop(p Package, purge bool) {
	at := r.PoolPath(p)
	delete(r.packages, at)
	if purge {
		delete(r.pool, at)
	}
}

// Publish returns the repository as it is now and moves its date on.
func (r *RPM) Publish() (Files, error) {
	files := maps.Clone(r.pool)
	var repomd bytes.Buffer
	repomd.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n")
	repomd.WriteString(`<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">` + "\n")
	fmt.Fprintf(&repomd, "  <revision>%d</revision>\n", r.date.Unix())
	type record struct {
		name    string
		content []byte
	}
	records := []record{{"primary", r.primary()}, {"filelists", r.filelists()}, {"other", r.other()}}
	if r.Updates != "" {
		records = append(records, record{"updateinfo", []byte("<updates>" + r.Updates + "</updates>\n")})
	}
	for _, record := range records {
		packed, err := gzipped(record.content)
		if err != nil {
			return nil, fmt.Errorf("publish %s: %w", record.name, err)
		}
		at := "repodata/" + record.name + ".xml.gz"
		if !r.Simple {
			at = "repodata/" + sha256hex(packed) + "-" + record.name + ".xml.gz"
		}
		files[at] = File{Content: packed, Modified: r.date, Type: "application/x-gzip"}
		fmt.Fprintf(&repomd, "  <data type=%q>\n    <checksum type=\"sha256\">%s</checksum>\n", record.name, sha256hex(packed))
		fmt.Fprintf(&repomd, "    <open-checksum type=\"sha256\">%s</open-checksum>\n    <location href=%q/>\n", sha256hex(record.content), at)
		fmt.Fprintf(&repomd, "    <timestamp>%d</timestamp>\n    <size>%d</size>\n    <open-size>%d</open-size>\n  </data>\n",
			r.date.Unix(), len(packed), len(record.content))
	}
	repomd.WriteString("</repomd>\n")
	files["repodata/repomd.xml"] = File{Content: repomd.Bytes(), Modified: r.date, Type: "text/xml"}
	if r.Key != nil {
		asc, err := r.Key.Detach(repomd.Bytes(), r.date)
		if err != nil {
			return nil, fmt.Errorf("publish repomd.xml.asc: %w", err)
		}
		public, err := r.Key.Public()
		if err != nil {
			return nil, fmt.Errorf("publish repomd.xml.key: %w", err)
		}
		files["repodata/repomd.xml.asc"] = File{Content: asc, Modified: r.date, Type: "text/plain"}
		files["repodata/repomd.xml.key"] = File{Content: public, Modified: r.date, Type: "text/plain"}
	}
	r.date = r.date.Add(time.Minute)
	return files, nil
}

// each writes one document: the root element with its namespace, and one
// element for each package, in order of their paths.
func (r *RPM) each(root, namespace string, element func(b *bytes.Buffer, at string, p rpmPackage)) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<%s xmlns=\"http://linux.duke.edu/metadata/%s\" ", root, namespace)
	fmt.Fprintf(&b, "xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"%d\">\n", len(r.packages))
	for _, at := range slices.Sorted(maps.Keys(r.packages)) {
		element(&b, at, r.packages[at])
	}
	fmt.Fprintf(&b, "</%s>\n", root)
	return b.Bytes()
}

func (r *RPM) primary() []byte {
	return r.each("metadata", "common", func(b *bytes.Buffer, at string, p rpmPackage) {
		file := r.pool[at].Content
		fmt.Fprintf(b, "<package type=\"rpm\">\n  <name>%s</name>\n  <arch>%s</arch>\n", p.Name, cmp.Or(p.Arch, "noarch"))
		fmt.Fprintf(b, "  <version epoch=\"0\" ver=%q rel=%q/>\n", p.Version, release)
		fmt.Fprintf(b, "  <checksum type=\"sha256\" pkgid=\"YES\">%s</checksum>\n", sha256hex(file))
		fmt.Fprintf(b, "  <summary>%s, made for a test</summary>\n  <description>Made for a test.</description>\n", p.Name)
		b.WriteString("  <packager></packager>\n  <url></url>\n")
		fmt.Fprintf(b, "  <time file=\"%d\" build=\"%d\"/>\n", r.pool[at].Modified.Unix(), packed.Unix())
		fmt.Fprintf(b, "  <size package=\"%d\" installed=\"%d\" archive=\"%d\"/>\n", len(file), max(p.Size, 64), max(p.Size, 64)+300)
		fmt.Fprintf(b, "  <location href=\"%s\"/>\n  <format>\n    <rpm:license>Apache-2.0</rpm:license>\n", html.EscapeString(at))
		fmt.Fprintf(b, "    <rpm:vendor/>\n    <rpm:group>Unspecified</rpm:group>\n    <rpm:buildhost>build.example.org</rpm:buildhost>\n")
		fmt.Fprintf(b, "    <rpm:sourcerpm>%s-%s-%s.src.rpm</rpm:sourcerpm>\n", p.Name, p.Version, release)
		fmt.Fprintf(b, "    <rpm:header-range start=\"%d\" end=\"%d\"/>\n", p.start, p.end)
		fmt.Fprintf(b, "    <rpm:provides><rpm:entry name=%q flags=\"EQ\" epoch=\"0\" ver=%q rel=%q/></rpm:provides>\n", p.Name, p.Version, release)
		if p.Depends != "" {
			b.WriteString("    <rpm:requires>")
			for name := range strings.FieldsSeq(p.Depends) {
				fmt.Fprintf(b, "<rpm:entry name=%q/>", name)
			}
			b.WriteString("</rpm:requires>\n")
		}
		b.WriteString("  </format>\n</package>\n")
	})
}

// open writes the start of a package element of filelists.xml and other.xml.
func (r *RPM) open(b *bytes.Buffer, at string, p rpmPackage) {
	fmt.Fprintf(b, "<package pkgid=%q name=%q arch=%q>\n", sha256hex(r.pool[at].Content), p.Name, cmp.Or(p.Arch, "noarch"))
	fmt.Fprintf(b, "  <version epoch=\"0\" ver=%q rel=%q/>\n", p.Version, release)
}

func (r *RPM) filelists() []byte {
	return r.each("filelists", "filelists", func(b *bytes.Buffer, at string, p rpmPackage) {
		r.open(b, at, p)
		fmt.Fprintf(b, "  <file>/%s</file>\n</package>\n", p.payloadPath())
	})
}

func (r *RPM) other() []byte {
	return r.each("otherdata", "other", func(b *bytes.Buffer, at string, p rpmPackage) {
		r.open(b, at, p)
		fmt.Fprintf(b, "  <changelog author=\"Test\" date=\"%d\">- Made.</changelog>\n</package>\n", packed.Unix())
	})
}
