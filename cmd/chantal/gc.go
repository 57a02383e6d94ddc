package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/config"
	"chantal/internal/httpcache"
	"chantal/internal/keep"
)

type (
	collectRequest struct {
		DryRun bool `json:"dry_run,omitempty"`
	}

	// gcReport is how the last collection ended.
	gcReport struct {
		At         time.Time `json:"at"`
		BlobsFreed int       `json:"blobs_freed"`
		BytesFreed int64     `json:"bytes_freed"`
		OverLimit  int64     `json:"over_limit,omitempty"` // bytes beyond cache.max_size that may not be evicted
		Error      string    `json:"error,omitempty"`      // why it freed nothing, or not all
	}
)

func gcCommand(do func(action) cli.ActionFunc) *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "free what no repository and no snapshot needs",
		Description: "What live answers, snapshots hold, and history: says is kept of older states, stays; of those only the metadata.\n" +
			"It may run while everything else goes on, and serve does it by itself (gc.every).",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "free nothing, and say how much that would be"},
		},
		Action: do(noArguments(connected(func(c *cli.Context, env *environment, b backend) error {
			progress, clear := env.progressLine()
			report, err := b.Collect(c.Context, collectRequest{DryRun: c.Bool("dry-run")}, progress)
			clear()
			if err != nil {
				return err
			}
			if env.json {
				return env.printJSON(report)
			}
			return env.print(collectedText(report))
		}))),
	}
}

// collectedText says what a collection did, or would do.
func collectedText(r keep.Collected) string {
	var b strings.Builder
	verb := "freed"
	if r.DryRun {
		verb = "would be freed"
	}
	fmt.Fprintf(&b, "%s and %s (%d bytes) %s; %s kept, %s\n",
		count(r.BlobsFreed, "blob"), size(r.BytesFreed), r.BytesFreed, verb, count(r.BlobsKept, "blob"), size(r.BytesKept))
	if r.BlobsEvicted > 0 {
		fmt.Fprintf(&b, "of these %s for want of room (cache.max_size)\n", count(r.BlobsEvicted, "blob"))
	}
	if r.Forgotten > 0 {
		fmt.Fprintf(&b, "%s older than history: says\n", count(r.Forgotten, "observation"))
	}
	if r.OverLimit > 0 {
		fmt.Fprintln(&b, overLimit(r.OverLimit))
	}
	return b.String()
}

func overLimit(n int64) string {
	return fmt.Sprintf("%s more than cache.max_size are held by snapshots or are metadata: delete snapshots, or raise it", size(n))
}

func (l *local) Collect(ctx context.Context, r collectRequest, progress func(string)) (keep.Collected, error) {
	report, err := l.collect(ctx, keep.CollectRequest{DryRun: r.DryRun, Progress: progress})
	if err == nil {
		return report, nil
	}
	var unknown *keep.UnknownError
	switch {
	case ctx.Err() != nil:
		return report, ctx.Err()
	case errors.Is(err, cas.ErrCollecting):
		return report, &failure{Status: http.StatusConflict, Message: err.Error(), Next: "wait for its end", Err: err}
	case errors.As(err, &unknown):
		return report, &failure{Message: err.Error(), Next: "chantal verify --repair fetches it again; else delete the snapshots that need it", Err: err}
	}
	return report, err
}

// collect frees what nothing needs, by the configuration in force.
func (n *node) collect(ctx context.Context, q keep.CollectRequest) (keep.Collected, error) {
	cfg := n.config.Load()
	repos, err := n.catalog.Repos()
	if err != nil {
		return keep.Collected{}, err
	}
	for _, r := range repos {
		if r.Type != config.Generic && formats()[r.Type] == nil {
			return keep.Collected{}, fmt.Errorf("repository %s is of type %s, which this Chantal does not know: what it needs is not known", r.Name, r.Type)
		}
	}
	q.Since, q.Limit = time.Now().Add(-cfg.History), cfg.Cache.MaxSize
	q.Gently = len(*n.listens.Load()) > 0
	q.Kept = n.keptAnswers
	report, err := n.keeper.Collect(ctx, q)
	if !q.DryRun && !errors.Is(err, cas.ErrCollecting) {
		n.gc.note(report, err)
	}
	return report, err
}

// keptAnswers calls use for what is kept by HTTP's rules.
func (n *node) keptAnswers(use func(by string, d chantal.Digest) error) error {
	return httpcache.Kept(n.store, use)
}
