package pypi

import (
	"net/url"
	"strings"

	"chantal"
)

// Locate implements chantal.Locator. A client that asks for the types of
// PEP 691 is taken at its word: the last folder of the URL is a project, the
// one above it the index. Without that only ".../simple/NAME/" is recognised,
// and ".../simple/" as a list. Root has the project's normalised name, Path
// the one in the URL. Paths of files have no location: pages promise them.
func (Format) Locate(u *url.URL, accept string) []chantal.Location {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Opaque != "" {
		return nil
	}
	asked := strings.Contains(strings.ToLower(accept), "application/vnd.pypi.simple")
	path, folder := strings.CutSuffix(u.EscapedPath(), "/")
	cut := strings.LastIndexByte(path, '/')
	if cut < 0 {
		return nil
	}
	parent, name := path[:cut+1], path[cut+1:]
	if unescaped, err := url.PathUnescape(name); err == nil {
		name = unescaped
	}
	if !validName(name) || checkPath(strings.Trim(u.Path, "/")) != nil {
		return nil
	}
	if !folder && isDistribution(name) {
		return nil
	}
	origin := u.Scheme + "://" + u.Host
	var locations []chantal.Location
	if name == "simple" {
		locations = append(locations, chantal.Location{Base: origin + path + "/", Root: list, Path: list})
	}
	if strings.HasSuffix(parent, "/simple/") && (folder || asked) || folder && asked {
		given := list + name
		if folder {
			given += "/"
		}
		locations = append(locations, chantal.Location{
			Base: origin + parent, Root: pagePath(Normalize(name)), Path: given,
		})
	}
	return locations
}
