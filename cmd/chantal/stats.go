package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"chantal/internal/keep"
)

type (
	// statsReport is what there is and what it was good for. The upper fields
	// are sums over the repositories asked for; over everything where none was.
	statsReport struct {
		Blobs        int         `json:"blobs"`
		Stored       int64       `json:"stored_bytes"`
		Logical      int64       `json:"logical_bytes"` // each file once for live and for each snapshot that names it
		Ratio        float64     `json:"dedup_ratio"`   // logical by stored; 1 where nothing is stored
		Hits         int64       `json:"hits"`
		Misses       int64       `json:"misses"`
		FromCache    int64       `json:"bytes_from_cache"`
		FromUpstream int64       `json:"bytes_from_upstream"`
		Saved        int64       `json:"bytes_saved"` // of the disk: logical less stored
		Since        string      `json:"since"`       // since when is counted
		Repos        []repoStats `json:"repos"`
		Growth       []dayStats  `json:"growth"` // of all that is stored, the last days on which serve ran
	}

	repoStats struct {
		Repo         string  `json:"repo"`
		Blobs        int     `json:"blobs"`
		Stored       int64   `json:"stored_bytes"`
		Logical      int64   `json:"logical_bytes"`
		Ratio        float64 `json:"dedup_ratio"`
		Hits         int64   `json:"hits"`
		Misses       int64   `json:"misses"`
		FromCache    int64   `json:"bytes_from_cache"`
		FromUpstream int64   `json:"bytes_from_upstream"`
	}

	dayStats struct {
		Day    string `json:"day"`
		Stored int64  `json:"stored_bytes"`
	}
)

func statsCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:      "stats",
		Usage:     "show what is stored, how often it was stored only once, and what came from the cache",
		ArgsUsage: "[REPO…]",
		Action: do(connected(func(c *cli.Context, env *environment, b backend) error {
			r, err := b.Stats(c.Context, c.Args().Slice())
			if err != nil {
				return err
			}
			if env.json {
				return env.printJSON(r)
			}
			return env.printStats(r)
		})),
	}
}

func (l *local) Stats(ctx context.Context, names []string) (statsReport, error) {
	for _, name := range names {
		if l.mirror.Repo(name) == nil {
			return statsReport{}, noSuchRepo(name)
		}
	}
	counted, err := l.keeper.Stats(ctx, l.keptAnswers)
	if err != nil {
		return statsReport{}, err
	}
	wire := l.traffic.total()
	r := statsReport{Since: instant(wire.Since), Repos: []repoStats{}, Growth: []dayStats{}}
	sum, total := counted.Stored, moved{}
	for _, m := range wire.Repos {
		total = total.plus(m)
	}
	if len(names) > 0 {
		sum, total = counted.Of(names), moved{}
	}
	for _, repo := range l.mirror.Repos() {
		if len(names) > 0 && !slices.Contains(names, repo.Name) {
			continue
		}
		s, m := counted.Repos[repo.Name], wire.Repos[repo.Name]
		if len(names) > 0 {
			total = total.plus(m)
		}
		r.Repos = append(r.Repos, repoStats{
			Repo: repo.Name, Blobs: s.Blobs, Stored: s.Bytes, Logical: s.Logical, Ratio: ratio(s),
			Hits: m.Hits, Misses: m.Misses, FromCache: m.FromCache, FromUpstream: m.FromUpstream,
		})
	}
	r.Blobs, r.Stored, r.Logical, r.Ratio = sum.Blobs, sum.Bytes, sum.Logical, ratio(sum)
	r.Saved = max(sum.Logical-sum.Bytes, 0)
	r.Hits, r.Misses, r.FromCache, r.FromUpstream = total.Hits, total.Misses, total.FromCache, total.FromUpstream
	for _, day := range slices.Sorted(maps.Keys(wire.Days)) {
		r.Growth = append(r.Growth, dayStats{day, wire.Days[day]})
	}
	return r, nil
}

// ratio is how often a stored byte is needed.
func ratio(s keep.Stored) float64 {
	if s.Bytes == 0 {
		return 1
	}
	return float64(int64(float64(s.Logical)/float64(s.Bytes)*1000+0.5)) / 1000
}

func (env *environment) printStats(r statsReport) error {
	t := table{header: []string{"REPO", " BLOBS", " STORED", " LOGICAL", " RATIO", " HITS", " MISSES", " FROM CACHE", " FROM UPSTREAM"}}
	row := func(name string, s repoStats) {
		t.add(name, number(s.Blobs), size(s.Stored), size(s.Logical), fmt.Sprintf("%.2f", s.Ratio), fmt.Sprint(s.Hits), fmt.Sprint(s.Misses), size(s.FromCache), size(s.FromUpstream))
	}
	for _, s := range r.Repos {
		row(s.Repo, s)
	}
	row("in all", repoStats{
		Blobs: r.Blobs, Stored: r.Stored, Logical: r.Logical, Ratio: r.Ratio,
		Hits: r.Hits, Misses: r.Misses, FromCache: r.FromCache, FromUpstream: r.FromUpstream,
	})
	if err := env.printTable(t); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nsaved since %s: %s that upstream did not have to send again; and %s of the disk, for what several states share\n",
		r.Since, size(r.FromCache), size(r.Saved))
	if n := len(r.Growth); n > 1 {
		b.WriteString("\n")
		for i, d := range r.Growth[max(0, n-8):] {
			if i > 0 {
				before := r.Growth[max(0, n-8)+i-1]
				fmt.Fprintf(&b, "%s  %10s  %s\n", d.Day, size(d.Stored), signed(d.Stored-before.Stored))
			}
		}
	}
	return env.print(b.String())
}

// signed is a change of a size.
func signed(n int64) string {
	if n < 0 {
		return "-" + size(-n)
	}
	return "+" + size(n)
}
