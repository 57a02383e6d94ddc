package rpm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// document is one of the YAML documents of a modules.yaml: what it says, as far
// as it matters here, and where in its bytes that stands. Of YAML the block
// style is read that libmodulemd writes, and flow sequences of artifacts.
type document struct {
	raw       []byte // without the lines that separate documents
	kind      string // "modulemd", "modulemd-defaults", "modulemd-obsoletes", …
	values    map[string]string
	artifacts []artifact
	spans     map[string]cut // whole lines of a key and what is below it
	flow      cut            // the sequence of artifacts, where it is in flow style
}

// artifact is a package that a module document lists.
type artifact struct {
	nevra string // as nevra joins it
	text  string // as written
	lines cut    // whole lines; zero in flow style
}

// stream returns NAME:STREAM; "" for a document about neither.
func (d *document) stream() string {
	name := d.values["data/name"]
	if name == "" {
		name = d.values["data/module"]
	}
	return name + ":" + d.values["data/stream"]
}

// identity returns what two documents share that are the same one in two
// sources.
func (d *document) identity() string {
	id := d.kind
	keys := []string{"data/stream", "data/version", "data/context", "data/arch", "data/modified"}
	if d.kind == "modulemd-defaults" {
		keys = nil
	}
	id += "\x00" + d.values["data/name"] + "\x00" + d.values["data/module"]
	for _, key := range keys {
		id += "\x00" + d.values[key]
	}
	return id
}

// maxLine is how long a line of a document may be, in bytes.
const maxLine = 1 << 20

// documents yields the documents of a modules.yaml. The sequence ends at its
// first error.
func documents(r io.Reader) iter.Seq2[*document, error] {
	return func(yield func(*document, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 0, chunk), maxLine)
		lines.Split(wholeLines)
		var raw []byte
		n := 0
		flush := func() bool {
			defer func() { raw = nil }()
			if isBlank(raw) {
				return true
			}
			n++
			d, err := readDocument(raw)
			if err != nil {
				err = fmt.Errorf("document %d: %w", n, err)
			}
			return yield(d, err) && err == nil
		}
		for lines.Scan() {
			line := lines.Bytes()
			begin, rest := marker(line, "---")
			end, _ := marker(line, "...")
			if begin || end {
				if !flush() {
					return
				}
				line = rest
			}
			if end {
				continue
			}
			if len(raw)+len(line) > maxElement {
				yield(nil, fmt.Errorf("a document is longer than %d bytes", maxElement))
				return
			}
			raw = append(raw, line...)
		}
		if err := lines.Err(); err != nil {
			yield(nil, err)
			return
		}
		flush()
	}
}

// wholeLines splits as bufio.ScanLines does, and leaves line ends where they are.
func wholeLines(b []byte, ended bool) (advance int, line []byte, err error) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1, b[:i+1], nil
	}
	if ended && len(b) > 0 {
		return len(b), b, nil
	}
	return 0, nil, nil
}

// marker reports whether a line begins with a marker, and what follows it.
func marker(line []byte, mark string) (is bool, rest []byte) {
	rest, is = bytes.CutPrefix(line, []byte(mark))
	if !is || len(rest) > 0 && bytes.IndexByte([]byte(" \t\r\n"), rest[0]) < 0 {
		return false, line
	}
	return true, bytes.TrimLeft(rest, " \t\r\n")
}

// isBlank reports whether a document has nothing but blanks, comments and
// directives.
func isBlank(raw []byte) bool {
	for line := range bytes.Lines(raw) {
		if t := bytes.TrimSpace(line); len(t) > 0 && t[0] != '#' && t[0] != '%' {
			return false
		}
	}
	return true
}

var errFlow = errors.New("it is not in block style")

// readDocument reads one document; it keeps raw.
func readDocument(raw []byte) (*document, error) {
	d := &document{raw: raw, values: map[string]string{}, spans: map[string]cut{}}
	r := blockReader{document: d}
	for at := 0; at < len(raw); {
		end := len(raw)
		if i := bytes.IndexByte(raw[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		next, err := r.line(at, end)
		if err != nil {
			return nil, err
		}
		at = next
	}
	r.leave(len(raw), -1, false)
	if d.kind = d.values["document"]; d.kind == "" {
		return nil, errors.New("it does not say what it is")
	}
	return d, nil
}

// blockReader follows block style by its indentation.
type blockReader struct {
	*document
	open []key
}

// key is a key whose value is being read, or an item of a sequence.
type key struct {
	indent int
	path   string // of keys, joined by slashes
	from   int    // where its line begins
}

// line reads the line raw[at:end] and returns where the next one begins.
func (r *blockReader) line(at, end int) (next int, err error) {
	line := bytes.TrimRight(r.raw[at:end], " \t\r\n")
	text := bytes.TrimLeft(line, " ")
	if len(text) == 0 || text[0] == '#' {
		return end, nil
	}
	indent := len(line) - len(text)
	item, isItem := bytes.CutPrefix(text, []byte("-"))
	isItem = isItem && (len(item) == 0 || item[0] == ' ')
	r.leave(at, indent, isItem)
	parent := ""
	if len(r.open) > 0 {
		parent = r.open[len(r.open)-1].path
	}
	if isItem {
		if parent == "data/artifacts/rpms" {
			return end, r.artifact(item, cut{from: at, to: end})
		}
		r.open = append(r.open, key{indent: indent + 1, path: parent + "/-", from: at})
		return end, nil
	}
	name, value, ok := cutKey(text)
	if !ok {
		if len(r.open) == 0 && text[0] != '!' {
			return 0, errFlow
		}
		return end, nil // a scalar goes on, or the document has a tag
	}
	path := name
	if parent != "" {
		path = parent + "/" + name
	}
	r.open = append(r.open, key{indent: indent, path: path, from: at})
	switch path {
	case "data", "data/artifacts":
		if v := comment(value); v != "" && v != "{}" && v[0] != '&' {
			return 0, errFlow
		}
	case "data/artifacts/rpms":
		switch v := comment(value); {
		case v == "", v == "~", v == "null":
		case v[0] == '[':
			return r.flowItems(at + bytes.IndexByte(r.raw[at:end], '['))
		default:
			return 0, errFlow
		}
	case "document", "data/name", "data/module", "data/stream", "data/version", "data/context", "data/arch",
		"data/modified", "data/obsoleted_by/module", "data/obsoleted_by/stream":
		r.values[path], err = scalar(value)
	}
	return end, err
}

// leave closes the keys that a line with that indentation, which begins at at,
// is not below. The items of a sequence may stand as far left as its key.
func (r *blockReader) leave(at, indent int, isItem bool) {
	for len(r.open) > 0 {
		top := r.open[len(r.open)-1]
		if top.indent < indent || isItem && top.indent == indent && !strings.HasSuffix(top.path, "/-") {
			return
		}
		if strings.Count(top.path, "/") <= 2 {
			r.spans[top.path] = cut{from: top.from, to: at}
		}
		r.open = r.open[:len(r.open)-1]
	}
}

func (r *blockReader) artifact(text []byte, lines cut) error {
	s, err := scalar(text)
	if err != nil {
		return err
	}
	r.artifacts = append(r.artifacts, artifact{nevra: parseNEVRA(s), text: s, lines: lines})
	return nil
}

// flowItems reads a sequence of artifacts in flow style that begins at at and
// may take several lines. It returns where the line behind it begins.
func (r *blockReader) flowItems(at int) (next int, err error) {
	end := bytes.IndexByte(r.raw[at:], ']')
	if end < 0 {
		return 0, errFlow
	}
	r.flow = cut{from: at, to: at + end + 1}
	for item := range bytes.SplitSeq(r.raw[at+1:at+end], []byte(",")) {
		if item = bytes.TrimSpace(item); len(item) > 0 {
			if err := r.artifact(item, cut{}); err != nil {
				return 0, err
			}
		}
	}
	next = at + end + 1
	if i := bytes.IndexByte(r.raw[next:], '\n'); i >= 0 {
		return next + i + 1, nil
	}
	return len(r.raw), nil
}

// cutKey splits "key: value".
func cutKey(text []byte) (name string, value []byte, ok bool) {
	i := bytes.Index(text, []byte(":"))
	if quote := text[0]; quote == '"' || quote == '\'' {
		if n := bytes.IndexByte(text[1:], quote); n >= 0 && n+2 < len(text) && text[n+2] == ':' {
			i = n + 2
		} else {
			return "", nil, false
		}
	}
	for i >= 0 && i+1 < len(text) && text[i+1] != ' ' {
		n := bytes.IndexByte(text[i+1:], ':')
		if n < 0 {
			return "", nil, false
		}
		i += n + 1
	}
	if i < 0 || text[0] == '{' || text[0] == '[' {
		return "", nil, false
	}
	name = strings.TrimSpace(string(text[:i]))
	if len(name) > 1 && (name[0] == '"' || name[0] == '\'') {
		name = name[1 : len(name)-1]
	}
	return name, text[i+1:], true
}

// comment returns text without blanks around it and a comment behind it.
func comment(text []byte) string {
	s := strings.TrimSpace(string(text))
	if strings.HasPrefix(s, "#") {
		return ""
	}
	if i := strings.Index(s, " #"); i >= 0 {
		s = strings.TrimSpace(s[:i])
	}
	return s
}

// scalar returns the value of a scalar on one line.
func scalar(text []byte) (string, error) {
	s := strings.TrimSpace(string(text))
	if s == "" {
		return "", nil
	}
	switch s[0] {
	case '"', '\'':
		end := strings.IndexByte(s[1:], s[0])
		if end < 0 || strings.Contains(s[:end+1], `\`) && s[0] == '"' {
			return "", fmt.Errorf("the value %.80q is not understood", s)
		}
		return s[1 : end+1], nil
	case '&', '*', '!', '|', '>', '{', '[':
		return "", fmt.Errorf("the value %.80q is not understood", s)
	}
	return oneLine(comment(text)), nil
}

// parseNEVRA reads NAME-EPOCH:VERSION-RELEASE.ARCH, the epoch being optional.
func parseNEVRA(s string) string {
	rest, arch, _ := cutLast(s, ".")
	rest, release, _ := cutLast(rest, "-")
	name, version, _ := cutLast(rest, "-")
	epoch, ver, ok := strings.Cut(version, ":")
	if !ok {
		epoch, ver = "", version
	}
	return nevra(name, evr(epoch, ver, release), arch)
}
