package rpm

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"chantal"
)

var _ chantal.Advisor = Format{}

// update is one <update> of updateinfo.xml.
type update struct {
	Type       string `xml:"type,attr"`
	ID         string `xml:"id"`
	Title      string `xml:"title"`
	Severity   string `xml:"severity"`
	References []struct {
		Type string `xml:"type,attr"`
		ID   string `xml:"id,attr"`
	} `xml:"references>reference"`
	Packages []struct {
		Name    string `xml:"name,attr"`
		Epoch   string `xml:"epoch,attr"`
		Version string `xml:"version,attr"`
		Release string `xml:"release,attr"`
		Arch    string `xml:"arch,attr"`
	} `xml:"pkglist>collection>package"`
}

// Advisories implements chantal.Advisor: the updates of updateinfo.
func (Format) Advisories(c chantal.Contents) iter.Seq2[chantal.Advisory, error] {
	return func(yield func(chantal.Advisory, error) bool) {
		for _, index := range c.Listed() {
			if !isXML(index.Path, "updateinfo.xml") {
				continue
			}
			err := readUpdates(c, index, yield)
			if err != nil && !errors.Is(err, errStopped) {
				yield(chantal.Advisory{}, fmt.Errorf("read %s: %w", index.Path, err))
			}
			return
		}
	}
}

// errStopped says that the consumer of a sequence has left.
var errStopped = errors.New("the consumer has left")

func readUpdates(c chantal.Contents, index chantal.Promise, yield func(chantal.Advisory, error) bool) error {
	r, err := c.Open(index)
	if err != nil {
		return err
	}
	defer r.Close()
	for s := (splitter{r: r}); ; {
		element, err := s.next("update", "updates")
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var u update
		if err := xml.Unmarshal(element, &u); err != nil {
			return err
		}
		if !yield(u.advisory(), nil) {
			return errStopped
		}
	}
}

func (u *update) advisory() chantal.Advisory {
	a := chantal.Advisory{ID: oneLine(u.ID), Type: oneLine(u.Type), Severity: oneLine(u.Severity), Title: oneLine(u.Title)}
	for _, r := range u.References {
		if strings.EqualFold(r.Type, "cve") {
			a.CVEs = append(a.CVEs, oneLine(r.ID))
		}
	}
	for _, p := range u.Packages {
		a.Packages = append(a.Packages, chantal.Package{
			Name: oneLine(p.Name), Version: evr(p.Epoch, p.Version, p.Release), Arch: oneLine(p.Arch),
		})
	}
	return a
}
