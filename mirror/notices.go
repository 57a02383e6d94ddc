package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"chantal"
)

// notices compares what two states of a tree say of its packages; changes are
// those of the packages.
func (d *differ) notices(a, b *contents, changes []Change) error {
	before, knownA, err := d.advisories(a)
	if err != nil {
		return err
	}
	after, knownB, err := d.advisories(b)
	if err != nil {
		return err
	}
	if !knownA || !knownB {
		d.diff.Unknown = append(d.diff.Unknown, UnknownContent{Tree: b.state.Tree, Index: "advisories", A: !knownA, B: !knownB})
	}
	if !knownB {
		return nil
	}
	came := map[chantal.Package]bool{}
	for _, c := range changes {
		if c.To != "" {
			came[chantal.Package{Name: c.Name, Version: c.To, Arch: c.Arch}] = true
		}
	}
	for _, id := range sorted(after) {
		_, had := before[id]
		n := ChangedNotice{Tree: b.state.Tree, Advisory: after[id], New: knownA && !had}
		concerned := slices.ContainsFunc(n.Packages, func(p chantal.Package) bool { return came[p] })
		switch {
		case n.Type != chantal.Yanked && (n.New || concerned):
			d.diff.Advisories = append(d.diff.Advisories, n)
		case n.Type == chantal.Yanked && n.New:
			d.diff.Yanked = append(d.diff.Yanked, n)
		}
	}
	for _, id := range sorted(before) {
		if _, has := after[id]; !has && id.kind == chantal.Yanked && b.offers(id.id) {
			d.diff.Unyanked = append(d.diff.Unyanked, ChangedNotice{Tree: b.state.Tree, Advisory: before[id]})
		}
	}
	return nil
}

// offers reports whether the roots promise a file of that name.
func (c *contents) offers(name string) bool {
	return slices.ContainsFunc(c.listed.all, func(p chantal.Promise) bool { return path.Base(p.Path) == name })
}

// noticeKey is what an advisory is recognised by.
type noticeKey struct{ kind, id string }

func sorted(all map[noticeKey]chantal.Advisory) []noticeKey {
	return slices.SortedFunc(maps.Keys(all), func(a, b noticeKey) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.kind, b.kind))
	})
}

// advisories returns what a tree says of its packages. Where what says it is
// not stored, known is false, and that is noted.
func (d *differ) advisories(c *contents) (all map[noticeKey]chantal.Advisory, known bool, err error) {
	all = map[noticeKey]chantal.Advisory{}
	advisor, ok := c.repo.Format.(chantal.Advisor)
	if !ok {
		return all, true, nil
	}
	for a, err := range advisor.Advisories(c) {
		if errors.Is(err, fs.ErrNotExist) {
			return all, false, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("comparing advisories of %s: %w", c.state.Tree, err)
		}
		all[noticeKey{a.Type, a.ID}] = a
	}
	return all, true, nil
}
