package keep

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"chantal"
	"chantal/internal/cas"
)

const (
	scrubName  = "scrub"          // of the state in the store
	saveEvery  = 10 * time.Second // so much is read twice after a kill at most
	scrubRetry = time.Minute      // after an error of the disk
	burst      = 1 << 20          // bytes; more than what the store reads at once
	perRead    = 4 << 10          // bytes that a read counts for beside its own: small files cost seeks
)

// ScrubOptions say how a store is read in the background. All are required.
type ScrubOptions struct {
	Every     time.Duration // from the beginning of a pass to that of the next
	Bandwidth int64         // bytes per second; 0 for no limit
	Log       *slog.Logger
	Now       func() time.Time
}

// Scrub reads every blob of a store now and then, slowly, so that damage is
// found before somebody needs the file. How far it has come outlives the
// process. Its methods are safe for concurrent use.
type Scrub struct {
	store *cas.Store
	o     ScrubOptions

	mu    sync.Mutex
	state ScrubState
	saved time.Time
}

// ScrubState is how far a scrub has come.
type ScrubState struct {
	Cursor   chantal.Digest `json:"cursor,omitempty"` // the last blob read in this pass; "" between passes
	Began    time.Time      `json:"began,omitzero"`   // this pass, or the last one
	Finished time.Time      `json:"finished,omitzero"`
	Blobs    int            `json:"blobs"` // read in this pass, or the last one
	Bytes    int64          `json:"bytes"`
	Damaged  int            `json:"damaged"` // found in this pass, or the last one
}

// NewScrub returns the scrub of a store, where an earlier one left off.
func NewScrub(store *cas.Store, o ScrubOptions) *Scrub {
	s := &Scrub{store: store, o: o}
	if err := store.State(scrubName, &s.state); err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("the scrub begins anew", "error", err)
		s.state = ScrubState{}
	}
	return s
}

// State returns how far the scrub has come.
func (s *Scrub) State() ScrubState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Underway reports whether a pass has begun and not ended.
func (s ScrubState) Underway() bool { return s.Began.After(s.Finished) }

// Done returns which part of a pass is done, from 0 to 1: digests are spread
// evenly.
func (s ScrubState) Done() float64 {
	sum, err := hex.DecodeString(s.Cursor.Hex())
	if err != nil || len(sum) < 2 {
		return 0
	}
	return (float64(sum[0]) + float64(sum[1])/256) / 256
}

// Run scrubs until ctx ends.
func (s *Scrub) Run(ctx context.Context) {
	limit := rate.NewLimiter(rate.Limit(s.o.Bandwidth), burst)
	if s.o.Bandwidth <= 0 {
		limit.SetLimit(rate.Inf)
	}
	for {
		wait := s.due()
		if wait <= 0 {
			if err := s.pass(ctx, limit); err != nil && ctx.Err() == nil {
				s.o.Log.Error("reading the store in the background", "error", err)
				wait = scrubRetry
			}
		}
		select {
		case <-time.After(max(wait, 0)):
		case <-ctx.Done():
			s.save()
			return
		}
	}
}

// due returns how long there is nothing to do.
func (s *Scrub) due() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Underway() || s.state.Began.IsZero() {
		return 0
	}
	return s.state.Began.Add(s.o.Every).Sub(s.o.Now())
}

// pass goes on with the pass under way, or begins one, until it is done.
func (s *Scrub) pass(ctx context.Context, limit *rate.Limiter) error {
	s.mu.Lock()
	if !s.state.Underway() {
		s.state = ScrubState{Began: s.o.Now().UTC(), Finished: s.state.Finished}
	}
	from := s.state.Cursor
	s.mu.Unlock()
	err := s.store.Walk(from, func(b cas.Blob) error {
		_, _, err := s.store.Check(ctx, b.Digest, nil, func(n int) error { return limit.WaitN(ctx, n+perRead) })
		var damage *cas.DamagedError
		if errors.Is(err, fs.ErrNotExist) && !errors.As(err, &damage) {
			return nil // gone meanwhile
		}
		if err != nil && damage == nil {
			return err
		}
		s.advance(b, damage != nil)
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	// A pass takes no time where the store is empty.
	s.state.Finished, s.state.Cursor = later(s.o.Now().UTC(), s.state.Began), ""
	done := s.state
	s.mu.Unlock()
	s.save()
	s.o.Log.Info("the whole store has been read", "blobs", done.Blobs, "bytes", done.Bytes, "damaged", done.Damaged,
		"took", done.Finished.Sub(done.Began).Round(time.Second))
	return nil
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// advance notes that a blob has been read.
func (s *Scrub) advance(b cas.Blob, damaged bool) {
	s.mu.Lock()
	s.state.Cursor = b.Digest
	s.state.Blobs++
	s.state.Bytes += b.Size
	if damaged {
		s.state.Damaged++
	}
	due := s.o.Now().Sub(s.saved) >= saveEvery
	s.mu.Unlock()
	if due {
		s.save()
	}
}

func (s *Scrub) save() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = s.o.Now()
	if err := s.store.SetState(scrubName, s.state); err != nil {
		s.o.Log.Warn("noting how far the scrub has come", "error", err)
	}
}
