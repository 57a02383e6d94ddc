package apt

import (
	"net/url"
	"path"
	"slices"
	"strings"

	"chantal"
)

// maxSuiteDepth is how many folders a suite's name may have for Locate to
// find it from one of its indexes: "stable/updates" has two.
const maxSuiteDepth = 4

// Prefix implements chantal.Locator: an upstream URL holds dists, or the flat
// repository, itself.
func (*Format) Prefix() string { return "" }

// Locate implements chantal.Locator. A file below dists belongs to the folder
// that holds dists; whose index it is only the roots can tell, shortest suite
// first. Any other root lies in a flat repository that begins in its folder.
// Of a package alone nothing can be said. The base is spelled as in u, doubled
// slashes and "./" included, since upstream may care; the paths are clean.
func (*Format) Locate(u *url.URL, _ string) []chantal.Location {
	raw := strings.Split(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
	names := make([]string, len(raw))
	for i, segment := range raw {
		name, err := url.PathUnescape(segment)
		if err != nil || name == ".." || strings.Contains(name, "/") {
			return nil
		}
		if name == "." {
			name = ""
		}
		names[i] = name
	}
	last := names[len(names)-1]
	if u.Host == "" || last == "" {
		return nil
	}
	base := func(n int) string {
		b := url.URL{Scheme: u.Scheme, Host: u.Host}
		return b.String() + strings.Join(append([]string{""}, append(slices.Clone(raw[:n]), "")...), "/")
	}
	if at := slices.Index(names, "dists"); at >= 0 {
		below := slices.DeleteFunc(slices.Clone(names[at+1:]), func(s string) bool { return s == "" })
		if locations := inDists(below); locations != nil {
			for i := range locations {
				locations[i].Base = base(at)
			}
			return locations
		}
	}
	if !isRoot(last) {
		return nil
	}
	return validLocations([]chantal.Location{{Base: base(len(raw) - 1), Root: inRelease, Path: last}})
}

// inDists returns the locations, without their bases, for the path below
// dists.
func inDists(below []string) []chantal.Location {
	if len(below) < 2 {
		return nil // a file in dists itself
	}
	p := path.Join("dists", path.Join(below...))
	suite := below[:len(below)-1]
	if at := slices.IndexFunc(suite, isIndexFolder); at >= 0 {
		suite = suite[:at]
	} else if isRoot(below[len(below)-1]) {
		root := path.Join("dists", path.Join(suite...), inRelease)
		return validLocations([]chantal.Location{{Root: root, Path: p}})
	}
	locations := []chantal.Location{}
	for n := 1; n <= min(len(suite), maxSuiteDepth); n++ {
		root := path.Join("dists", path.Join(suite[:n]...), inRelease)
		locations = append(locations, chantal.Location{Root: root, Path: p})
	}
	return validLocations(locations)
}

// validLocations drops those whose path no repository can have.
func validLocations(locations []chantal.Location) []chantal.Location {
	return slices.DeleteFunc(locations, func(l chantal.Location) bool {
		_, err := clean(l.Path)
		return err != nil
	})
}
