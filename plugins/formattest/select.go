package formattest

import (
	"reflect"
	"slices"

	"chantal"
)

// Selected is what of a generation belongs to a selection.
type Selected struct {
	Indexes   []chantal.Promise // the preferred one of each group that is stored, else of each group
	Artifacts []chantal.Promise // in the order in which the root and Indexes promise them
}

// Select returns what of c belongs to sel. The error is one of s, or says
// which law of chantal.Selector is broken.
func Select(f chantal.Format, sel *chantal.Selection, c chantal.Contents) (Selected, error) {
	s := f.(chantal.Selector)
	groups, err := s.Indexes(sel, c)
	if err != nil {
		return Selected{}, err
	}
	if err := checkGroups(groups, c.Listed()); err != nil {
		return Selected{}, err
	}
	var got Selected
	promised := slices.Clone(c.Listed())
	for _, group := range groups {
		index := group[0]
		for _, p := range group {
			if r, err := c.Open(p); err == nil {
				r.Close()
				index = p
				break
			}
		}
		got.Indexes = append(got.Indexes, index)
		for p, err := range c.Promises(index) {
			if err != nil {
				break // not stored
			}
			promised = append(promised, p)
		}
	}
	got.Artifacts, err = held(s, sel, c, promised)
	if err != nil {
		return Selected{}, err
	}
	slices.Reverse(promised)
	again, err := held(s, sel, c, promised)
	if err != nil {
		return Selected{}, err
	}
	slices.Reverse(again)
	if !reflect.DeepEqual(got.Artifacts, again) {
		return Selected{}, broken("in another order other artifacts belong to %+v", sel)
	}
	return got, nil
}

func checkGroups(groups [][]chantal.Promise, listed []chantal.Promise) error {
	seen := make(map[string]bool)
	for i, group := range groups {
		if len(group) == 0 {
			return broken("group %d is empty", i)
		}
		for _, p := range group {
			same := func(q chantal.Promise) bool { return reflect.DeepEqual(p, q) }
			switch {
			case p.Kind != chantal.Meta:
				return broken("%s is selected as an index and is %v", p.Path, p.Kind)
			case !slices.ContainsFunc(listed, same):
				return broken("%s is selected and not listed", p.Path)
			case seen[p.Path]:
				return broken("%s is selected twice", p.Path)
			}
			seen[p.Path] = true
		}
	}
	return nil
}

// held returns those of promised that belong to sel.
func held(s chantal.Selector, sel *chantal.Selection, c chantal.Contents, promised []chantal.Promise) ([]chantal.Promise, error) {
	belongs, err := s.Artifacts(sel, c)
	if err != nil {
		return nil, err
	}
	var all []chantal.Promise
	for _, p := range promised {
		q := p
		ok := belongs(&q)
		switch {
		case !reflect.DeepEqual(p, q):
			return nil, broken("asking whether %s belongs changes it", p.Path)
		case ok && p.Kind != chantal.Artifact:
			return nil, broken("%s belongs and is %v", p.Path, p.Kind)
		case ok:
			all = append(all, p)
		}
	}
	return all, nil
}

// CheckSelection returns which law of chantal.Selector f breaks with sel and
// the catalog root, or nil. It suits fuzz targets. An error of Trees is none.
func CheckSelection(f chantal.Format, sel *chantal.Selection, catalog []byte) error {
	s := f.(chantal.Selector)
	if t := s.Catalog(sel); t.Name != "" {
		if len(t.Roots) == 0 || !reflect.DeepEqual(f.Classify(t.Roots[0]).Tree, t) {
			return broken("the catalog of %+v is no tree of the format: %+v", sel, t)
		}
	}
	trees, err := s.Trees(sel, catalog)
	if err != nil {
		return nil
	}
	seen := make(map[string]bool, len(trees))
	for _, t := range trees {
		switch {
		case seen[t.Name]:
			return broken("%+v has the tree %s twice", sel, t.Name)
		case t.Serial < 0:
			return broken("the serial of %s is %d", t.Name, t.Serial)
		case len(t.Roots) == 0:
			return broken("the tree %s has no roots", t.Name)
		}
		seen[t.Name] = true
		for _, root := range t.Roots {
			if c := f.Classify(root); c.Kind != chantal.Root || !reflect.DeepEqual(c.Tree, t.Tree) {
				return broken("the root %s of %s is %+v", root, t.Name, c)
			}
		}
	}
	return nil
}
