package formattest

import (
	"cmp"

	"chantal"
)

// CheckOrder returns in what f's order of the three versions is none (it has
// to be a total preorder), or nil. It suits fuzz targets.
func CheckOrder(f chantal.Format, a, b, c string) error {
	compare := func(v, w string) int { return cmp.Compare(f.(chantal.Comparer).CompareVersions(v, w), 0) }
	for _, v := range [...]string{a, b, c} {
		if compare(v, v) != 0 {
			return broken("%q is not equal to itself", v)
		}
	}
	for _, p := range [...][2]string{{a, b}, {b, c}, {a, c}} {
		if ahead, back := compare(p[0], p[1]), compare(p[1], p[0]); ahead != -back {
			return broken("%q to %q is %d, and the other way round %d", p[0], p[1], ahead, back)
		}
	}
	for _, p := range [...][3]string{{a, b, c}, {a, c, b}, {b, a, c}, {b, c, a}, {c, a, b}, {c, b, a}} {
		if compare(p[0], p[1]) <= 0 && compare(p[1], p[2]) <= 0 && compare(p[0], p[2]) > 0 {
			return broken("%q ≤ %q ≤ %q, but the first is behind the last", p[0], p[1], p[2])
		}
	}
	return nil
}

// CheckVersions compares every two of versions, which are in order; those in
// one element are equal. It returns the first that are not, or a broken law.
func CheckVersions(f chantal.Format, versions ...[]string) error {
	order := f.(chantal.Comparer)
	for i, group := range versions {
		for j, other := range versions {
			for _, v := range group {
				for _, w := range other {
					if got, want := cmp.Compare(order.CompareVersions(v, w), 0), cmp.Compare(i, j); got != want {
						return broken("%q to %q is %d, want %d", v, w, got, want)
					}
				}
			}
		}
	}
	for i := range versions {
		a, b, c := versions[i][0], versions[(i+1)%len(versions)][0], versions[(i+2)%len(versions)][0]
		if err := CheckOrder(f, a, b, c); err != nil {
			return err
		}
	}
	return nil
}
