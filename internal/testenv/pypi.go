package testenv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// SimpleJSON is the media type of project pages in JSON (PEP 691).
const SimpleJSON = "application/vnd.pypi.simple.v1+json"

const simpleHTML = "text/html; charset=utf-8"

// PyPI is an index: project pages under simple/ and files under files/. Not
// safe for concurrent use; what Publish returned is never changed.
type PyPI struct {
	HTMLOnly   bool   // pages in HTML alone, whatever Accept says
	NoMetadata bool   // no METADATA of wheels beside them
	Integrity  string // "https://index.example.org/": the index itself, for provenance (PEP 740) of all files; empty for none
	Serials    bool   // pages and the list say when a project changed last, not when they were made
	Host       string // "http://127.0.0.1:PORT/files/" where another server has the files; empty for relative links

	releases map[string][]upload // by normalised name, oldest first
	serials  map[string]int64    // of the last change, by normalised name
	changes  int64
	at       time.Time
}

type upload struct {
	Name     string // of the file
	Content  []byte
	Metadata []byte // the wheel's METADATA; nil for an sdist
	Version  string
	Uploaded time.Time
	Yanked   string // the reason; empty for not yanked
}

// NewPyPI returns an index without projects. Its pages are dated an hour
// before now at first, and a minute later each time.
func NewPyPI(now time.Time) *PyPI {
	return &PyPI{releases: map[string][]upload{}, serials: map[string]int64{}, at: now.UTC().Truncate(time.Second).Add(-time.Hour)}
}

var separators = regexp.MustCompile(`[-_.]+`)

// Normalize returns the project's name as PEP 503 has it.
func Normalize(name string) string { return strings.ToLower(separators.ReplaceAllString(name, "-")) }

// Add uploads a wheel and an sdist of p. A file with an equal name is
// replaced, which the real index never does.
func (i *PyPI) Add(p Package, uploaded time.Time) error {
	wheel, err := Wheel(p)
	if err != nil {
		return err
	}
	sdist, err := Sdist(p)
	if err != nil {
		return err
	}
	i.put(p, upload{Name: WheelName(p), Content: wheel, Metadata: CoreMetadata(p), Version: p.Version, Uploaded: uploaded})
	i.put(p, upload{Name: SdistName(p), Content: sdist, Version: p.Version, Uploaded: uploaded})
	return nil
}

func (i *PyPI) put(p Package, u upload) {
	name := Normalize(p.Name)
	list := slices.DeleteFunc(slices.Clone(i.releases[name]), func(o upload) bool { return o.Name == u.Name })
	i.changed(name, append(list, u))
}

// changed notes what is now uploaded of a project.
func (i *PyPI) changed(name string, uploads []upload) {
	i.changes++
	i.releases[name], i.serials[name] = uploads, i.changes
}

// Yank marks the files of one version as not to be chosen (PEP 592).
func (i *PyPI) Yank(p Package, reason string) {
	list := slices.Clone(i.releases[Normalize(p.Name)])
	for n := range list {
		if list[n].Version == p.Version {
			list[n].Yanked = reason
		}
	}
	i.changed(Normalize(p.Name), list)
}

// Drop removes the files of one version.
func (i *PyPI) Drop(p Package) {
	name := Normalize(p.Name)
	i.changed(name, slices.DeleteFunc(slices.Clone(i.releases[name]), func(u upload) bool { return u.Version == p.Version }))
}

// FilePath returns where a file lies, relative to the index, or to the server
// that Host names. As on the real index the path depends on the content.
func FilePath(name string, content []byte) string {
	sum := sha256hex(content)
	return "files/" + sum[:2] + "/" + sum[2:10] + "/" + name
}

// Publish returns the index as it is now and moves its date on. The files are
// among the pages; where Host is set, their place is FilePath there as well.
func (i *PyPI) Publish() (Files, error) {
	files := Files{}
	for name, uploads := range i.releases {
		page, err := i.page(name, uploads)
		if err != nil {
			return nil, fmt.Errorf("page of %s: %w", name, err)
		}
		files["simple/"+name+"/"] = page
		for _, u := range uploads {
			at := FilePath(u.Name, u.Content)
			files[at] = File{Content: u.Content, Modified: u.Uploaded}
			if i.Integrity != "" {
				files[provenancePath(name, u)] = File{Modified: i.at, Type: "application/vnd.pypi.integrity.v1+json",
					Content: fmt.Appendf(nil, `{"version":1,"attestation_bundles":[],"made":%d}`, i.at.Unix())}
			}
			if u.Metadata != nil && !i.NoMetadata {
				files[at+".metadata"] = File{Content: u.Metadata, Modified: u.Uploaded}
			}
		}
	}
	list, err := i.list()
	if err != nil {
		return nil, fmt.Errorf("list of projects: %w", err)
	}
	files["simple/"] = list
	i.at = i.at.Add(time.Minute)
	return files, nil
}

// provenancePath is where the provenance of a file is, relative to the index.
func provenancePath(name string, u upload) string {
	return "integrity/" + name + "/" + u.Version + "/" + u.Name + "/provenance"
}

func (i *PyPI) url(u upload) string {
	if i.Host != "" {
		return strings.TrimSuffix(i.Host, "/") + strings.TrimPrefix(FilePath(u.Name, u.Content), "files")
	}
	return "../../" + FilePath(u.Name, u.Content)
}

type pageFile struct {
	Filename       string            `json:"filename"`
	URL            string            `json:"url"`
	Hashes         map[string]string `json:"hashes"`
	RequiresPython string            `json:"requires-python"`
	Size           int               `json:"size"`
	UploadTime     string            `json:"upload-time"`
	Yanked         any               `json:"yanked"`
	CoreMetadata   any               `json:"core-metadata"`
	Provenance     string            `json:"provenance,omitempty"`
}

func (i *PyPI) page(name string, uploads []upload) (File, error) {
	var body bytes.Buffer
	fmt.Fprintf(&body, "<!DOCTYPE html>\n<html><head><meta name=\"pypi:repository-version\" content=\"1.0\"><title>Links for %s</title></head><body>\n", name)
	list, versions := []pageFile{}, map[string]bool{}
	for _, u := range uploads {
		sum := sha256hex(u.Content)
		f := pageFile{
			Filename: u.Name, URL: i.url(u), Hashes: map[string]string{"sha256": sum}, RequiresPython: ">=3.6",
			Size: len(u.Content), UploadTime: u.Uploaded.UTC().Format("2006-01-02T15:04:05.000000Z"), Yanked: false, CoreMetadata: false,
		}
		attributes := ` data-requires-python="&gt;=3.6"`
		if u.Yanked != "" {
			f.Yanked = u.Yanked
			attributes += fmt.Sprintf(` data-yanked="%s"`, html.EscapeString(u.Yanked))
		}
		if u.Metadata != nil && !i.NoMetadata {
			f.CoreMetadata = map[string]string{"sha256": sha256hex(u.Metadata)}
			attributes += fmt.Sprintf(` data-core-metadata="sha256=%s"`, sha256hex(u.Metadata))
		}
		if i.Integrity != "" {
			f.Provenance = i.Integrity + provenancePath(name, u)
		}
		fmt.Fprintf(&body, "<a href=\"%s#sha256=%s\"%s>%s</a><br/>\n", html.EscapeString(f.URL), sum, attributes, u.Name)
		list = append(list, f)
		versions[u.Version] = true
	}
	body.WriteString("</body></html>\n")
	return i.both(body.Bytes(), map[string]any{
		"meta": map[string]any{"api-version": "1.1", "_last-serial": i.serial(name)},
		"name": name, "versions": slices.Sorted(maps.Keys(versions)), "files": list,
	})
}

func (i *PyPI) list() (File, error) {
	var body bytes.Buffer
	body.WriteString("<!DOCTYPE html>\n<html><head><meta name=\"pypi:repository-version\" content=\"1.0\"><title>Simple index</title></head><body>\n")
	projects := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(i.releases)) {
		fmt.Fprintf(&body, "<a href=\"%s/\">%s</a><br/>\n", name, name)
		project := map[string]any{"name": name}
		if i.Serials {
			project["_last-serial"] = i.serial(name)
		}
		projects = append(projects, project)
	}
	body.WriteString("</body></html>\n")
	return i.both(body.Bytes(), map[string]any{
		"meta": map[string]any{"api-version": "1.1", "_last-serial": i.at.Unix()}, "projects": projects,
	})
}

// serial returns the serial on a project's page.
func (i *PyPI) serial(name string) int64 {
	if i.Serials {
		return i.serials[name]
	}
	return i.at.Unix()
}

func (i *PyPI) both(body []byte, page map[string]any) (File, error) {
	f := File{Content: body, Type: simpleHTML, Modified: i.at}
	if i.HTMLOnly {
		return f, nil
	}
	var err error
	f.JSON, err = json.Marshal(page)
	return f, err
}
