package config

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}\n]*))?\}`)

// firstMark begins the characters that stand for variables while YAML is
// parsed: supplementary private use area B, which no text has any use for.
const (
	firstMark = '\U00100000'
	lastMark  = '\U0010FFFD'
)

// decoder reads one file and collects what is wrong with it.
type decoder struct {
	name    string
	getenv  func(string) string
	vars    map[rune]string     // the variable, as written, that a mark stands for
	anchors map[string]ast.Node // what &name stands before
	errs    Errors
}

func newDecoder(name string, getenv func(string) string) *decoder {
	return &decoder{name: name, getenv: getenv, vars: map[rune]string{}, anchors: map[string]ast.Node{}}
}

// Visit collects anchors; it is for ast.Walk.
func (d *decoder) Visit(n ast.Node) ast.Visitor {
	if anchor, ok := n.(*ast.AnchorNode); ok && anchor.Name != nil && anchor.Value != nil {
		d.anchors[anchor.Name.GetToken().Value] = anchor.Value
	}
	return d
}

// root parses the text and returns its top mapping; nil if there is none or
// the text is no YAML.
func (d *decoder) root(text string) ast.Node {
	text = d.mark(text)
	file, err := parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil {
			d.fail(syntax.Token.Position, "%s", d.unmark(syntax.Message))
		} else {
			d.fail(nil, "not YAML: %s", d.unmark(err.Error()))
		}
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil, doc.Body.Type() == ast.CommentType:
		case body != nil:
			d.fail(position(doc.Body), "a second document; a configuration is one")
		default:
			body = doc.Body
			ast.Walk(d, body)
		}
	}
	return body
}

// mark puts one repeated character in place of every variable, as many as it
// had, so that braces mean nothing to YAML and positions stay.
func (d *decoder) mark(text string) string {
	if i := strings.IndexFunc(text, func(r rune) bool { return r >= firstMark && r <= lastMark }); i >= 0 {
		line := strings.Count(text[:i], "\n") + 1
		column := len([]rune(text[strings.LastIndexByte(text[:i], '\n')+1:i])) + 1
		d.fail(&token.Position{Line: line, Column: column}, "a private use character")
		return ""
	}
	next := firstMark
	return variable.ReplaceAllStringFunc(text, func(written string) string {
		if next > lastMark {
			return written
		}
		d.vars[next] = written
		next++
		return strings.Repeat(string(next-1), len([]rune(written)))
	})
}

// replaceMarks puts f of a variable in place of its marks.
func (d *decoder) replaceMarks(text string, f func(written string) string) string {
	var b strings.Builder
	skip := 0
	for _, r := range text {
		written, marked := d.vars[r]
		switch {
		case skip > 0:
			skip--
		case marked:
			b.WriteString(f(written))
			skip = len([]rune(written)) - 1
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (d *decoder) unmark(text string) string {
	return d.replaceMarks(text, func(written string) string { return written })
}

// expand gives the value of a scalar that stands at pos.
func (d *decoder) expand(text string, pos *token.Position) (string, bool) {
	good := true
	if i := strings.Index(text, "${"); i >= 0 {
		d.fail(pos, "%q is not a variable; write ${NAME} or ${NAME:-default}", d.unmark(text[i:]))
		good = false
	}
	text = d.replaceMarks(text, func(written string) string {
		part := variable.FindStringSubmatch(written)
		if value := d.getenv(part[1]); value != "" {
			return value
		}
		if !strings.Contains(written, ":-") {
			d.fail(pos, "variable %s is not set; set it, or write ${%s:-default}", part[1], part[1])
			good = false
		}
		return part[2]
	})
	return text, good
}

func (d *decoder) fail(pos *token.Position, format string, args ...any) {
	e := Error{File: d.name, Line: 1, Column: 1, Message: fmt.Sprintf(format, args...)}
	if pos != nil {
		e.Line, e.Column = pos.Line, pos.Column
	}
	d.errs = append(d.errs, e)
}

// position returns where a node begins; the token of a mapping is its first
// colon.
func position(n ast.Node) *token.Position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return position(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(n.Key)
	}
	if t := n.GetToken(); t != nil {
		return t.Position
	}
	return nil
}

// resolve follows anchors, aliases and tags to what they stand for.
func (d *decoder) resolve(n ast.Node) ast.Node {
	for range 10 {
		switch at := n.(type) {
		case *ast.AnchorNode:
			n = at.Value
		case *ast.TagNode:
			n = at.Value
		case *ast.AliasNode:
			target := d.anchors[at.Value.GetToken().Value]
			if target == nil {
				d.fail(position(at), "no anchor &%s", at.Value.GetToken().Value)
				return nil
			}
			n = target
		default:
			return n
		}
	}
	d.fail(position(n), "an alias that leads to itself")
	return nil
}

// field is one key of a mapping: what it is for, how its value is read, and
// what JSON Schema says of that. Both come from one kind, so they agree.
type field struct {
	says   string // for people: one sentence without a final dot
	decode func(ast.Node)
	show   func() any // what it holds, for people; nil for nothing
	schema schema
	needed bool     // the mapping is a mistake without the key
	filled bool     // a key without a value is a mistake
	types  []string // of repositories for which the key means something; nil for all
}

// required returns the field as one that its mapping has to have.
func (f field) required() field {
	f.needed = true
	return f
}

// only returns the field as one for repositories of these types.
func (f field) only(types ...string) field {
	f.types = types
	return f
}

// fits reports whether the key means something for repositories of a type.
func (f field) fits(typ string) bool { return f.types == nil || slices.Contains(f.types, typ) }

// fields are the keys of a mapping.
type fields map[string]field

// mapping hands the values in n to fields, and reports keys that are not
// among them or come twice, and those that are missing. where names the
// mapping in messages, "" for the whole file. It returns where the keys stand,
// nil if n is no mapping.
func (d *decoder) mapping(n ast.Node, where string, f fields) (keys map[string]*token.Position) {
	if n = d.resolve(n); n == nil {
		return nil
	}
	keys = map[string]*token.Position{}
	defer func() {
		for _, key := range slices.Sorted(maps.Keys(f)) {
			if f[key].needed && keys != nil && keys[key] == nil {
				d.fail(position(n), "%s has no %q", where, key)
			}
		}
	}()
	if n.Type() == ast.NullType {
		return keys
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		what := where
		if what == "" {
			what = "a configuration"
		}
		d.fail(position(n), "%s has to be a mapping: key: value", what)
		return nil
	}
	in := ""
	if where != "" {
		in = " in " + where
	}
	for it := m.MapRange(); it.Next(); {
		pos := position(it.Key())
		key := d.unmark(it.Key().GetToken().Value)
		field, known := f[key]
		switch first := keys[key]; {
		case !known:
			d.fail(pos, "unknown key %q%s; %s", key, in, suggest(key, "key", slices.Sorted(maps.Keys(f))))
		case first != nil:
			d.fail(pos, "key %q%s comes a second time, after line %d", key, in, first.Line)
		default:
			keys[key] = pos
			if !field.filled || d.hasValue(key, it.Value()) {
				field.decode(it.Value())
			}
		}
	}
	return keys
}

// hasValue reports a value that is there as a key only.
func (d *decoder) hasValue(key string, n ast.Node) bool {
	before := len(d.errs)
	if text, pos, good := d.scalar(n); good && text == "" {
		d.fail(pos, "%q has no value", key)
	}
	return len(d.errs) == before
}

// scalar returns the expanded text of a single value; "" with good set where
// there is none.
func (d *decoder) scalar(n ast.Node) (text string, pos *token.Position, good bool) {
	pos = position(n)
	if n = d.resolve(n); n == nil {
		return "", pos, false
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return "", pos, true
	case *ast.LiteralNode:
		text, good = d.expand(strings.TrimSuffix(n.Value.Value, "\n"), pos)
		return text, pos, good
	case ast.ScalarNode:
		text, good = d.expand(n.GetToken().Value, pos)
		return text, pos, good
	case ast.MapNode:
		if text, split := splitScalar(n); split {
			text, good = d.expand(text, pos)
			return text, pos, good
		}
	}
	d.fail(pos, "one value is wanted here, not a %s", strings.ToLower(n.Type().String()))
	return "", pos, false
}

// splitScalar puts a value together again that the parser took for a mapping:
// in a list within braces it splits http://host:8080/ at the port, although
// only a colon before white space makes a mapping (YAML 1.2, 7.3.3).
func splitScalar(n ast.MapNode) (string, bool) {
	it := n.MapRange()
	if !it.Next() {
		return "", false
	}
	key, value := it.Key().GetToken(), it.Value().GetToken()
	if it.Next() || key.Position.Line != value.Position.Line ||
		key.Position.Column+len([]rune(key.Value))+1 != value.Position.Column {
		return "", false
	}
	return key.Value + ":" + value.Value, true
}

// items returns the entries of a list. A list that is wanted but not written
// as one is a list of one, where single allows that.
func (d *decoder) items(n ast.Node, single bool) []ast.Node {
	resolved := d.resolve(n)
	if resolved == nil || resolved.Type() == ast.NullType {
		return nil
	}
	if list, ok := resolved.(*ast.SequenceNode); ok {
		return list.Values
	}
	if _, scalar := resolved.(ast.ScalarNode); scalar && single {
		return []ast.Node{n}
	}
	d.fail(position(n), "a list is wanted here: [a, b]")
	return nil
}

// one is a key with a single value.
func one[T any](d *decoder, into *T, k kind[T], says string) field {
	f := field{says: says, schema: k.schema.orVariable(), filled: k.filled}
	if !k.filled {
		f.schema = k.schema.orOpen()
	}
	f.show = func() any { return k.show(*into) }
	f.decode = func(n ast.Node) {
		text, pos, good := d.scalar(n)
		if !good || text == "" {
			return
		}
		value, err := k.parse(text)
		if err != nil {
			d.fail(pos, "%s", err)
			return
		}
		*into = value
	}
	return f
}

// many is a key with a list, or a single value in its place. A written list
// replaces the default, also an empty one.
func many[T any](d *decoder, into *[]T, k kind[T], says string) field {
	f := field{says: says, schema: k.schema.orVariable().orList().orOpen()}
	f.show = func() any {
		if len(*into) == 0 {
			return nil
		}
		list := []any{}
		for _, value := range *into {
			list = append(list, k.show(value))
		}
		return list
	}
	f.decode = func(n ast.Node) {
		if r := d.resolve(n); r == nil || r.Type() == ast.NullType {
			return
		}
		list := []T{}
		for _, item := range d.items(n, true) {
			text, pos, good := d.scalar(item)
			if !good {
				continue
			}
			value, err := k.parse(text)
			if err == nil && text == "" {
				err = errors.New("an empty entry")
			}
			if err != nil {
				d.fail(pos, "%s", err)
				continue
			}
			list = append(list, value)
		}
		*into = list
	}
	return f
}

// section is a key with a mapping; where names it in messages.
func (d *decoder) section(where, says string, f fields) field {
	return field{says: says, schema: f.schema(), decode: func(n ast.Node) { d.mapping(n, where, f) }}
}
