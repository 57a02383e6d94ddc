package pypi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
)

// Pages have up to tens of thousands of files and must keep keys that nobody
// knows yet, so they are not decoded into maps: after one check that the whole
// is JSON, values are found by their positions and copied as they are. The
// functions below rely on that check.

// span is where a JSON value lies in the page; the zero span is no value.
type span struct{ from, to int }

func (s span) of(b []byte) []byte { return b[s.from:s.to] }

// member is one key of an object with its value.
type member struct {
	key string
	span
}

// maxMembers limits the keys of one object: distinct ones are searched for
// linearly.
const maxMembers = 256

// object returns the members of the object at s in their order; of equal keys
// the last one's value counts, as in the JSON parsers of the clients. dst is
// reused.
func object(b []byte, s span, dst []member) ([]member, error) {
	dst = dst[:0]
	if s.from == s.to || b[s.from] != '{' {
		return dst, fmt.Errorf("%s where an object is needed", excerpt(s.of(b)))
	}
	i := space(b, s.from+1)
next:
	for b[i] != '}' {
		keyEnd := skipString(b, i)
		key := intern(b[i:keyEnd])
		i = space(b, space(b, keyEnd)+1) // over the colon
		value := span{i, skip(b, i)}
		if i = space(b, value.to); b[i] == ',' {
			i = space(b, i+1)
		}
		for k := range dst {
			if dst[k].key == key {
				dst[k].span = value
				continue next
			}
		}
		if len(dst) == maxMembers {
			return dst, fmt.Errorf("an object has more than %d keys", maxMembers)
		}
		dst = append(dst, member{key, value})
	}
	return dst, nil
}

// get returns the value of key, or the zero span.
func get(members []member, key string) span {
	for i := range members {
		if members[i].key == key {
			return members[i].span
		}
	}
	return span{}
}

// elements yields the elements of the array at s, which must be one.
func elements(b []byte, s span) iter.Seq[span] {
	return func(yield func(span) bool) {
		i := space(b, s.from+1)
		for b[i] != ']' {
			value := span{i, skip(b, i)}
			if !yield(value) {
				return
			}
			if i = space(b, value.to); b[i] == ',' {
				i = space(b, i+1)
			}
		}
	}
}

// text decodes the string at s; ok is false if there is no string.
func text(b []byte, s span) (value string, ok bool) {
	if s.from == s.to || b[s.from] != '"' {
		return "", false
	}
	raw := b[s.from+1 : s.to-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw), true
	}
	if err := json.Unmarshal(s.of(b), &value); err != nil {
		return "", false
	}
	return value, true
}

// space returns the position of the first byte from i on that is not space.
func space(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r' {
		i++
	}
	return i
}

// skip returns the position behind the value that begins at i.
func skip(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		for depth := 0; ; i++ {
			switch b[i] {
			case '"':
				i = skipString(b, i) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	}
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return i
		}
		i++
	}
	return i
}

func skipString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// intern returns the key in quotes; the usual keys cost no allocation.
func intern(quoted []byte) string {
	switch raw := quoted[1 : len(quoted)-1]; string(raw) {
	case "filename":
		return "filename"
	case "url":
		return "url"
	case "hashes":
		return "hashes"
	case "sha256":
		return "sha256"
	case "size":
		return "size"
	case "upload-time":
		return "upload-time"
	case "requires-python":
		return "requires-python"
	case "yanked":
		return "yanked"
	case "core-metadata":
		return "core-metadata"
	case "data-dist-info-metadata":
		return "data-dist-info-metadata"
	case "provenance":
		return "provenance"
	case "name":
		return "name"
	default:
		s, _ := text(quoted, span{0, len(quoted)})
		return s
	}
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			plain = false
			break
		}
	}
	if plain {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil { // no string fails to encode
		return append(dst, `""`...)
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte{'\n'})...)
}

// excerpt quotes the beginning of foreign text for an error.
func excerpt[T string | []byte](s T) string {
	if len(s) == 0 {
		return "nothing"
	}
	const most = 60
	if len(s) > most {
		return fmt.Sprintf("%.60q…", string(s[:most]))
	}
	return fmt.Sprintf("%q", string(s))
}
