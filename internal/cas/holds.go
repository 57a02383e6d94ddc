package cas

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"chantal"
)

// holds knows what work that is under way relies on: blobs that it has stored
// or found, and that no record may name yet.
type holds struct {
	n atomic.Int64 // holds that are open; without any nothing is noted

	mu      sync.Mutex
	seq     uint64
	begun   map[uint64]struct{} // the open ones, by when they began
	touched map[sum]uint64      // when a blob was last stored or looked for
	most    int                 // entries at which what nobody needs is dropped
}

// sum is a SHA-256.
type sum = [32]byte

// heldMin is how many touched blobs are kept in mind at least.
const heldMin = 4096

// Hold protects every blob that anybody stores, finds or opens from now on
// against Collect, until release is called. Who looks for blobs first and names
// them in a record afterwards holds them in between. What is learned from
// Digests or Walk alone is not protected. Calling release again does nothing.
func (s *Store) Hold() (release func()) {
	h := &s.holds
	h.n.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	id := h.seq
	if h.begun == nil {
		h.begun, h.touched, h.most = map[uint64]struct{}{}, map[sum]uint64{}, heldMin
	}
	h.begun[id] = struct{}{}
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.n.Add(-1)
		delete(h.begun, id)
		if len(h.begun) == 0 {
			h.touched, h.most = map[sum]uint64{}, heldMin
		}
	})
}

// touch notes that somebody stores or looks for a blob. It comes before the
// look, so that whoever finds the blob has been noted before it could go.
func (s *Store) touch(d chantal.Digest) {
	h := &s.holds
	if h.n.Load() == 0 {
		return
	}
	sum, ok := parseSum([]byte(d.Hex()))
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.begun) == 0 {
		return
	}
	h.touched[sum] = h.seq
	if len(h.touched) < h.most {
		return
	}
	oldest := h.oldest()
	maps.DeleteFunc(h.touched, func(_ [32]byte, at uint64) bool { return at < oldest })
	h.most = max(heldMin, 2*len(h.touched))
}

// oldest returns when the first of the open holds began. h.mu is held.
func (h *holds) oldest() uint64 {
	if len(h.begun) == 0 {
		return h.seq + 1
	}
	return slices.Min(slices.Collect(maps.Keys(h.begun)))
}

// held reports whether a hold protects a blob. h.mu is held.
func (h *holds) held(d sum) bool {
	at, ok := h.touched[d]
	return ok && at >= h.oldest()
}

// InUse reports whether a blob is on its way to the disk, or a hold protects it.
func (s *Store) InUse(d chantal.Digest) bool {
	sum, ok := parseSum([]byte(d.Hex()))
	return ok && s.inUse(sum)
}

// inUse is InUse for one whose name is known to be one.
func (s *Store) inUse(d sum) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.holds.mu.Lock()
	defer s.holds.mu.Unlock()
	return s.inUseLocked(d)
}

func (s *Store) inUseLocked(d sum) bool { return s.pending[sumDigest(d)] != nil || s.holds.held(d) }
