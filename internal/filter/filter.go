// Package filter decides about packages by an expression: CEL, the Common
// Expression Language, over what metadata says of them.
//
// It knows no repository format: how versions compare is handed in, and what a
// field beyond those of a chantal.Promise says is asked for.
package filter

import (
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"chantal"
)

// names are the fields of pkg, with their types.
func names() map[string]*cel.Type {
	return map[string]*cel.Type{
		"pkg.name": cel.StringType, "pkg.version": cel.StringType, "pkg.arch": cel.StringType, "pkg.section": cel.StringType,
		"pkg.source": cel.StringType, "pkg.component": cel.StringType, "pkg.repo": cel.StringType, "pkg.type": cel.StringType,
		"pkg.path": cel.StringType, "pkg.size": cel.IntType, "pkg.uploaded": cel.TimestampType,
		"pkg.fields": cel.MapType(cel.StringType, cel.StringType),
	}
}

// Filter is an expression that is ready to be asked, for the repositories of
// one type. It is safe for concurrent use.
type Filter struct {
	program cel.Program
	kind    string
}

// Error says what is wrong with an expression.
type Error struct {
	Column  int // from 1; 0 where the whole is meant
	Message string
}

func (e *Error) Error() string {
	if e.Column == 0 {
		return "the filter " + e.Message
	}
	return fmt.Sprintf("the filter, column %d: %s", e.Column, e.Message)
}

// Compile makes ready an expression for repositories of the type kind, whose
// versions order compares; nil where nothing does. An error is an *Error.
func Compile(expression, kind string, order chantal.Comparer) (*Filter, error) {
	options := []cel.EnvOption{cel.OptionalTypes(), glob(), versions(order)}
	options = append(options, versionOrder()...)
	for name, t := range names() {
		options = append(options, cel.Variable(name, t))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("preparing filters: %w", err)
	}
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		return nil, explained(issues)
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, &Error{0, "gives a " + ast.OutputType().String() + ", not true or false"}
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, &Error{0, "cannot be used: " + err.Error()}
	}
	return &Filter{program, kind}, nil
}

// explained turns what the compiler says into one sentence.
func explained(issues *cel.Issues) error {
	first := issues.Errors()[0]
	e := &Error{Column: first.Location.Column() + 1, Message: strings.ReplaceAll(first.Message, " (in container '')", "")}
	if strings.Contains(e.Message, "undeclared reference") {
		known := slices.Sorted(maps.Keys(names()))
		e.Message += "; there are " + strings.Join(known, ", ") + "; functions are glob, version and those of CEL"
	}
	return e
}

// Keeps reports whether the filter accepts an artifact of a repository. field
// is as a chantal.Keep has it.
func (f *Filter) Keeps(repo string, p *chantal.Promise, field func(string) string) (bool, error) {
	out, _, err := f.program.Eval(&activation{f, repo, p, field})
	if err != nil {
		return false, &Error{0, fmt.Sprintf("fails for %s: %v", p.Path, err)}
	}
	held, ok := out.Value().(bool)
	if !ok {
		return false, &Error{0, fmt.Sprintf("is neither true nor false for %s", p.Path)}
	}
	return held, nil
}

// activation answers what the expression asks of one package.
type activation struct {
	filter *Filter
	repo   string
	p      *chantal.Promise
	field  func(string) string
}

// Parent implements cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	k := a.p.Package
	if k == nil {
		k = &chantal.Package{}
	}
	switch name {
	case "pkg.name":
		return k.Name, true
	case "pkg.version":
		return k.Version, true
	case "pkg.arch":
		return k.Arch, true
	case "pkg.section":
		return k.Section, true
	case "pkg.source", "pkg.component":
		return a.field(strings.TrimPrefix(name, "pkg.")), true
	case "pkg.repo":
		return a.repo, true
	case "pkg.type":
		return a.filter.kind, true
	case "pkg.path":
		return a.p.Path, true
	case "pkg.size":
		return a.p.Size, true
	case "pkg.uploaded":
		if k.Uploaded.IsZero() {
			return time.Unix(0, 0).UTC(), true
		}
		return k.Uploaded, true
	case "pkg.fields":
		return fields(a.field), true
	}
	return nil, false
}

// glob is glob(text, pattern): a shell glob over the whole text. A pattern that
// is none is an error.
func glob() cel.EnvOption {
	flat := strings.NewReplacer("/", "\x00") // to path.Match the slash is more than a character
	match := func(text, pattern ref.Val) ref.Val {
		ok, err := path.Match(flat.Replace(string(pattern.(types.String))), flat.Replace(string(text.(types.String))))
		if err != nil {
			return types.NewErr("glob: %q is no pattern", pattern)
		}
		return types.Bool(ok)
	}
	return cel.Function("glob", cel.Overload("glob_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
		cel.BinaryBinding(match)))
}

var versionType = types.NewOpaqueType("version").WithTraits(traits.ComparerType)

// versions is version(text), which makes of a text what compares as versions
// do.
func versions(order chantal.Comparer) cel.EnvOption {
	make := func(text ref.Val) ref.Val {
		if order == nil {
			return types.NewErr("version: nothing orders the versions of this repository")
		}
		return version{string(text.(types.String)), order}
	}
	return cel.Function("version", cel.Overload("version_string", []*cel.Type{cel.StringType}, versionType, cel.UnaryBinding(make)))
}

// versionOrder lets versions be compared with the operators.
func versionOrder() (options []cel.EnvOption) {
	for _, op := range []string{operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals} {
		options = append(options, cel.Function(op,
			cel.Overload("version"+op+"version", []*cel.Type{versionType, versionType}, cel.BoolType)))
	}
	return options
}

// version is a version in the order of its format.
type version struct {
	text  string
	order chantal.Comparer
}

// Compare implements traits.Comparer.
func (v version) Compare(other ref.Val) ref.Val {
	o, ok := other.(version)
	if !ok {
		return types.MaybeNoSuchOverloadErr(other)
	}
	switch c := v.order.CompareVersions(v.text, o.text); {
	case c < 0:
		return types.IntNegOne
	case c > 0:
		return types.IntOne
	}
	return types.IntZero
}

// Equal implements ref.Val: 1.0 and 1.00 may be the same version.
func (v version) Equal(other ref.Val) ref.Val {
	o, ok := other.(version)
	return types.Bool(ok && v.order.CompareVersions(v.text, o.text) == 0)
}

// ConvertToNative implements ref.Val.
func (v version) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("a version is no %v", t)
}

// ConvertToType implements ref.Val.
func (v version) ConvertToType(t ref.Type) ref.Val {
	if t == types.StringType {
		return types.String(v.text)
	}
	return types.NewErr("a version is no %s", t.TypeName())
}

// Type implements ref.Val.
func (v version) Type() ref.Type { return versionType }

// Value implements ref.Val.
func (v version) Value() any { return v.text }

// fields is pkg.fields: a map in which every name is, with "" where metadata
// says nothing. What names there are nobody can tell.
type fields func(string) string

// Get implements traits.Indexer.
func (f fields) Get(key ref.Val) ref.Val {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key)
	}
	return types.String(f(strings.ToLower(string(name))))
}

// Find implements traits.Mapper.
func (f fields) Find(key ref.Val) (ref.Val, bool) { return f.Get(key), true }

// Contains implements traits.Container: a field that says nothing is not there.
func (f fields) Contains(key ref.Val) ref.Val { return types.Bool(f.Get(key) != types.String("")) }

// Size implements traits.Sizer.
func (f fields) Size() ref.Val { return types.NewErr("pkg.fields cannot be counted: name the field") }

// Iterator implements traits.Iterable.
func (f fields) Iterator() traits.Iterator {
	return types.NewDynamicList(types.DefaultTypeAdapter, []string{}).Iterator()
}

// Equal implements ref.Val.
func (f fields) Equal(ref.Val) ref.Val { return types.False }

// ConvertToNative implements ref.Val.
func (f fields) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("pkg.fields is no %v", t)
}

// ConvertToType implements ref.Val.
func (f fields) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("pkg.fields is no %s", t.TypeName())
}

// Type implements ref.Val.
func (f fields) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (f fields) Value() any { return f }
