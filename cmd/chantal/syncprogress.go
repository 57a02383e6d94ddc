package main

import (
	"slices"
	"time"

	"chantal/mirror"
)

// The words of syncStep.Event.
const (
	stepBegun    = "begun"    // a repository's turn has come
	stepProgress = "progress" // how far it is
	stepFailed   = "failed"   // a file could not be had; it may be tried once more
	stepDone     = "done"     // a repository is done, well or not
)

// syncStep is what people and scripts are told while a sync goes on. The counts
// of progress are those of the repository so far.
type syncStep struct {
	Event string    `json:"event"`
	Time  time.Time `json:"time"`
	Repo  string    `json:"repo"`

	Trees        int        `json:"trees,omitempty"`         // begun
	TreesDone    int        `json:"trees_done,omitempty"`    // as complete as they get
	Files        int        `json:"files,omitempty"`         // artifacts that belong to the selection
	Bytes        int64      `json:"bytes,omitempty"`         // of these
	Lacking      int        `json:"lacking,omitempty"`       // those of them that were not there at the beginning
	LackingBytes int64      `json:"lacking_bytes,omitempty"` // of these
	Fetched      int        `json:"fetched,omitempty"`       // those of lacking that have arrived
	FetchedBytes int64      `json:"fetched_bytes,omitempty"` // of these, and of those on their way
	Active       []syncFile `json:"active,omitempty"`        // files on their way

	Tree  string `json:"tree,omitempty"` // of a file that failed
	Path  string `json:"path,omitempty"`
	Error string `json:"error,omitempty"` // why it failed, or why the repository was given up

	Result *syncResult `json:"result,omitempty"` // when done
}

// syncFile is a file on its way.
type syncFile struct {
	Path  string    `json:"path"`
	Size  int64     `json:"size"` // -1 where nobody says
	Done  int64     `json:"done"`
	Since time.Time `json:"since"`
}

// stepEvery is how often steps of progress are taken.
const stepEvery = 200 * time.Millisecond

// syncCount follows the events of one sync and says how far it is.
type syncCount struct {
	step   syncStep
	trees  map[string]*treeCount
	active map[string]*syncFile
	metas  map[string]bool // those of active that are metadata: they are no part of the counts
	told   time.Time
}

// treeCount is what one tree under way has added to the counts.
type treeCount struct {
	planned bool
	plan    mirror.SyncEvent
	fetched int
	bytes   int64
}

func newSyncCount(repo string) *syncCount {
	return &syncCount{
		step: syncStep{Event: stepProgress, Repo: repo}, trees: map[string]*treeCount{},
		active: map[string]*syncFile{}, metas: map[string]bool{},
	}
}

// add counts an event, and returns what is to be told of it; nil for nothing.
func (c *syncCount) add(e mirror.SyncEvent, now time.Time) *syncStep {
	s, t := &c.step, c.trees[e.Tree]
	if t == nil && e.Tree != "" && e.Kind != mirror.SyncTreeDone {
		t = &treeCount{}
		c.trees[e.Tree] = t
		s.Trees++
	}
	switch e.Kind {
	case mirror.SyncTree:
		c.forget(t)
	case mirror.SyncPlan:
		c.forget(t)
		t.planned, t.plan = true, e
		c.addPlan(e, 1)
	case mirror.SyncTreeDone:
		// Its counts stay; what it was is of no more use.
		delete(c.trees, e.Tree)
		s.TreesDone++
		s.Trees = max(s.Trees, s.TreesDone)
	case mirror.SyncFile:
		c.active[e.Path] = &syncFile{Path: e.Path, Size: e.Size, Since: now}
		if !t.planned {
			c.metas[e.Path] = true
		}
	case mirror.SyncProgress:
		if f := c.active[e.Path]; f != nil {
			f.Done = e.Done
		}
	case mirror.SyncFileDone, mirror.SyncFileFailed:
		delete(c.active, e.Path)
		meta := c.metas[e.Path]
		delete(c.metas, e.Path)
		if e.Kind == mirror.SyncFileFailed {
			return &syncStep{Event: stepFailed, Time: now, Repo: s.Repo, Tree: e.Tree, Path: e.Path, Error: e.Error}
		}
		if !meta {
			t.fetched, t.bytes = t.fetched+1, t.bytes+max(e.Size, 0)
			s.Fetched, s.FetchedBytes = s.Fetched+1, s.FetchedBytes+max(e.Size, 0)
		}
	}
	if now.Sub(c.told) < stepEvery {
		return nil
	}
	c.told = now
	return c.now(now)
}

// now returns how far the sync is.
func (c *syncCount) now(now time.Time) *syncStep {
	s := c.step
	s.Time = now
	for path, f := range c.active {
		s.Active = append(s.Active, *f)
		if !c.metas[path] {
			s.FetchedBytes += f.Done
		}
	}
	slices.SortFunc(s.Active, func(a, b syncFile) int { return a.Since.Compare(b.Since) })
	return &s
}

// forget takes back what a tree has added, as it begins anew.
func (c *syncCount) forget(t *treeCount) {
	c.addPlan(t.plan, -1)
	c.step.Fetched -= t.fetched
	c.step.FetchedBytes -= t.bytes
	*t = treeCount{}
}

func (c *syncCount) addPlan(e mirror.SyncEvent, sign int) {
	s := &c.step
	s.Files += sign * e.Files
	s.Bytes += int64(sign) * e.Bytes
	s.Lacking += sign * e.Lacking
	s.LackingBytes += int64(sign) * e.LackingBytes
}
