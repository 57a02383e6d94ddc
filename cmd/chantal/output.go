package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// marshal writes a value as JSON for people: indented, no escapes for HTML.
func marshal(value any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return b.Bytes(), nil
}

func (env *environment) printJSON(value any) error {
	text, err := marshal(value)
	if err != nil {
		return err
	}
	return env.print(string(text))
}

func (env *environment) print(text string) error {
	_, err := io.WriteString(env.stdout, text)
	return err
}

// hint tells people something that no script wants.
func (env *environment) hint(format string, args ...any) {
	if !env.quiet {
		fmt.Fprintf(env.stderr, format+"\n", args...)
	}
}

// table is aligned text. Columns whose header begins with a space are aligned
// on the right.
type table struct {
	header []string
	rows   [][]string
	colors map[int]string // of rows, by number
}

func (t *table) add(cells ...string) {
	for i, cell := range cells {
		cells[i] = printable(cell)
	}
	t.rows = append(t.rows, cells)
}

// printable keeps what upstreams say from steering the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, text)
}

func (env *environment) printTable(t table) error {
	widths := make([]int, len(t.header))
	right := make([]bool, len(t.header))
	head := make([]string, len(t.header))
	for i, name := range t.header {
		right[i] = strings.HasPrefix(name, " ")
		head[i] = strings.TrimSpace(name)
	}
	for _, row := range append([][]string{head}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	line := func(row []string) string {
		var l strings.Builder
		for i, cell := range row {
			if i > 0 {
				l.WriteString("  ")
			}
			fill := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if right[i] {
				l.WriteString(fill + cell)
			} else {
				l.WriteString(cell + fill)
			}
		}
		return strings.TrimRight(l.String(), " ")
	}
	b.WriteString(env.paint(bold, line(head)) + "\n")
	for i, row := range t.rows {
		text := line(row)
		if color := t.colors[i]; color != "" {
			text = env.paint(color, text)
		}
		b.WriteString(text + "\n")
	}
	return env.print(b.String())
}

// The colours used, as SGR parameters (ECMA-48).
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (env *environment) paint(color, text string) string {
	if !env.color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func number(n int) string { return strconv.Itoa(n) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// age says how long ago t was; "-" for never.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return humanize.Time(t)
}

// instant writes a time so that it can be used as a ref: the first whole second
// that is not before it.
func instant(t time.Time) string {
	return t.Add(time.Second - time.Nanosecond).UTC().Format("2006-01-02T15:04:05Z")
}
