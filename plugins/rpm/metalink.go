package rpm

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"chantal"
)

const (
	maxAlternates = 100   // older states that are read of a metalink
	maxListedURLs = 10000 // <url> elements that are looked at
)

// link is what is read of a metalink: version 3.0 with MirrorManager's
// extension, which dnf reads, and version 4 (RFC 5854), where other servers
// offer that for repomd.xml.
type link struct {
	d    *xml.Decoder
	list chantal.MirrorList
	urls []listedURL
	seen int // <url> elements so far
}

type listedURL struct {
	base string
	rank int // the lower, the sooner
}

func parseMetalink(r io.Reader) (chantal.MirrorList, error) {
	m := &link{d: newXMLDecoder(r), list: chantal.MirrorList{Form: metalink}}
	if err := m.read(); err != nil {
		return chantal.MirrorList{}, err
	}
	if len(m.list.Roots) == 0 {
		return chantal.MirrorList{}, fmt.Errorf("it has no checksum of %s that is known here", repomd)
	}
	slices.SortStableFunc(m.urls, func(a, b listedURL) int { return cmp.Compare(a.rank, b.rank) })
	for _, u := range m.urls {
		if len(m.list.Bases) < maxMirrors && !slices.Contains(m.list.Bases, u.base) {
			m.list.Bases = append(m.list.Bases, u.base)
		}
	}
	if len(m.list.Bases) == 0 {
		return chantal.MirrorList{}, fmt.Errorf("none of its %d URLs is an http or https URL of a %s that can be used", m.seen, rootPath)
	}
	return m.list, nil
}

// read reads the document to its end.
func (m *link) read() error {
	rooted, ended, found := false, false, false
	for {
		tok, err := m.d.Token()
		switch {
		case errors.Is(err, io.EOF) && ended && found:
			return nil
		case errors.Is(err, io.EOF) && ended:
			return fmt.Errorf("it has no file %s", repomd)
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			switch {
			case !rooted && tok.Name.Local == metalink:
				rooted = true
			case !rooted || ended:
				return fmt.Errorf("<%.40s> where <%s> was expected", tok.Name.Local, metalink)
			case tok.Name.Local == "files": // version 3 only; its end is the case below
			case tok.Name.Local == "file" && attribute(tok, "name") == repomd && !found:
				found = true
				err = m.file()
			default:
				err = m.d.Skip()
			}
			if err != nil {
				return err
			}
		case xml.EndElement:
			ended = ended || tok.Name.Local == metalink
		}
	}
}

// file reads the <file> that has begun.
func (m *link) file() error {
	present := chantal.ListedRoot{Size: -1}
	var older []chantal.ListedRoot
	err := m.children(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "resources": // version 3
			return m.children(m.url)
		case "url": // version 4
			return m.url(e)
		case "alternates":
			return m.children(func(e xml.StartElement) error {
				if e.Name.Local != "alternate" {
					return m.d.Skip()
				}
				root := chantal.ListedRoot{Size: -1}
				err := m.children(func(e xml.StartElement) error { return m.state(e, &root) })
				if len(root.Digests) > 0 && len(older) < maxAlternates {
					older = append(older, root)
				}
				return err
			})
		}
		return m.state(e, &present)
	})
	if err == nil && len(present.Digests) > 0 {
		m.list.Roots = append([]chantal.ListedRoot{present}, older...)
	}
	return err
}

// state reads an element that says something of one state of the root.
func (m *link) state(e xml.StartElement, root *chantal.ListedRoot) error {
	switch e.Name.Local {
	case "verification": // version 3
		return m.children(func(e xml.StartElement) error {
			if e.Name.Local != "hash" {
				return m.d.Skip()
			}
			return m.hash(e, root)
		})
	case "hash": // version 4
		return m.hash(e, root)
	case "size":
		text, err := m.text()
		if err == nil {
			root.Size, err = size(text)
		}
		return err
	case "timestamp":
		text, err := m.text()
		if err != nil {
			return err
		}
		if sec, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil && sec > 0 && sec < 1<<40 {
			root.Date = time.Unix(sec, 0).UTC()
		}
		return nil
	}
	return m.d.Skip()
}

// hash reads a <hash>. One of a kind that nobody here knows says nothing.
func (m *link) hash(e xml.StartElement, root *chantal.ListedRoot) error {
	sum := checksum{Type: strings.Replace(attribute(e, "type"), "sha-", "sha", 1)}
	var err error
	if sum.Value, err = m.text(); err != nil {
		return err
	}
	found, err := digests(sum)
	for _, d := range found {
		if !slices.Contains(root.Digests, d) {
			root.Digests = append(root.Digests, d)
		}
	}
	slices.SortStableFunc(root.Digests, strongest)
	return err
}

// url reads a <url>: the place of the root at a mirror.
func (m *link) url(e xml.StartElement) error {
	if e.Name.Local != "url" {
		return m.d.Skip()
	}
	if m.seen++; m.seen > maxListedURLs {
		return fmt.Errorf("it has more than %d URLs", maxListedURLs)
	}
	text, err := m.text()
	if err != nil {
		return err
	}
	dir, ok := strings.CutSuffix(strings.TrimSpace(text), "/"+rootPath)
	if !ok {
		return nil
	}
	base, ok := mirrorBase(dir + "/")
	if !ok {
		return nil
	}
	// Version 3 has a preference of up to 100, the higher the better; version
	// 4 a priority, the lower the better.
	rank := 1 << 20
	if n, err := strconv.Atoi(attribute(e, "preference")); err == nil {
		rank = 100 - min(max(n, 0), 100)
	} else if n, err := strconv.Atoi(attribute(e, "priority")); err == nil {
		rank = min(max(n, 0), 1<<20)
	}
	m.urls = append(m.urls, listedURL{base, rank})
	return nil
}

// children calls read for each element in the one that has begun; read
// consumes it with its end.
func (m *link) children(read func(xml.StartElement) error) error {
	for {
		tok, err := m.d.Token()
		if err != nil {
			return early(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if err := read(tok); err != nil {
				return early(err)
			}
		case xml.EndElement:
			return nil
		}
	}
}

// text returns the text of the element that has begun, and consumes its end.
func (m *link) text() (string, error) {
	var b bytes.Buffer
	for {
		tok, err := m.d.Token()
		if err != nil {
			return "", early(err)
		}
		switch tok := tok.(type) {
		case xml.CharData:
			b.Write(tok)
		case xml.StartElement:
			return "", fmt.Errorf("<%.40s> where text was expected", tok.Name.Local)
		case xml.EndElement:
			return b.String(), nil
		}
	}
}

// early is the error of an end in the middle of an element.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func writeEscaped(b *bytes.Buffer, text string) { _ = xml.EscapeText(b, []byte(text)) }
