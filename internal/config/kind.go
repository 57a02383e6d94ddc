package config

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// kind is a form of values: how a text is read, how a value is written, and
// what JSON Schema says of the value that YAML makes of it. Patterns (ECMA 262)
// may allow more than the parser does, never less.
type kind[T any] struct {
	parse  func(string) (T, error)
	show   func(T) any // nil where the value is none
	schema schema
	filled bool // a key without a value is a mistake: there is no default that it could leave
}

// required returns the kind for keys that have no default.
func (k kind[T]) required() kind[T] {
	k.filled = true
	return k
}

// like returns the form of texts that have a pattern.
func like(parse func(string) (string, error), pattern string) kind[string] {
	return kind[string]{parse, some[string], schema{"type": "string", "pattern": pattern}, false}
}

// free is the form of texts without a pattern; YAML takes some for numbers.
func free(parse func(string) (string, error)) kind[string] {
	return kind[string]{parse, some[string], schema{"type": []string{"string", "number", "boolean"}}, false}
}

// number is the form of whole numbers from least on, or texts that have a
// pattern.
func number[T any](parse func(string) (T, error), show func(T) any, least int, pattern string) kind[T] {
	return kind[T]{parse, show, schema{"type": []string{"integer", "string"}, "minimum": least, "pattern": pattern}, false}
}

// some shows a value as it is, and the zero value as none.
func some[T comparable](value T) any {
	if value == *new(T) {
		return nil
	}
	return value
}

// shownBy shows a value that is not zero with show.
func shownBy[T comparable](show func(T) string) func(T) any {
	return func(value T) any {
		if value == *new(T) {
			return nil
		}
		return show(value)
	}
}

const (
	httpScheme = `^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]`
	word       = `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`
)

func anyText() kind[string]  { return free(parseText) }
func glob() kind[string]     { return free(parseGlob) }
func repoID() kind[string]   { return like(parseName, repoName.String()) }
func webURL() kind[string]   { return like(parseURL, httpScheme+`[^?#]*$`) }
func listURL() kind[string]  { return like(parseListURL, httpScheme+`[^#$]*$`) }
func proxyURL() kind[string] { return like(parseProxy, `^[A-Za-z0-9]+://[^?#]+$`) }
func address() kind[string] {
	return like(ParseAddress, `^(\[[0-9A-Za-z:.%]+\]|[A-Za-z0-9._-]*):[0-9]+$`)
}
func refText() kind[string] {
	return like(parseRef, `^(`+word+`|[0-9TZ:-]+)(\+signed)?(~`+word+`)?$`)
}

func secret() kind[string] {
	k := free(parseSecret)
	k.show = func(string) any { return nil }
	return k
}

func schedule() kind[string] { return like(parseSchedule, `^\s*\S+(\s+\S+){4}\s*$`) }

func boolean() kind[bool] {
	show := func(b bool) any { return b }
	return kind[bool]{parseBool, show, schema{"enum": []any{true, false, "on", "off", "yes", "no"}}, false}
}

func network() kind[netip.Prefix] {
	show := func(p netip.Prefix) any { return texts([]netip.Prefix{p})[0] }
	return kind[netip.Prefix]{parsePrefix, show, schema{"type": "string", "pattern": `^[0-9A-Fa-f.:]+(/[0-9]+)?$`}, false}
}

func duration() kind[time.Duration] {
	k := number(parseDuration, shownBy(showDuration), 0, `^([0-9]+w)?([0-9]+d)?(0|([0-9.]+(ns|us|µs|ms|s|m|h))*)$`)
	k.schema["maximum"] = 0 // only 0 means something without a unit
	return k
}

func amount() kind[int64] { return number(parseSize, shownBy(showSize), 0, `^[0-9.,]+ ?[A-Za-z]*$`) }

func rate() kind[int64] {
	show := func(n int64) string { return showSize(n) + "/s" }
	return number(parseRate, shownBy(show), 0, `^([0-9.,]+ ?[A-Za-z]*(/s)?|`+unlimited+`)$`)
}

func atLeastZero() kind[int] { return number(parseCount, some[int], 0, `^[+]?[0-9]+$`) }
func atLeastOne() kind[int]  { return number(parseAtLeastOne, some[int], 1, `^[+]?0*[1-9][0-9]*$`) }

func clock() kind[time.Duration] {
	return kind[time.Duration]{parseClock, shownBy(showClock), schema{"type": "string", "pattern": `^[0-9]+:[0-9]{2}$`}, false}
}

func oneOf(words ...string) kind[string] {
	return kind[string]{parseWord(words), some[string], schema{"enum": words}, false}
}

// parseGlob checks a shell glob.
func parseGlob(text string) (string, error) {
	if _, err := path.Match(text, ""); err != nil {
		return "", fmt.Errorf("%q is no glob; \\ before a special character takes it as it is", text)
	}
	return text, nil
}

// parseSchedule checks the five fields of a line in a crontab (crontab(5)).
func parseSchedule(text string) (string, error) {
	fields := strings.Fields(text)
	line := strings.Join(fields, " ")
	if len(fields) != 5 || !gronx.IsValid(line) {
		return "", fmt.Errorf("%q is no schedule; write minute, hour, day of the month, month and day of the week, such as \"15 3 * * *\"", text)
	}
	if _, err := gronx.NextTickAfter(line, time.Unix(0, 0).UTC(), false); err != nil {
		return "", fmt.Errorf("%q is no schedule: no day is like that", text)
	}
	return line, nil
}
