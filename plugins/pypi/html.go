package pypi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/html"

	"chantal"
)

// Limits on what an HTML page may make us hold in memory; real pages stay far
// below.
const (
	maxFiles    = 1 << 18 // anchors of a project's page
	maxProjects = 1 << 22 // anchors of the list
	maxText     = 1 << 10 // bytes of text in an anchor or heading
)

// document is what an HTML page says that matters to a simple index.
type document struct {
	base                    *url.URL
	version, status, reason string
	title                   string // of <title>, or else <h1>
	anchors                 []anchor
}

type anchor struct {
	attributes []html.Attribute // names in lower case, values unescaped
	text       string
}

func (a *anchor) get(name string) (value string, ok bool) {
	for i := range a.attributes {
		if a.attributes[i].Key == name {
			return a.attributes[i].Val, true
		}
	}
	return "", false
}

// scan reads the tags in their order; no tree is built, so nesting costs
// nothing. At most limit anchors are taken.
func scan(pageURL *url.URL, body []byte, limit int) (*document, error) {
	d := &document{base: pageURL}
	z := html.NewTokenizer(bytes.NewReader(body))
	var heading string // the element that title is being read from
	inAnchor, hasBase := false, false
	for {
		switch z.Next() {
		case html.ErrorToken:
			return d, nil // always the end: the body is in memory
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			switch t.Data {
			case "base":
				if href, ok := attribute(t, "href"); ok && !hasBase {
					base, err := pageURL.Parse(strings.TrimSpace(href))
					if err != nil {
						return nil, errors.New("its <base> has no URL")
					}
					d.base, hasBase = base, true
				}
			case "meta":
				d.meta(t)
			case "title", "h1":
				if d.title == "" {
					heading = t.Data
				}
			case "a":
				if inAnchor = false; len(d.anchors) == limit {
					return nil, fmt.Errorf("it has more than %d links", limit)
				}
				if _, ok := attribute(t, "href"); ok {
					d.anchors = append(d.anchors, anchor{attributes: t.Attr})
					inAnchor = true
				}
			}
		case html.TextToken:
			switch {
			case heading != "" && len(d.title) < maxText:
				d.title += clip(z.Token().Data)
			case inAnchor:
				if a := &d.anchors[len(d.anchors)-1]; len(a.text) < maxText {
					a.text += clip(z.Token().Data)
				}
			}
		case html.EndTagToken:
			switch name, _ := z.TagName(); string(name) {
			case "a":
				inAnchor = false
			case heading:
				heading = ""
			}
		}
	}
}

func clip(s string) string { return s[:min(len(s), maxText)] }

func attribute(t html.Token, name string) (string, bool) {
	a := anchor{attributes: t.Attr}
	return a.get(name)
}

// meta takes the values that PEP 629 and PEP 792 put into <meta>.
func (d *document) meta(t html.Token) {
	content, _ := attribute(t, "content")
	switch name, _ := attribute(t, "name"); strings.ToLower(name) {
	case "pypi:repository-version":
		d.version = strings.TrimSpace(content)
	case "pypi:project-status":
		d.status = strings.TrimSpace(content)
	case "pypi:project-status-reason":
		d.reason = content
	}
}

// The kept form of what HTML pages say.
type (
	keptPage struct {
		Meta     keptMeta       `json:"meta"`
		Name     string         `json:"name,omitempty"`
		Status   *keptStatus    `json:"project-status,omitempty"`
		Files    *[]keptFile    `json:"files,omitempty"`
		Projects *[]keptProject `json:"projects,omitempty"`
	}
	keptMeta struct {
		Version string `json:"api-version"`
	}
	keptStatus struct {
		Status string `json:"status"`
		Reason string `json:"reason,omitempty"`
	}
	keptProject struct {
		Name string `json:"name"`
	}
	keptFile struct {
		Filename       string            `json:"filename"`
		URL            string            `json:"url"`
		Hashes         map[string]string `json:"hashes"`
		RequiresPython string            `json:"requires-python,omitempty"`
		Size           *int64            `json:"size,omitempty"`
		UploadTime     string            `json:"upload-time,omitempty"`
		CoreMetadata   any               `json:"core-metadata,omitempty"` // true, or hashes
		Yanked         any               `json:"yanked,omitempty"`        // true, or the reason
		Signed         *bool             `json:"gpg-sig,omitempty"`
		Provenance     string            `json:"provenance,omitempty"`
	}
)

// ingestHTML brings a page into the kept form; "" is the list of projects.
func ingestHTML(project string, pageURL *url.URL, body []byte) ([]byte, error) {
	limit := maxFiles
	if project == "" {
		limit = maxProjects
	}
	d, err := scan(pageURL, bytes.ToValidUTF8(body, []byte("\ufffd")), limit)
	if err != nil {
		return nil, err
	}
	kept := keptPage{Meta: keptMeta{Version: "1.0"}}
	if d.version != "" {
		if _, err := minorVersion(d.version); err != nil {
			return nil, err
		}
		kept.Meta.Version = d.version
	}
	if project == "" {
		kept.Projects, err = d.projects(pageURL)
	} else {
		if d.status != "" {
			kept.Status = &keptStatus{Status: d.status, Reason: d.reason}
		}
		kept.Name = d.displayName(project)
		kept.Files, err = d.files(project)
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(kept); err != nil {
		return nil, fmt.Errorf("encode the page: %w", err)
	}
	return b.Bytes(), nil
}

const titlePrefix = "links for "

// displayName is the name in the title if that is the project's.
func (d *document) displayName(project string) string {
	title := strings.TrimSpace(d.title)
	if len(title) > len(titlePrefix) && strings.EqualFold(title[:len(titlePrefix)], titlePrefix) {
		if name := strings.TrimSpace(title[len(titlePrefix):]); validName(name) && Normalize(name) == project {
			return name
		}
	}
	return project
}

// projects returns the names that the list links to. A list without the marker
// of PEP 629 must consist mostly of links to pages right below it whose text
// is the name, or be empty and say what it is.
func (d *document) projects(pageURL *url.URL) (*[]keptProject, error) {
	projects := []keptProject{}
	for i := range d.anchors {
		a := &d.anchors[i]
		name := strings.TrimSuffix(strings.TrimSpace(a.text), "/")
		href, _ := a.get("href")
		u, err := d.base.Parse(strings.TrimSpace(href))
		if err != nil || !validName(name) {
			continue
		}
		segments := strings.Split(strings.TrimSuffix(u.Path, "/"), "/")
		if u.Host == pageURL.Host && Normalize(segments[len(segments)-1]) == Normalize(name) {
			projects = append(projects, keptProject{name})
		}
	}
	title := strings.ToLower(d.title)
	switch {
	case d.version != "":
	case len(projects) > 0 && 2*len(projects) >= len(d.anchors):
	case len(d.anchors) == 0 && strings.Contains(title, "simple"):
	default:
		return nil, errors.New("it is HTML, but no list of projects")
	}
	return &projects, nil
}

// files returns the files that the page links to. A page without the marker of
// PEP 629 must link to a file of the project, or be empty and say what it is:
// so a captive portal's page is refused.
func (d *document) files(project string) (*[]keptFile, error) {
	files := []keptFile{}
	own := d.version != "" ||
		len(d.anchors) <= 2 && strings.HasPrefix(strings.ToLower(strings.TrimSpace(d.title)), titlePrefix)
	for i := range d.anchors {
		f, err := d.file(&d.anchors[i])
		if err != nil {
			return nil, err
		}
		if f != nil {
			own = own || slices.Contains(ProjectOf(f.Filename), project)
			files = append(files, *f)
		}
	}
	if !own {
		return nil, fmt.Errorf("it is HTML, but no page of the project %s", project)
	}
	return &files, nil
}

// file returns the file that an anchor links to, nil if that is no
// distribution: folders, signatures, mail addresses.
func (d *document) file(a *anchor) (*keptFile, error) {
	href, _ := a.get("href")
	u, err := d.base.Parse(strings.TrimSpace(href))
	if err != nil {
		return nil, fmt.Errorf("the link %s is no URL", excerpt(href))
	}
	name := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
	if !isDistribution(name) || u.Scheme != "http" && u.Scheme != "https" {
		return nil, nil
	}
	l, fragment, err := resolve(d.base, href)
	if err != nil {
		return nil, fmt.Errorf("the URL of the file %s: %w", excerpt(name), err)
	}
	f := &keptFile{Filename: name, URL: l.url}
	if f.Hashes, err = hashesOf(strings.Split(fragment, "&")); err != nil {
		return nil, fmt.Errorf("the hash of the file %s: %w", excerpt(name), err)
	}
	f.RequiresPython, _ = a.get("data-requires-python")
	f.UploadTime, _ = a.get("data-upload-time")
	f.Provenance, _ = a.get("data-provenance")
	if reason, ok := a.get("data-yanked"); ok {
		if f.Yanked = reason; reason == "" {
			f.Yanked = true
		}
	}
	if signed, ok := a.get("data-gpg-sig"); ok && (signed == "true" || signed == "false") {
		is := signed == "true"
		f.Signed = &is
	}
	if size, ok := a.get("data-size"); ok {
		if n, err := strconv.ParseInt(size, 10, 64); err == nil && n >= 0 {
			f.Size = &n
		}
	}
	if f.CoreMetadata, err = a.coreMetadata(); err != nil {
		return nil, fmt.Errorf("the metadata hash of the file %s: %w", excerpt(name), err)
	}
	return f, nil
}

// coreMetadata returns true, hashes, or nil where no sibling is advertised,
// under the name of PEP 714 or the one before.
func (a *anchor) coreMetadata() (any, error) {
	value, ok := a.get("data-core-metadata")
	if !ok {
		value, _ = a.get("data-dist-info-metadata")
	}
	if value == "true" {
		return true, nil
	}
	hashes, err := hashesOf([]string{value})
	if err != nil || len(hashes) == 0 {
		return nil, err
	}
	return hashes, nil
}

// hashesOf reads "algo=hex" forms; what is no hash of a known algorithm is not
// looked at.
func hashesOf(forms []string) (map[string]string, error) {
	hashes := map[string]string{}
	for _, form := range forms {
		algo, hex, _ := strings.Cut(form, "=")
		if algo = strings.ToLower(algo); hex == "" || !knownAlgo(algo) {
			continue
		}
		d, err := chantal.NewDigest(strings.ReplaceAll(algo, "_", "-"), hex)
		if err != nil {
			return nil, err
		}
		hashes[algo] = d.Hex()
	}
	return hashes, nil
}
