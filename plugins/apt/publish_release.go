package apt

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"chantal"
)

// newDate is the form of the Date field.
const newDate = "Mon, 02 Jan 2006 15:04:05 UTC"

// releaseField is a field of a Release as it is written.
type releaseField struct {
	name string // in lower case
	text []byte // whole lines, that of the name first
}

// value returns what follows the name, on its line.
func (f *releaseField) value() string {
	line, _, _ := bytes.Cut(f.text, []byte("\n"))
	_, v, _ := bytes.Cut(line, []byte(":"))
	return string(bytes.TrimSpace(v))
}

// releaseFields splits the first stanza of a Release, all that apt reads.
func releaseFields(text []byte) []releaseField {
	var all []releaseField
	for line := range bytes.Lines(text) {
		line = append(bytes.TrimRight(line, " \t\r\n"), '\n')
		switch {
		case len(line) == 1 && len(all) > 0:
			return all
		case len(line) == 1 || line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if len(all) > 0 {
				all[len(all)-1].text = append(all[len(all)-1].text, line...)
			}
		default:
			name, _, _ := bytes.Cut(line, []byte(":"))
			all = append(all, releaseField{strings.ToLower(string(name)), slices.Clone(line)})
		}
	}
	return all
}

// textOf returns the text of a tree's Release; root returns the roots.
func textOf(t chantal.Tree, root func(string) []byte) ([]byte, error) {
	if in := root(path.Join(t.Name, inRelease)); in != nil {
		opened, err := openFrame(in)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", t.Name, inRelease, err)
		}
		return opened.text, nil
	}
	if text := root(path.Join(t.Name, release)); text != nil {
		return text, nil
	}
	return nil, fmt.Errorf("%s has neither an InRelease nor a Release", t.Name)
}

// foreignField reports whether a field speaks of the signature, the age or the
// archive of the one who signed before: their key for the next Release, how
// long theirs is valid, and where they keep what theirs was.
func foreignField(name string) bool {
	switch name {
	case "date", "valid-until", "signed-by", "snapshots":
		return true
	}
	return false
}

// dateField is the Date field.
func dateField(date time.Time) string { return "Date: " + date.UTC().Format(newDate) + "\n" }

// newReleaseFile is a Release that is being written.
type newReleaseFile struct {
	fields []releaseField // what stays of the one that it comes from
	files  []releaseEntry
}

// newRelease takes over what a Release says of the suite itself. Of
// architectures and components it names those that are held.
func newRelease(text []byte, h held) *newReleaseFile {
	all := releaseFields(text)
	packagesOfAll := !slices.ContainsFunc(all, func(f releaseField) bool {
		return f.name == "no-support-for-architecture-all"
	})
	r := &newReleaseFile{}
	for _, f := range all {
		switch f.name {
		case "md5sum", "sha1", "sha256", "sha512", "acquire-by-hash":
			continue
		case "architectures":
			if len(h.archs) > 0 {
				f.only(func(arch string) bool { return h.archs[arch] || arch == "all" && !packagesOfAll })
			}
		case "components":
			if !h.components[""] {
				f.only(h.component)
			}
		}
		if !foreignField(f.name) {
			r.fields = append(r.fields, f)
		}
	}
	return r
}

// component reports whether the component with that name is held. A name and
// the folder of its indexes may differ in what precedes their last part:
// "updates/main" may lie in main.
func (h *held) component(name string) bool {
	for folder := range h.components {
		if folder == name || path.Base(folder) == path.Base(name) {
			return true
		}
	}
	return false
}

// only leaves those words in the value that pass.
func (f *releaseField) only(pass func(string) bool) {
	words := slices.DeleteFunc(strings.Fields(f.value()), func(w string) bool { return !pass(w) })
	name, _, _ := bytes.Cut(f.text, []byte(":"))
	f.text = fmt.Appendf(nil, "%s: %s\n", name, strings.Join(words, " "))
}

// text returns the file.
func (r *newReleaseFile) text(date time.Time) []byte {
	var b bytes.Buffer
	for _, f := range r.fields {
		b.Write(f.text)
	}
	b.WriteString(dateField(date) + "Acquire-By-Hash: yes\n")
	slices.SortFunc(r.files, func(a, b releaseEntry) int { return strings.Compare(a.name, b.name) })
	for i, algo := range []string{"SHA256", "SHA512"} { // as in listedAlgos
		b.WriteString(algo + ":\n")
		for _, f := range r.files {
			fmt.Fprintf(&b, " %s %d %s\n", f.digests[i].Hex(), f.size, f.name)
		}
	}
	return b.Bytes()
}

// writeFolder writes the Release of one folder of indexes.
func (r *newReleaseFile) writeFolder(w io.Writer, t *rewrite) error {
	var b bytes.Buffer
	for _, f := range r.fields {
		switch f.name {
		case "suite":
			fmt.Fprintf(&b, "Archive: %s\n", f.value())
		case "origin", "label", "version", "codename", "notautomatic", "butautomaticupgrades":
			b.Write(f.text)
		}
	}
	arch := t.arch
	if arch == "" {
		arch = "source"
	}
	fmt.Fprintf(&b, "Acquire-By-Hash: yes\nComponent: %s\nArchitecture: %s\n", t.component, arch)
	_, err := w.Write(b.Bytes())
	return err
}

// sign returns the roots of a tree with that text in them.
func sign(t chantal.Tree, text []byte, at time.Time, s chantal.Signer) (map[string][]byte, error) {
	clear, err := s.ClearSign(text, at)
	if err != nil {
		return nil, err
	}
	detached, err := s.DetachSign(text, at)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		path.Join(t.Name, inRelease): clear, path.Join(t.Name, release): text, path.Join(t.Name, releaseGPG): detached,
	}, nil
}

// Resign implements chantal.Resigner: the Release lists what it listed, and
// says of the suite what it said.
func (f *Format) Resign(t chantal.Tree, roots map[string][]byte, date time.Time, s chantal.Signer) (map[string][]byte, error) {
	text, err := textOf(t, func(p string) []byte { return roots[p] })
	if err != nil {
		return nil, err
	}
	rel, err := parseRelease(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	if rel.weak() {
		return nil, &chantal.RefusedError{What: "signing " + t.Name + " anew", Why: "its Release lists no SHA-256 or SHA-512, so that a signature would say nothing of the files"}
	}
	var b bytes.Buffer
	dated := false
	for _, f := range releaseFields(text) {
		switch {
		case f.name == "date" && !dated:
			b.WriteString(dateField(date))
			dated = true
		case !foreignField(f.name):
			b.Write(f.text)
		}
	}
	if !dated {
		text = append([]byte(dateField(date)), b.Bytes()...)
	} else {
		text = b.Bytes()
	}
	return sign(t, text, date, s)
}

var (
	_ chantal.Publisher = (*Format)(nil)
	_ chantal.Resigner  = (*Format)(nil)
)
