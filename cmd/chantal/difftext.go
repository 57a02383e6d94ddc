package main

import (
	"fmt"
	"slices"
	"strings"

	"chantal/mirror"
)

// printDiff shows a report: a table and the totals.
func (env *environment) printDiff(r *diffReport) error {
	env.sayUncompared(r)
	if env.json {
		return env.printJSON(r)
	}
	if !r.differs() {
		return env.print(fmt.Sprintf("no differences between %s and %s\n", r.A, r.B))
	}
	rows := r.rows()
	if len(rows) > 0 {
		if err := env.printTable(diffTable(r, rows)); err != nil {
			return err
		}
	}
	if len(r.Advisories) > 0 {
		t := table{header: []string{"ADVISORY", "TYPE", "SEVERITY", "CVES", "TITLE"}}
		for _, a := range r.Advisories {
			t.add(a.ID, a.Type, dash(a.Severity), dash(strings.Join(a.CVEs, " ")), a.Title)
		}
		if err := env.print("\n"); err != nil {
			return err
		}
		if err := env.printTable(t); err != nil {
			return err
		}
	}
	return env.print(r.totals() + "\n")
}

// diffRow is one line of the table.
type diffRow struct {
	diffPlace
	what, color    string
	arch, from, to string
	note           string
}

// rows returns what changed by repository, tree, name and architecture.
func (r *diffReport) rows() (rows []diffRow) {
	for _, p := range r.Removed {
		rows = append(rows, diffRow{p.diffPlace, "removed", red, p.Arch, p.Version, "-", p.File})
	}
	for _, p := range r.Added {
		rows = append(rows, diffRow{p.diffPlace, "added", green, p.Arch, "-", p.Version, p.File})
	}
	words := map[mirror.Direction][2]string{
		mirror.Upgrade: {"upgraded", ""}, mirror.Downgrade: {"downgraded", yellow}, mirror.Rebuild: {"rebuilt", yellow},
	}
	for _, c := range r.Changed {
		word := words[c.Direction]
		rows = append(rows, diffRow{c.diffPlace, word[0], word[1], c.Arch, c.From, c.To, ""})
	}
	for _, y := range r.Yanked {
		rows = append(rows, diffRow{y.diffPlace, "yanked", red, "", y.Version, y.Version, strings.TrimSuffix(y.File+": "+y.Reason, ": ")})
	}
	for _, y := range r.Unyanked {
		rows = append(rows, diffRow{y.diffPlace, "unyanked", green, "", y.Version, y.Version, y.File})
	}
	slices.SortStableFunc(rows, func(a, b diffRow) int {
		for _, pair := range [][2]string{{a.Repo, b.Repo}, {a.Tree, b.Tree}, {a.Name, b.Name}, {a.arch, b.arch}} {
			if n := strings.Compare(pair[0], pair[1]); n != 0 {
				return n
			}
		}
		return 0
	})
	return rows
}

// diffTable leaves out the columns that say the same in every row.
func diffTable(r *diffReport, rows []diffRow) table {
	varies := func(of func(diffRow) string) bool {
		return slices.ContainsFunc(rows, func(row diffRow) bool { return of(row) != of(rows[0]) })
	}
	columns := []struct {
		name string
		of   func(diffRow) string
		show bool
	}{
		{"CHANGE", func(row diffRow) string { return row.what }, true},
		{"REPO", func(row diffRow) string { return row.Repo }, varies(func(row diffRow) string { return row.Repo })},
		{"TREE", func(row diffRow) string { return row.Tree }, varies(func(row diffRow) string { return strings.TrimSuffix(row.Tree, row.Name) })},
		{"PACKAGE", func(row diffRow) string { return row.Name }, true},
		{"ARCH", func(row diffRow) string { return row.arch }, slices.ContainsFunc(rows, func(row diffRow) bool { return row.arch != "" })},
		{r.A, func(row diffRow) string { return row.from }, true},
		{r.B, func(row diffRow) string { return row.to }, true},
		{"", func(row diffRow) string { return row.note }, true},
	}
	t := table{colors: map[int]string{}}
	for _, c := range columns {
		if c.show {
			t.header = append(t.header, c.name)
		}
	}
	for i, row := range rows {
		var cells []string
		for _, c := range columns {
			if c.show {
				cells = append(cells, c.of(row))
			}
		}
		t.add(cells...)
		t.colors[i] = row.color
	}
	return t
}

// totals is the last line.
func (r *diffReport) totals() string {
	count := map[mirror.Direction]int{}
	for _, c := range r.Changed {
		count[c.Direction]++
	}
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{
		{len(r.Added), "added"}, {len(r.Removed), "removed"}, {count[mirror.Upgrade], "upgraded"}, {count[mirror.Downgrade], "downgraded"},
		{count[mirror.Rebuild], "rebuilt"}, {len(r.Yanked), "yanked"}, {len(r.Unyanked), "unyanked"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	switch n := len(r.Advisories); {
	case n == 1:
		parts = append(parts, "1 advisory")
	case n > 1:
		parts = append(parts, fmt.Sprintf("%d advisories", n))
	}
	return strings.Join(parts, ", ")
}

// sayUncompared tells people what the comparison is without.
func (env *environment) sayUncompared(r *diffReport) {
	refs := map[string]string{"a": r.A, "b": r.B}
	groups, order := map[string][]string{}, []string{}
	for _, u := range r.NotCompared {
		where := "for either ref"
		if len(u.Missing) == 1 {
			where = "for " + refs[u.Missing[0]]
		}
		if u.Index == "" {
			env.hint("chantal: %s was not compared: it is not in %s", u.Repo, strings.TrimPrefix(where, "for "))
			continue
		}
		key := u.Repo + " " + printable(u.Tree) + ", never fetched " + where
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], printable(strings.TrimPrefix(u.Index, u.Tree+"/")))
	}
	for _, key := range order {
		names := groups[key]
		text := strings.Join(names[:min(3, len(names))], ", ")
		if len(names) > 3 {
			text += fmt.Sprintf(" and %d more", len(names)-3)
		}
		env.hint("chantal: not compared in %s: %s", key, text)
	}
}

func dash(text string) string { return cmpOr(text, "-") }
