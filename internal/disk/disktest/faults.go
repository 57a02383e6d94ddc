package disktest

import (
	"slices"
	"strings"
	"sync"

	"chantal/internal/disk"
)

// A Fault lets operations fail.
type Fault struct {
	Kinds []disk.Kind // which; empty for all that change the disk
	Path  string      // a part of the path; empty for any
	Skip  int         // so many of them are done first
	Times int         // so many fail, then they are done again; 0 for all
	Short bool        // half of what is written is written before it fails
	Err   error       // what they fail with
}

// Faults is a disk on which operations fail as they are told to. It is safe for
// concurrent use.
type Faults struct {
	mu     sync.Mutex
	faults []*Fault
	failed int
}

// Set replaces all faults; none makes the disk whole.
func (f *Faults) Set(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
	for _, one := range faults {
		if one.Times == 0 {
			one.Times = -1
		}
		f.faults = append(f.faults, &one)
	}
}

// Failed returns how many operations have failed so far.
func (f *Faults) Failed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Disk returns the disk to be used.
func (f *Faults) Disk() disk.Disk {
	return disk.Disk{Around: func(op *disk.Op, do func() error) error {
		hit := f.hit(op)
		if hit == nil {
			return do()
		}
		if hit.Short && op.Kind == disk.Write {
			op.Bytes = op.Bytes[:len(op.Bytes)/2]
		}
		if hit.Short && op.Kind == disk.Write || op.Kind == disk.Close { // close(2) closes, whatever it says
			if err := do(); err != nil {
				return err
			}
		}
		return hit.Err
	}}
}

// hit returns the fault that an operation meets, nil for none.
func (f *Faults) hit(op *disk.Op) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.faults {
		switch {
		case !one.meets(op):
		case one.Skip > 0:
			one.Skip--
		case one.Times == 0: // used up
		default:
			if one.Times > 0 {
				one.Times--
			}
			f.failed++
			return one
		}
	}
	return nil
}

func (f *Fault) meets(op *disk.Op) bool {
	if f.Path != "" && !strings.Contains(op.Path, f.Path) && !strings.Contains(op.To, f.Path) {
		return false
	}
	if len(f.Kinds) > 0 {
		return slices.Contains(f.Kinds, op.Kind)
	}
	return op.Changes()
}
