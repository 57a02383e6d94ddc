package cas

import (
	"errors"
	"io"
	"io/fs"
	"time"

	"chantal"
	"chantal/internal/disk"
)

// spilled is what a growing file has in memory, because the disk did not take
// it. Growing.mu guards it; only the writer changes it.
type spilled struct {
	mem     *memory // nil while the disk takes the file; bytes lie in it where they have in the file
	left    bool    // mem is no longer the writer's
	base    int64   // what is before it is in mem.old
	gone    int64   // what is before it, from base on, is forgotten
	passing bool    // too large to stay: what all followers have read is forgotten
}

// spill goes on in memory behind the first n bytes: the disk failed with err,
// which is returned where that is not possible. g.writing is held.
func (g *Growing) spill(n int64, err error) error {
	s := g.s
	err = s.trouble(err)
	mem, merr := newMemory()
	if merr != nil {
		return err
	}
	if g.f != nil && n > 0 {
		if mem.old, merr = s.disk.Open(g.temp); merr != nil {
			mem.release()
			return err
		}
	}
	size := max(g.Size(), n)
	whole := size <= wholeMax && s.reserve(mem, size)
	if whole && mem.old != nil {
		if _, merr = io.Copy(mem, io.LimitReader(mem.old, n)); merr != nil {
			s.abandon(mem)
			return err
		}
	}
	g.mu.Lock()
	g.spilled = spilled{mem: mem, passing: !whole}
	if !whole {
		g.spilled.base, g.spilled.gone = n, n
	}
	for f := range g.follows {
		f.mem = mem.hold()
	}
	g.mu.Unlock()
	if g.f != nil {
		g.f.Close()
		s.disk.Remove(g.temp) // those who have it open go on reading it
		g.f = nil
	}
	g.unclaim(false)
	return nil
}

// writeMemory writes p at off, and waits for room. g.writing is held.
func (g *Growing) writeMemory(p []byte, off int64) error {
	sp := &g.spilled
	end := off + int64(len(p))
	if more := end - sp.mem.size(g.s); !sp.passing && more > 0 && (end > wholeMax || !g.s.reserve(sp.mem, more)) {
		g.mu.Lock()
		sp.passing = true
		g.mu.Unlock()
	}
	if sp.passing {
		if err := g.room(end); err != nil {
			return err
		}
	}
	_, err := sp.mem.WriteAt(p, off)
	return err
}

// room forgets what all followers have read, until the bytes before end fit.
// Followers that read nothing for too long are left behind.
func (g *Growing) room(end int64) error {
	sp := &g.spilled
	timer := time.NewTimer(laggardMax)
	defer timer.Stop()
	for {
		g.mu.Lock()
		read := end
		for _, off := range g.follows {
			read = min(read, off)
		}
		nobody, progress := len(g.follows) == 0, false
		if !nobody && read > sp.gone {
			sp.gone, progress = read, true
		}
		gone, fits := sp.gone, end-sp.gone <= windowMax
		g.mu.Unlock()
		if progress {
			if err := sp.mem.Forget(gone); err != nil {
				return err
			}
			timer.Reset(laggardMax)
		}
		switch {
		case fits:
			return nil
		case nobody && gone > sp.base:
			return chantal.ErrNotKept // those who began have left, and nobody else can begin
		}
		select {
		case <-g.moved:
		case <-timer.C:
			if nobody {
				return chantal.ErrNotKept
			}
			g.mu.Lock()
			for f, off := range g.follows {
				if off <= gone {
					delete(g.follows, f) // its next read fails
				}
			}
			g.mu.Unlock()
			timer.Reset(laggardMax)
		}
	}
}

// commitMemory hands what is in memory to the store. g.writing is held.
func (g *Growing) commitMemory(b Blob) (Blob, error) {
	if g.spilled.passing {
		g.leaveMemory()
		return b, chantal.ErrNotKept
	}
	g.letGo()
	return g.s.admit(b, "", g.spilled.mem, g.aliases)
}

// letGo notes that the memory is no longer the writer's, so that nobody else
// takes a share of it, and reports whether it was until now.
func (g *Growing) letGo() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.spilled.mem != nil && !g.spilled.left
	g.spilled.left = true
	return was
}

// leaveMemory ends the writer's part in the memory. g.writing is held.
func (g *Growing) leaveMemory() {
	if g.letGo() {
		g.s.abandon(g.spilled.mem)
	}
}

// follow adds f to those who read the file, and opens it where it lies now: on
// disk, unless f gets the memory.
func (g *Growing) follow(f *Follower) error {
	for {
		g.mu.Lock()
		sp, ended := &g.spilled, g.ended
		var err error
		switch {
		case g.err != nil:
			err = g.err
		case sp.mem != nil && sp.passing && (sp.left || sp.gone > sp.base):
			err = chantal.ErrNotKept
		case sp.mem != nil && !sp.left:
			f.mem = sp.mem.hold()
			g.follows[f] = 0
			g.mu.Unlock()
			return nil
		case !ended:
			g.follows[f] = 0 // before the file is opened: if it spills meanwhile, f gets the memory
		}
		g.mu.Unlock()
		if err != nil {
			return err
		}
		if err = g.open(f, ended); err == nil || ended || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// The name goes away before the outcome is known, but not long before.
		<-g.done
	}
}

// open opens the file on disk for f, who may have got the memory meanwhile.
func (g *Growing) open(f *Follower, ended bool) error {
	var file *disk.File
	var err error
	if ended {
		file, _, err = g.s.Open(g.Blob().Digest)
	} else {
		file, err = g.s.disk.Open(g.temp)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil || f.mem != nil {
		f.f = file
		return nil
	}
	delete(g.follows, f)
	if ended && g.spilled.mem != nil && errors.Is(err, fs.ErrNotExist) {
		err = chantal.ErrNotKept // it was in memory, and had to leave
	}
	return err
}

// leave takes f from those who read the file.
func (g *Growing) leave(f *Follower) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.follows, f)
	if f.mem != nil {
		f.mem.release()
		f.mem = nil
	}
	signal(g.moved)
}

// read notes that f has read the file up to off.
func (g *Growing) read(f *Follower, off int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.follows[f]; ok {
		g.follows[f] = off
		if g.spilled.passing {
			signal(g.moved)
		}
	}
}

// source returns where the bytes at off are, and how many of n.
func (g *Growing) source(f *Follower, off, n int64) (from io.ReaderAt, inMemory bool, more int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case f.mem == nil:
		return f.f, false, n
	case off >= g.spilled.base:
		return f.mem, true, n
	}
	return f.mem.old, false, min(n, g.spilled.base-off)
}

// valid reports whether bytes read from memory at off were there all the time.
func (g *Growing) valid(off int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if off < g.spilled.gone {
		return chantal.ErrNotKept
	}
	return nil
}
