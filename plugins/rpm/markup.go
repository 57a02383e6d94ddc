package rpm

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// markup reads one complete XML element from memory, tag by tag. It knows what
// rpm metadata uses of XML 1.0: elements, attributes, text, CDATA, comments,
// processing instructions, the predefined and the numeric entities.
type markup struct {
	rest  []byte
	text  []byte // what the last call of next skipped, raw
	cdata bool   // text includes a CDATA section
}

type tagKind uint8

const (
	opening tagKind = iota
	closing
	empty // opening and closing in one
)

type tag struct {
	kind  tagKind
	name  []byte // without namespace prefix
	attrs []byte // raw
}

var errMarkup = errors.New("damaged XML")

// next returns the next tag; its slices point into the input. The text before
// it is in m.text.
func (m *markup) next() (tag, error) {
	whole := m.rest
	m.cdata = false
	for {
		i := bytes.IndexByte(m.rest, '<')
		if i < 0 {
			return tag{}, errMarkup
		}
		m.rest = m.rest[i:]
		n, skip := aside(m.rest)
		if skip && n == 0 {
			return tag{}, errMarkup
		}
		if !skip {
			break
		}
		m.cdata = true // a comment needs the same care as CDATA
		m.rest = m.rest[n:]
	}
	m.text = whole[:len(whole)-len(m.rest)]
	n := tagEnd(m.rest)
	if n == 0 {
		return tag{}, errMarkup
	}
	t := parseTag(m.rest[:n])
	m.rest = m.rest[n:]
	return t, nil
}

// aside reports whether b begins with something that is no tag (a comment, a
// CDATA section, a processing instruction), and how long that is; 0 where b
// ends before it does.
func aside(b []byte) (n int, is bool) {
	for _, a := range [...]struct{ begin, end string }{
		{"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<?", "?>"},
	} {
		if bytes.HasPrefix(b, []byte(a.begin)) {
			i := bytes.Index(b[len(a.begin):], []byte(a.end))
			if i < 0 {
				return 0, true
			}
			return len(a.begin) + i + len(a.end), true
		}
	}
	return 0, false
}

// tagEnd returns the length of the tag that b begins with, 0 where b ends
// before it does. A ">" in quotes is part of a value.
func tagEnd(b []byte) int {
	quote := byte(0)
	for i, c := range b {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			return i + 1
		}
	}
	return 0
}

// parseTag takes "<name attrs>" apart.
func parseTag(b []byte) tag {
	b = b[1 : len(b)-1]
	t := tag{kind: opening}
	switch {
	case len(b) > 0 && b[0] == '/':
		t.kind, b = closing, b[1:]
	case len(b) > 0 && b[len(b)-1] == '/':
		t.kind, b = empty, b[:len(b)-1]
	}
	end := bytes.IndexAny(b, " \t\r\n")
	if end < 0 {
		end = len(b)
	}
	t.name, t.attrs = b[:end], b[end:]
	if i := bytes.IndexByte(t.name, ':'); i >= 0 {
		t.name = t.name[i+1:]
	}
	return t
}

// attr returns the value of an attribute, "" where there is none. The name
// includes its prefix ("xml:base").
func (t tag) attr(name string) (string, error) {
	for rest := t.attrs; ; {
		key, value, err := nextAttr(&rest)
		if err != nil || key == nil {
			return "", err
		}
		if string(key) == name {
			return unescape(value[1 : len(value)-1])
		}
	}
}

// nextAttr cuts the first attribute off attrs: the key, nil where there is no
// more, and the value as it is in its quotes.
func nextAttr(attrs *[]byte) (key, value []byte, err error) {
	b := bytes.TrimLeft(*attrs, " \t\r\n")
	if len(b) == 0 {
		return nil, nil, nil
	}
	key, rest, ok := bytes.Cut(b, []byte("="))
	rest = bytes.TrimLeft(rest, " \t\r\n")
	if !ok || len(rest) == 0 || rest[0] != '"' && rest[0] != '\'' {
		return nil, nil, errMarkup
	}
	end := bytes.IndexByte(rest[1:], rest[0])
	if end < 0 {
		return nil, nil, errMarkup
	}
	if key = bytes.TrimRight(key, " \t\r\n"); len(key) == 0 {
		return nil, nil, errMarkup
	}
	*attrs = rest[end+2:]
	return key, rest[:end+2], nil
}

// string returns the text before the tag read last.
func (m *markup) string() (string, error) {
	if !m.cdata {
		return unescape(m.text)
	}
	var out strings.Builder
	for b := m.text; len(b) > 0; {
		if n, is := aside(b); is {
			if bytes.HasPrefix(b, []byte("<![CDATA[")) {
				out.Write(b[len("<![CDATA[") : n-len("]]>")])
			}
			b = b[n:]
			continue
		}
		end := bytes.IndexByte(b, '<')
		if end < 0 {
			end = len(b)
		}
		s, err := unescape(b[:end])
		if err != nil {
			return "", err
		}
		out.WriteString(s)
		b = b[end:]
	}
	return out.String(), nil
}

// unescape resolves entities. It allocates the string it returns, and nothing
// else where there are none.
func unescape(b []byte) (string, error) {
	i := bytes.IndexByte(b, '&')
	if i < 0 {
		if !utf8.Valid(b) {
			return "", fmt.Errorf("%w: %q is not UTF-8", errMarkup, b)
		}
		return string(b), nil
	}
	var out strings.Builder
	for ; i >= 0; i = bytes.IndexByte(b, '&') {
		out.Write(b[:i])
		name, rest, ok := bytes.Cut(b[i+1:], []byte(";"))
		if !ok {
			return "", fmt.Errorf("%w: an entity does not end", errMarkup)
		}
		c, err := entity(string(name))
		if err != nil {
			return "", err
		}
		out.WriteRune(c)
		b = rest
	}
	out.Write(b)
	if !utf8.ValidString(out.String()) {
		return "", fmt.Errorf("%w: %q is not UTF-8", errMarkup, out.String())
	}
	return out.String(), nil
}

func entity(name string) (rune, error) {
	switch name {
	case "amp":
		return '&', nil
	case "lt":
		return '<', nil
	case "gt":
		return '>', nil
	case "quot":
		return '"', nil
	case "apos":
		return '\'', nil
	}
	digits, numeric := strings.CutPrefix(name, "#")
	base := 10
	if hex, ok := strings.CutPrefix(digits, "x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if !numeric || err != nil || n == 0 || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
		return 0, fmt.Errorf("%w: &%s; is not known", errMarkup, name)
	}
	return rune(n), nil
}
