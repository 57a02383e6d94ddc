package pypi

import (
	"html"
	"strings"

	"chantal"
)

var _ chantal.Layouter = Format{}

// Places implements chantal.Layouter: files lie where the links of a rendered
// page lead (see Classify), and siblings beside them.
func (Format) Places(listed []chantal.Promise) [][]string {
	places := make([][]string, len(listed))
	for i, p := range listed {
		rest, isFile := strings.CutPrefix(p.Path, files)
		wheel := p.SHA256()
		switch {
		case !isFile, strings.HasPrefix(rest, "sha256/"):
			places[i] = []string{p.Path}
		case p.Kind == chantal.Meta && i+1 < len(listed) && listed[i+1].URL == p.URL:
			// The next one is the same under the digest of its wheel.
		case p.Kind == chantal.Artifact && wheel != "":
			places[i] = []string{files + "sha256/" + wheel.Hex() + "/" + rest}
		default:
			places[i] = []string{files + "-/" + rest}
		}
	}
	return places
}

// List implements chantal.Layouter: the list of projects (PEP 503).
func (Format) List(roots []string) (path string, page []byte) {
	page = []byte("<!DOCTYPE html>\n<html><head><meta name=\"pypi:repository-version\" content=\"1.0\"><title>Simple index</title></head><body>\n")
	for _, root := range roots {
		name, ok := pageProject(root)
		if ok && name != "" {
			page = append(page, "<a href=\""+html.EscapeString(name)+"/\">"+html.EscapeString(name)+"</a><br>\n"...)
		}
	}
	return list, append(page, "</body></html>\n"...)
}
