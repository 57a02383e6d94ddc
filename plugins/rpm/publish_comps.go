package rpm

import (
	"bytes"
	"fmt"
	"io"
)

// comps returns the <data> for groups of packages. They name packages without
// versions, and clients pass over names that they do not find, so those of one
// source stay as they are. Those of several are put together: of groups with
// one id the later source's stands, with what the others list beside it.
func (e *edition) comps(first part) ([]byte, error) {
	parts := e.parts(func(kind string) bool { return familyOf(kind) == groups })
	if len(parts) == 1 {
		r, err := first.open() // only to see that it is there
		if err != nil {
			return nil, err
		}
		return first.raw, r.Close()
	}
	return e.write(first.listed, func(w io.Writer) (again bool, err error) {
		merged := compsFile{at: map[string]int{}}
		for _, p := range parts {
			if err := merged.add(p); err != nil {
				return false, err
			}
		}
		if _, err := io.WriteString(w, xmlDeclaration+"<comps>\n"); err != nil {
			return false, err
		}
		for _, element := range merged.elements {
			if _, err := fmt.Fprintf(w, "  %s\n", element); err != nil {
				return false, err
			}
		}
		_, err = io.WriteString(w, "</comps>\n")
		return false, err
	})
}

// compsFile is the children of a <comps>: <group>, <category>, <environment>,
// <langpacks> and what else there is.
type compsFile struct {
	elements [][]byte
	at       map[string]int // of elements, by name and id
}

func (f *compsFile) add(p part) error {
	r, err := p.open()
	if err != nil {
		return err
	}
	defer r.Close()
	s := splitter{r: r}
	for n := 1; ; n++ {
		element, err := s.next("", "comps")
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = f.addElement(bytes.Clone(element))
		}
		if err != nil {
			return fmt.Errorf("read %s: element %d: %w", p.at.Path, n, err)
		}
	}
}

func (f *compsFile) addElement(element []byte) error {
	id, err := place{path: "id"}.read(element)
	if err != nil {
		return err
	}
	key := string(rawName(element)) + "\x00" + id
	at, there := f.at[key]
	if !there {
		f.at[key] = len(f.elements)
		f.elements = append(f.elements, element)
		return nil
	}
	f.elements[at], err = mergeLists(f.elements[at], element)
	return err
}

// mergeLists returns the element into with the entries of its lists that only
// from has: the children of <packagelist>, <grouplist>, <optionlist>, and those
// of an element that is a list itself, <langpacks>.
func mergeLists(into, from []byte) ([]byte, error) {
	have, ends, err := readLists(into)
	if err != nil {
		return nil, err
	}
	more, _, err := readLists(from)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, entry := range have {
		known[entry.key] = true
	}
	added := map[string][]byte{}
	for _, entry := range more {
		if !known[entry.key] {
			added[entry.list] = append(append(added[entry.list], "  "...), entry.raw...)
			known[entry.key] = true
		}
	}
	var merged []byte
	at := 0
	for _, end := range ends {
		merged = append(append(merged, into[at:end.from]...), added[end.name]...)
		at = end.from
	}
	return append(merged, into[at:]...), nil
}

// entry is a child of a list.
type entry struct {
	list string
	key  string // what two entries have in common that mean the same
	raw  []byte
}

// readLists returns the entries of an element's lists, and where each list that
// is not empty ends, in their order.
func readLists(element []byte) (entries []entry, ends []span, err error) {
	m := markup{rest: element}
	var open []span
	for {
		from := len(element) - len(m.rest)
		t, err := m.next()
		if err != nil {
			return nil, nil, err
		}
		from += len(m.text)
		if t.kind != closing {
			open = append(open, span{from: from, name: string(t.name), tag: t})
			if t.kind == opening {
				continue
			}
		}
		if len(open) == 0 {
			return nil, nil, errMarkup
		}
		done := open[len(open)-1]
		open = open[:len(open)-1]
		if len(open) == 0 {
			if isList(done.name) && t.kind == closing {
				ends = append(ends, span{from: from, name: done.name})
			}
			return entries, ends, nil
		}
		switch list := open[len(open)-1].name; {
		case isList(done.name) && t.kind == closing:
			ends = append(ends, span{from: from, name: done.name})
		case isList(list):
			raw := element[done.from : len(element)-len(m.rest)]
			text := ""
			if t.kind == closing {
				if text, err = m.line(); err != nil {
					return nil, nil, err
				}
			} else {
				text = string(raw)
			}
			entries = append(entries, entry{list: list, key: list + "\x00" + done.name + "\x00" + text, raw: raw})
		}
	}
}

func isList(name string) bool {
	switch name {
	case "packagelist", "grouplist", "optionlist", "langpacks":
		return true
	}
	return false
}
