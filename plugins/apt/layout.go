package apt

import (
	"path"

	"chantal"
)

var _ chantal.Layouter = (*Format)(nil)

// Places implements chantal.Layouter: where a Release announces by-hash, its
// indexes are found under the names of all their digests, too.
func (*Format) Places(listed []chantal.Promise) [][]string {
	places := make([][]string, len(listed))
	for i, p := range listed {
		places[i] = []string{p.Path}
		if p.Alt == "" {
			continue
		}
		for _, d := range p.Digests {
			if folder, ok := byHashFolder[d.Algo()]; ok {
				places[i] = append(places[i], path.Join(path.Dir(p.Path), "by-hash", folder, d.Hex()))
			}
		}
	}
	return places
}

// List implements chantal.Layouter: nothing lists suites.
func (*Format) List([]string) (string, []byte) { return "", nil }
