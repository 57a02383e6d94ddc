package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// syncView shows the steps of a sync. step is not called concurrently, and not
// after close.
type syncView interface {
	step(s syncStep)
	close()
}

// syncView returns what shows a sync on standard error: bars on a terminal, else
// a line when a repository begins and one when it ends; with --json one JSON
// document a line; with --quiet nothing.
func (env *environment) syncView() syncView {
	f, file := env.stderr.(*os.File)
	switch {
	case env.quiet:
		return noView{}
	case env.json:
		return &jsonView{json.NewEncoder(env.stderr)}
	case file && term.IsTerminal(int(f.Fd())) && env.getenv("TERM") != "dumb":
		return newBarView(f)
	}
	return &lineView{env.stderr}
}

type noView struct{}

func (noView) step(syncStep) {}
func (noView) close()        {}

type jsonView struct{ to *json.Encoder }

// What goes wrong with the display is no reason to stop fetching.
func (v *jsonView) step(s syncStep) { _ = v.to.Encode(s) }
func (v *jsonView) close()          {}

type lineView struct{ to io.Writer }

func (v *lineView) step(s syncStep) {
	switch s.Event {
	case stepBegun:
		fmt.Fprintf(v.to, "%s: sync begins\n", s.Repo)
	case stepDone:
		fmt.Fprintf(v.to, "%s: %s\n", s.Repo, outcome(s.Result))
	}
}

func (v *lineView) close() {}

// outcome is how a sync ended, for people.
func outcome(r *syncResult) string {
	if r.Error == "" && r.Unchanged == r.Trees && r.Failed == 0 {
		return fmt.Sprintf("%s, nothing has changed, in %s", count(r.Trees, "tree"), took(r.Seconds))
	}
	text := fmt.Sprintf("%s, %s; ", count(r.Trees, "tree"), count(r.Files, "file"))
	if r.DryRun {
		text += fmt.Sprintf("%d to fetch, %s", r.Lacking, size(r.LackingBytes))
	} else {
		text += fmt.Sprintf("%d fetched, %s", r.Fetched, size(r.FetchedBytes))
	}
	if r.Failed > 0 {
		text += fmt.Sprintf(", %d failed", r.Failed)
	}
	if r.Unchanged > 0 {
		text += fmt.Sprintf("; %s unchanged", count(r.Unchanged, "tree"))
	}
	if r.Error != "" {
		text += "; given up"
	}
	return text + ", in " + took(r.Seconds)
}

// barView shows a bar for the repository under way, and one for each of its
// files that takes a while. Nothing of them stays.
type barView struct {
	bars  *mpb.Progress
	whole *bar
	files map[string]*bar // by path
}

const (
	barWidth = 24
	nameWide = 32 // characters before a bar
	maxFiles = 8  // that have a bar
	// unhurried is after which time a file gets its bar: those that come and go
	// with small files tell nobody anything.
	unhurried = 500 * time.Millisecond
)

func newBarView(to io.Writer) *barView {
	return &barView{bars: mpb.New(mpb.WithOutput(to), mpb.WithWidth(barWidth)), files: map[string]*bar{}}
}

func (v *barView) step(s syncStep) {
	switch s.Event {
	case stepBegun:
		v.whole = v.newBar(s.Repo, s.Time, 0)
		v.whole.set(0, 0, "reading metadata", s.Time)
	case stepProgress:
		v.progress(s)
	case stepFailed:
		v.print(fmt.Sprintf("%s %s: %s", s.Repo, s.Path, oneLine(s.Error)))
	case stepDone:
		v.drop()
	}
}

func (v *barView) progress(s syncStep) {
	if v.whole == nil { // who comes later finds it begun
		v.whole = v.newBar(s.Repo, s.Time, 0)
	}
	text := "reading metadata"
	if s.Files > 0 {
		text = fmt.Sprintf("%d/%d files", s.Fetched, s.Lacking)
	}
	if s.Trees > 1 {
		text += fmt.Sprintf(", %d/%d trees", s.TreesDone, s.Trees)
	}
	v.whole.set(s.FetchedBytes, s.LackingBytes, text, s.Time)
	active := map[string]bool{}
	for _, f := range s.Active {
		active[f.Path] = true
		b := v.files[f.Path]
		if b == nil && (s.Time.Sub(f.Since) < unhurried || len(v.files) >= maxFiles) {
			continue
		}
		if b == nil {
			b = v.newBar("  "+path.Base(f.Path), f.Since, 1)
			v.files[f.Path] = b
		}
		b.set(f.Done, max(f.Size, 0), "", s.Time)
	}
	for path, b := range v.files {
		if !active[path] {
			b.Abort(true)
			delete(v.files, path)
		}
	}
}

// drop takes the bars away.
func (v *barView) drop() {
	for _, b := range v.files {
		b.Abort(true)
	}
	clear(v.files)
	if v.whole != nil {
		v.whole.Abort(true)
		v.whole = nil
	}
}

// print writes a line above the bars.
func (v *barView) print(line string) { fmt.Fprintln(v.bars, printable(line)) }

func (v *barView) close() {
	v.drop()
	v.bars.Wait()
}

// bar is a bar with a text behind it.
type bar struct {
	*mpb.Bar
	text atomic.Pointer[string] // read by the goroutine that draws
	at   time.Time              // of the last set
}

func (v *barView) newBar(name string, at time.Time, priority int) *bar {
	b := &bar{at: at}
	b.text.Store(new(string))
	b.Bar = v.bars.AddBar(0,
		mpb.BarPriority(priority),
		mpb.PrependDecorators(decor.Name(shorten(printable(name), nameWide), decor.WC{W: nameWide, C: decor.DindentRight})),
		mpb.AppendDecorators(
			decor.CountersKibiByte("% .1f/% .1f", decor.WC{W: 20}),
			decor.EwmaSpeed(decor.SizeB1024(0), "% .1f", 30, decor.WC{W: 13}),
			decor.EwmaETA(decor.ET_STYLE_GO, 30, decor.WC{W: 8}),
			decor.Any(func(decor.Statistics) string {
				if text := *b.text.Load(); text != "" {
					return "  " + text
				}
				return ""
			}),
		),
	)
	return b
}

// set moves the bar to done of all bytes.
func (b *bar) set(done, all int64, text string, at time.Time) {
	b.text.Store(&text)
	b.SetTotal(all, false)
	b.EwmaSetCurrent(done, at.Sub(b.at))
	b.at = at
}

// shorten keeps beginning and end of a name that is longer than n characters:
// they tell most of it.
func shorten(name string, n int) string {
	r := []rune(name)
	if len(r) <= n {
		return name
	}
	end := n / 2
	return string(r[:n-end-1]) + "…" + string(r[len(r)-end:])
}
