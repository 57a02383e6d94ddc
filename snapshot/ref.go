package snapshot

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"time"
)

// Ref is what selects a state: REF[+signed][~RECORDING]. The zero Ref is live.
type Ref struct {
	Name      string // "" and "live" are live; else a snapshot, a channel or an instant
	Signed    bool
	Recording string
}

// Live is the ref of the newest state.
const Live = "live"

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Parse reads the written form of a ref. It checks the grammar only.
func Parse(s string) (Ref, error) {
	if s == "" || s == Live {
		return Ref{Name: Live}, nil
	}
	rest, recording, recorded := strings.Cut(s, "~")
	name, mark, marked := strings.Cut(rest, "+")
	r := Ref{Name: name, Recording: recording, Signed: marked}
	if name == "" {
		r.Name = Live
	}
	if _, err := ParseInstant(r.Name); err != nil && !nameForm.MatchString(r.Name) {
		return Ref{}, &BadRefError{s, "a name is made of letters, digits, '.', '_' and '-'"}
	}
	if marked && mark != "signed" {
		return Ref{}, &BadRefError{s, "only +signed may follow a name"}
	}
	if recorded && !nameForm.MatchString(recording) {
		return Ref{}, &BadRefError{s, "the name of a recording is made of letters, digits, '.', '_' and '-'"}
	}
	return r, nil
}

func (r Ref) String() string {
	s := r.Name
	if s == "" {
		s = Live
	}
	if r.Signed {
		s += "+signed"
	}
	if r.Recording != "" {
		s += "~" + r.Recording
	}
	return s
}

// instants are the written forms of an instant, all in UTC.
var instants = []string{"2006-01-02", "2006-01-02T15:04:05Z", "20060102T150405Z"}

// ParseInstant reads "2026-11-23", "2026-11-23T08:15:00Z" or
// "20261123T081500Z"; a day means its first second.
func ParseInstant(s string) (time.Time, error) {
	for _, form := range instants {
		if len(s) != len(form) {
			continue
		}
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not an instant: write 2026-11-23, 2026-11-23T08:15:00Z or 20261123T081500Z", s)
}

// DefaultName is the name that a snapshot of t gets: its UTC time.
func DefaultName(t time.Time) string { return t.UTC().Format("20060102T150405Z") }

// BadRefError says that a ref is not of the right form.
type BadRefError struct{ Ref, Why string }

func (e *BadRefError) Error() string { return fmt.Sprintf("ref %q: %s", e.Ref, e.Why) }

// UnknownError says that a ref selects nothing. It is a fs.ErrNotExist.
type UnknownError struct{ Ref, Why string }

func (e *UnknownError) Error() string        { return fmt.Sprintf("ref %q: %s", e.Ref, e.Why) }
func (e *UnknownError) Is(target error) bool { return target == fs.ErrNotExist }

// UnsupportedError says that this version cannot do a part of a ref.
type UnsupportedError struct{ Ref, Part string }

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("ref %q: this version cannot do %s", e.Ref, e.Part)
}
