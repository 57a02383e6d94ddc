package mirror

import (
	"net/url"
	"testing"
	"time"

	"chantal/internal/testenv"
)

func TestADateOfAMomentAgoProvesNothing(t *testing.T) {
	w := newWorld(t)
	w.up.fail(coarse, "/", -1)
	s := newSuite(t)
	now := w.clock.now()
	s.SetDate(now)
	s.publish(w.up, baseA)
	r := w.debian(baseA)
	view := r.Live(Client{})
	wantGet(t, view, inRelease, s.content(inRelease))
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.SetDate(now) // published again in the same second
	s.publish(w.up, baseA)
	w.due()
	wantGet(t, view, inRelease, s.content(inRelease))

	// When it is old, upstream's word is good enough, also for a root that was
	// new when it was first seen.
	w.clock.advance(2 * time.Minute)
	wantGet(t, view, inRelease, s.content(inRelease))
	w.up.forget()
	w.due()
	wantGet(t, view, inRelease, s.content(inRelease))
	asked := w.up.requests(inRelease)
	if len(asked) != 1 || asked[0].ETag == "" {
		t.Errorf("a root that is old is asked for with %+v, want its ETag", asked)
	}
}

func TestWhatAPageLinksToBeforeItIsThereIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	index := testenv.NewPyPI(time.Now())
	hello := testenv.Package{Name: "hello", Version: "1"}
	if err := index.Add(hello, time.Now()); err != nil {
		t.Fatal(err)
	}
	files, err := index.Publish()
	if err != nil {
		t.Fatal(err)
	}
	w.up.publish(baseA, files)
	wheel, err := testenv.Wheel(hello)
	if err != nil {
		t.Fatal(err)
	}
	at := testenv.FilePath(testenv.WheelName(hello), wheel) + ".metadata"
	late := baseA + at
	w.up.put(late, nil)
	live := w.add(Settings{Name: "pypi", Type: "pypi", Upstream: []string{baseA + "simple/"}}).Live(Client{})
	mustGet(t, live, "simple/hello/")
	w.up.then(at, func() { w.up.put(late, testenv.CoreMetadata(hello)) })
	u, err := url.Parse(late)
	if err != nil {
		t.Fatal(err)
	}
	wantGet(t, live, "+files/sha256/"+sha256Of(wheel).Hex()+"/"+u.Host+u.Path, testenv.CoreMetadata(hello))
}
