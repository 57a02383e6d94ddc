package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

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
		text += fmt.Sprintf("%d fetched, %s", r.Artifacts, size(r.FetchedBytes))
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
	made  int             // bars so far: later ones stand below
}

const (
	barWidth = 16
	nameWide = 26 // characters before a bar: with what stands behind it, 80 hold it all
	maxFiles = 8  // that have a bar
	// unhurried is after which time a file gets its bar: those that come and go
	// with small files tell nobody anything.
	unhurried = 500 * time.Millisecond
)

func newBarView(to io.Writer) *barView {
	return &barView{bars: mpb.New(mpb.WithOutput(to), mpb.ForceAutoRefresh()), files: map[string]*bar{}}
}

func (v *barView) step(s syncStep) {
	switch s.Event {
	case stepBegun:
		v.whole = v.newBar(s.Repo, s.Time)
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
		v.whole = v.newBar(s.Repo, s.Time)
	}
	label := s.Repo
	switch {
	case s.Files > 0:
		label += fmt.Sprintf(" %d/%d", s.Fetched, s.Lacking)
	case s.Trees > 1:
		label += fmt.Sprintf(" tree %d/%d", s.TreesDone, s.Trees)
	}
	v.whole.set(label, s.FetchedBytes, s.LackingBytes, s.Time)
	active := map[string]bool{}
	for _, f := range s.Active {
		active[f.Path] = true
		b := v.files[f.Path]
		if b == nil && (s.Time.Sub(f.Since) < unhurried || len(v.files) >= maxFiles) {
			continue
		}
		if b == nil {
			b = v.newBar("", f.Since)
			v.files[f.Path] = b
		}
		b.set("  "+path.Base(f.Path), f.Done, max(f.Size, 0), s.Time)
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

// bar is a bar with texts before and behind it.
type bar struct {
	*mpb.Bar
	texts atomic.Pointer[[2]string] // read by the goroutine that draws
	rate  rate
}

func (v *barView) newBar(name string, at time.Time) *bar {
	b := &bar{rate: rate{at: at}}
	b.texts.Store(&[2]string{label(name), ""})
	side := func(i int) decor.Decorator {
		return decor.Any(func(decor.Statistics) string { return b.texts.Load()[i] })
	}
	b.Bar = v.bars.AddBar(0, mpb.BarPriority(v.made), mpb.BarWidth(barWidth), mpb.PrependDecorators(side(0)), mpb.AppendDecorators(side(1)))
	v.made++
	return b
}

// set moves the bar to done of all bytes; all is 0 where that is not known.
func (b *bar) set(name string, done, all int64, at time.Time) {
	b.rate.see(done, at)
	b.texts.Store(&[2]string{
		label(name), strings.TrimRight(fmt.Sprintf("%19s %10s %6s", counted(done, all), b.rate.text(), b.rate.left(done, all)), " "),
	})
	b.SetTotal(all, false)
	b.SetCurrent(done)
}

func label(name string) string {
	name = shorten(printable(name), nameWide)
	return name + strings.Repeat(" ", nameWide-utf8.RuneCountInString(name)+1)
}

func counted(done, all int64) string {
	switch {
	case all > 0:
		return size(done) + " of " + size(all)
	case done > 0:
		return size(done)
	}
	return ""
}

// rate is how fast something comes in, with the last seconds counting most.
type rate struct {
	at     time.Time // of the last look
	bytes  int64     // by then
	second float64   // bytes in each
}

// halfLife is after how long what was counts half.
const halfLife = 3 * time.Second

func (r *rate) see(bytes int64, at time.Time) {
	passed := at.Sub(r.at).Seconds()
	if passed <= 0 {
		return
	}
	now := float64(max(bytes-r.bytes, 0)) / passed
	if r.second == 0 {
		r.second = now
	} else {
		weight := math.Exp2(-passed / halfLife.Seconds())
		r.second = weight*r.second + (1-weight)*now
	}
	r.at, r.bytes = at, bytes
}

func (r *rate) text() string {
	if r.second < 1 {
		return ""
	}
	return size(int64(r.second)) + "/s"
}

// left is how long the rest of all bytes will take.
func (r *rate) left(done, all int64) string {
	if r.second < 1 || all <= done {
		return ""
	}
	seconds := float64(all-done) / r.second
	if seconds > 100*3600 {
		return ""
	}
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
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
