package rpm

import (
	"bytes"
	"io"
	"slices"
)

// told remembers which packages an advisory was already said to be about, for
// sources that have the same one. It is nil where there is one source.
type told map[string]bool

// advisories writes updateinfo: packages that are not held leave the lists of
// packages, and an advisory leaves with the last of its own. Where sources have
// an advisory in common, that of the later one stands as it is; the other
// follows with what packages it alone has, as clients see it that have both
// repositories.
func (e *edition) advisories(old part, parts []part) ([]byte, error) {
	left := 0
	raw, err := e.write(old.listed, func(w io.Writer) (again bool, err error) {
		var seen told
		if len(parts) > 1 {
			seen = told{}
		}
		left, err = splice(w, parts, -1, "update", func(_ *source, _ int, element []byte) ([]byte, error) {
			return e.advisory(element, seen)
		}, "updates")
		return false, err
	})
	if left == 0 {
		raw = nil
	}
	return raw, err
}

// advisory returns what remains of an <update>, nil for nothing.
func (e *edition) advisory(element []byte, seen told) ([]byte, error) {
	id := ""
	if seen != nil {
		var err error
		if id, err = (place{path: "id"}).read(element); err != nil {
			return nil, err
		}
	}
	var (
		a          = cutter{of: element}
		m          = markup{rest: element}
		open       []span // elements that are open, outermost first
		had, kept  int    // packages
		mine, here int    // the same in the present collection
	)
	for {
		from := len(element) - len(m.rest)
		t, err := m.next()
		if err != nil {
			return nil, err
		}
		text := from
		from += len(m.text)
		to := len(element) - len(m.rest)
		if t.kind != closing {
			name := string(t.name)
			if name == "collection" {
				mine, here = 0, 0
			}
			open = append(open, span{from: blanksBefore(element, text, from), name: name, tag: t})
			if t.kind == opening {
				continue
			}
		}
		if len(open) == 0 {
			return nil, errMarkup
		}
		done := open[len(open)-1]
		open = open[:len(open)-1]
		switch {
		case len(open) == 0:
			if had > 0 && kept == 0 || seen.again(id, had) {
				return nil, nil
			}
			return a.rest(), nil
		case done.name == "package" && open[len(open)-1].name == "collection":
			had, mine = had+1, mine+1
			held, err := e.heldIn(done.tag, id, seen)
			if err != nil {
				return nil, err
			}
			if held {
				kept, here = kept+1, here+1
			} else {
				a.cut(done.from, to)
			}
		case done.name == "collection" && mine > 0 && here == 0:
			a.cut(done.from, to)
		}
	}
}

// span is an element that has begun.
type span struct {
	from int // with the blanks before it
	name string
	tag  tag
}

// blanksBefore returns where the blanks that end at end begin, not before from.
func blanksBefore(b []byte, from, end int) int {
	return from + len(bytes.TrimRight(b[from:end], " \t\r\n"))
}

// heldIn reports whether the <package> of an advisory is held, and was not told
// of before.
func (e *edition) heldIn(t tag, id string, seen told) (bool, error) {
	var values [5]string
	for i, key := range [...]string{"name", "epoch", "version", "release", "arch"} {
		var err error
		if values[i], err = t.attr(key); err != nil {
			return false, err
		}
	}
	key := nevra(oneLine(values[0]), evr(values[1], values[2], values[3]), oneLine(values[4]))
	if !e.byNEVRA[key] {
		return false, nil
	}
	if seen != nil {
		if key = id + "\x00" + key; seen[key] {
			return false, nil
		}
		seen[key] = true
	}
	return true, nil
}

// again reports whether an advisory that is about no package was told before.
func (s told) again(id string, packages int) bool {
	if s == nil || packages > 0 {
		return false
	}
	before := s[id]
	s[id] = true
	return before
}

// cutter copies bytes but for what is cut out of them.
type cutter struct {
	of   []byte
	cuts []cut
}

// cut is a piece that is left out, and what stands there instead.
type cut struct {
	from, to int
	with     []byte
}

// cut leaves out what is from from to to. A piece may hold those cut just
// before it.
func (c *cutter) cut(from, to int, with ...byte) {
	for n := len(c.cuts); n > 0 && c.cuts[n-1].from >= from && c.cuts[n-1].to <= to; n-- {
		c.cuts = c.cuts[:n-1]
	}
	c.cuts = append(c.cuts, cut{from, to, with})
}

// rest returns what was not cut.
func (c *cutter) rest() []byte {
	if len(c.cuts) == 0 {
		return c.of
	}
	slices.SortFunc(c.cuts, func(a, b cut) int { return a.from - b.from })
	var kept []byte
	at := 0
	for _, cut := range c.cuts {
		kept = append(append(kept, c.of[at:cut.from]...), cut.with...)
		at = cut.to
	}
	return append(kept, c.of[at:]...)
}
