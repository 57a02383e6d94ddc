package pypi

import (
	"fmt"
	"iter"

	"chantal"
)

var _ chantal.Advisor = Format{}

// Advisories implements chantal.Advisor: the files that a project's page has as
// yanked (PEP 592).
func (Format) Advisories(c chantal.Contents) iter.Seq2[chantal.Advisory, error] {
	return func(yield func(chantal.Advisory, error) bool) {
		root := c.Tree().Roots[0]
		project, ok := pageProject(root)
		if !ok || project == "" {
			return
		}
		p, err := decodePage(root, c.Root(root))
		if err != nil {
			yield(chantal.Advisory{}, fmt.Errorf("read %s: %w", root, err))
			return
		}
		for f, err := range p.offered() {
			if err != nil {
				yield(chantal.Advisory{}, fmt.Errorf("read %s: %w", root, err))
				return
			}
			reason, yanked := f.yanked(p.body)
			if !yanked {
				continue
			}
			a := chantal.Advisory{
				ID: f.name, Type: chantal.Yanked, Title: reason,
				Packages: []chantal.Package{{Name: project, Version: versionOf(f.name, project)}},
			}
			if !yield(a, nil) {
				return
			}
		}
	}
}

// yanked returns why the file was taken back, if it was: true, or a reason
// (PEP 691); the empty text is as good as false.
func (f *file) yanked(b []byte) (reason string, yanked bool) {
	s := get(f.members, "yanked")
	if string(s.of(b)) == "true" {
		return "", true
	}
	reason, _ = text(b, s)
	return reason, reason != ""
}
