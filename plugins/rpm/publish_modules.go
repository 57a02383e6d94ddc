package rpm

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"strings"
)

// documents yields the documents of p.
func (p part) documents() iter.Seq2[*document, error] {
	return func(yield func(*document, error) bool) {
		r, err := p.open()
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.Close()
		for d, err := range documents(r) {
			if err != nil {
				err = fmt.Errorf("read %s: %w", p.at.Path, err)
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// readStreams reads which package is of which stream of a module.
func (s *source) readStreams() error {
	if s.streams != nil {
		return nil
	}
	s.streams = map[string]string{}
	for _, r := range s.records {
		if r.Type != "modules" {
			continue
		}
		for d, err := range (part{s, r}).documents() {
			if err != nil {
				return err
			}
			for _, a := range d.artifacts {
				if s.streams[a.nevra] == "" {
					s.streams[a.nevra] = d.stream()
				}
			}
		}
	}
	return nil
}

// modules writes the documents about modules. An artifact leaves when the
// package is in a source and not held; what no source ever had (sources and
// debugging information, in repositories of their own) is not for this one to
// judge. A stream leaves with the last of its packages, and with it what
// speaks of it: defaults, obsoletes, translations.
func (e *edition) modules(old part, parts []part) ([]byte, error) {
	streams, err := e.streams(parts)
	if err != nil {
		return nil, err
	}
	left := 0
	raw, err := e.write(old.listed, func(w io.Writer) (again bool, err error) {
		b := bufio.NewWriterSize(w, chunk)
		seen := map[string]bool{}
		for _, p := range parts {
			for d, err := range p.documents() {
				if err != nil {
					return false, err
				}
				id := d.identity()
				if seen[id] && len(parts) > 1 {
					continue
				}
				seen[id] = true
				if raw := e.document(d, streams); raw != nil {
					left++
					fmt.Fprintf(b, "---\n%s", raw)
					if raw[len(raw)-1] != '\n' {
						b.WriteByte('\n')
					}
					b.WriteString("...\n")
				}
			}
		}
		return false, b.Flush()
	})
	if left == 0 {
		raw = nil
	}
	return raw, err
}

// streams tells of each module and of each NAME:STREAM in parts whether it is
// still there.
func (e *edition) streams(parts []part) (map[string]bool, error) {
	there := map[string]bool{}
	for _, p := range parts {
		for d, err := range p.documents() {
			if err != nil {
				return nil, err
			}
			if !isStream(d.kind) {
				continue
			}
			stays := e.stays(d)
			name, _, _ := strings.Cut(d.stream(), ":")
			there[d.stream()] = there[d.stream()] || stays
			there[name] = there[name] || stays
		}
	}
	return there, nil
}

// isStream reports whether documents of that kind list the packages of a
// stream.
func isStream(kind string) bool {
	return kind == "modulemd" || strings.HasPrefix(kind, "modulemd-stream")
}

// stays reports whether a stream is kept: one of its packages is held, or no
// source ever had one, as where it is for another architecture.
func (e *edition) stays(d *document) bool {
	had := false
	for _, a := range d.artifacts {
		held, known := e.byNEVRA[a.nevra]
		if held {
			return true
		}
		had = had || known
	}
	return !had
}

// document returns what remains of a document, nil for nothing. streams is
// what streams returns.
func (e *edition) document(d *document, streams map[string]bool) []byte {
	gone := func(key string) bool {
		there, known := streams[key]
		return known && !there
	}
	if isStream(d.kind) {
		if !e.stays(d) {
			return nil
		}
		return e.withoutGone(d)
	}
	stream := d.stream()
	module, _, _ := strings.Cut(stream, ":")
	if d.kind == "modulemd-defaults" {
		if gone(module) {
			return nil
		}
		c := cutter{of: d.raw}
		if line, ok := d.spans["data/stream"]; ok && gone(stream) {
			c.cut(line.from, line.to)
		}
		return c.rest()
	}
	by := d.values["data/obsoleted_by/module"] + ":" + d.values["data/obsoleted_by/stream"]
	if gone(stream) || gone(by) {
		return nil
	}
	return d.raw
}

// withoutGone returns a stream's document without the artifacts that are gone.
func (e *edition) withoutGone(d *document) []byte {
	c := cutter{of: d.raw}
	var texts []string
	for _, a := range d.artifacts {
		if held, known := e.byNEVRA[a.nevra]; held || !known {
			texts = append(texts, "'"+a.text+"'")
		} else if a.lines.to > 0 {
			c.cut(a.lines.from, a.lines.to)
		}
	}
	if len(texts) == len(d.artifacts) {
		return d.raw
	}
	if lines, ok := d.spans["data/artifacts/rpm-map"]; ok {
		c.cut(lines.from, lines.to) // says the same once more, by checksums
	}
	if d.flow.to > 0 {
		c.cut(d.flow.from, d.flow.to, []byte("["+strings.Join(texts, ", ")+"]")...)
	}
	return c.rest()
}
