package keep

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"chantal"
)

func (w *world) scrub() *Scrub {
	return NewScrub(w.store, ScrubOptions{Every: time.Hour, Bandwidth: 1 << 20, Log: slog.New(slog.DiscardHandler), Now: time.Now})
}

// scrubbing runs a scrub at 1 MiB/s, once an hour, in the background.
func (w *world) scrubbing() (s *Scrub, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	s = w.scrub()
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	return s, func() { cancel(); <-done }
}

func TestTheScrubKeepsToItsPaceAndItsDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var all []chantal.Promise
		for i := range 20 {
			all = append(all, w.put(fmt.Sprint(i), chantal.Opaque, fmt.Sprintf("%0*d", 1<<19, i)))
		}
		w.flip(all[7])
		s, stop := w.scrubbing()
		defer stop()
		time.Sleep(5 * time.Second) // 10 MiB take ten
		synctest.Wait()
		if st := s.State(); !st.Underway() || st.Blobs < 6 || st.Blobs > 14 || st.Done() <= 0 || st.Done() >= 1 {
			t.Errorf("after five of ten seconds: %+v, %v", st, st.Done())
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		st := s.State()
		if st.Underway() || st.Blobs != 20 || st.Damaged != 1 || w.store.Damaged() != 1 {
			t.Errorf("after a pass: %+v", st)
		}
		time.Sleep(58 * time.Minute)
		synctest.Wait()
		if again := s.State(); again != st {
			t.Errorf("it did not rest: %+v, then %+v", st, again)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if again := s.State(); again.Underway() || again.Blobs != 19 || !again.Began.After(st.Began) {
			t.Errorf("after the second pass: %+v", again)
		}
	})
}

func TestTheScrubGoesOnWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 20 {
			w.put(fmt.Sprint(i), chantal.Opaque, fmt.Sprintf("%0*d", 1<<19, i))
		}
		s, stop := w.scrubbing()
		time.Sleep(5 * time.Second)
		stop()
		before := s.State()
		if !before.Underway() {
			t.Fatalf("no pass is under way: %+v", before)
		}
		if st := w.scrub().State(); st != before {
			t.Errorf("got %+v, want %+v", st, before)
		}
		s, stop = w.scrubbing()
		defer stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st := s.State(); st.Underway() || st.Blobs != 20 {
			t.Errorf("each blob once: %+v", st)
		}
	})
}
