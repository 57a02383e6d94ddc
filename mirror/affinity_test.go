package mirror

import (
	"testing"
	"time"

	"chantal"
	"chantal/internal/testenv"
)

const packagesPlain = "dists/bookworm/main/binary-amd64/Packages"

// twoGenerations returns what two publishings of a suite held, the second of
// them upstream, and a repository whose client began with the first.
func twoGenerations(t *testing.T, w *world, first Client) (old, new testenv.Files, r *Repo) {
	t.Helper()
	s := newSuite(t)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	old = s.publish(w.up, baseA)
	r = w.debian(baseA)
	view := r.Live(first)
	wantGet(t, view, inRelease, old[inRelease].Content)
	wantGet(t, view, packagesXZ, old[packagesXZ].Content)
	s.add(testenv.Package{Name: "hello", Version: "2"})
	new = s.publish(w.up, baseA)
	w.due()
	// Somebody else moves the head.
	wantGet(t, r.Live(Client{Conn: &Conn{}, Name: "other"}), inRelease, new[inRelease].Content)
	return old, new, r
}

func TestAConnectionKeepsTheGenerationItBeganWith(t *testing.T) {
	w := newWorld(t)
	c := Client{Conn: &Conn{}, Name: "192.0.2.1 apt"}
	old, new, r := twoGenerations(t, w, c)
	wantGet(t, r.Live(c), packagesXZ, old[packagesXZ].Content)
	wantGet(t, r.Live(Client{Conn: &Conn{}, Name: "other"}), packagesXZ, new[packagesXZ].Content)
	// It asks for the root again: the newest, and what belongs to it.
	wantGet(t, r.Live(c), inRelease, new[inRelease].Content)
	wantGet(t, r.Live(c), packagesXZ, new[packagesXZ].Content)
}

func TestTwoConnectionsOfAClientKeepAGenerationEach(t *testing.T) {
	w := newWorld(t)
	c := Client{Conn: &Conn{}, Name: "192.0.2.1 apt"}
	old, new, r := twoGenerations(t, w, c)
	newer := Client{Conn: &Conn{}, Name: c.Name, NoCache: true}
	wantGet(t, r.Live(newer), inRelease, new[inRelease].Content)
	for range 2 {
		wantGet(t, r.Live(c), packagesXZ, old[packagesXZ].Content)
		wantGet(t, r.Live(newer), packagesXZ, new[packagesXZ].Content)
	}
}

func TestAnIdleConnectionIsHeldNoMore(t *testing.T) {
	w := newWorld(t)
	c := Client{Conn: &Conn{}, Name: "192.0.2.1 apt"}
	_, new, r := twoGenerations(t, w, c)
	w.clock.advance(bindingLife + time.Second)
	wantGet(t, r.Live(c), packagesXZ, new[packagesXZ].Content)
}

func TestAnotherConnectionOfAClientJoinsItsGeneration(t *testing.T) {
	w := newWorld(t)
	c := Client{Conn: &Conn{}, Name: "192.0.2.1 libdnf"}
	old, new, r := twoGenerations(t, w, c)
	second := Client{Conn: &Conn{}, Name: c.Name}
	wantGet(t, r.Live(second), packagesXZ, old[packagesXZ].Content)
	w.due()
	// Two minutes on, a root request gets the newest.
	wantGet(t, r.Live(second), inRelease, new[inRelease].Content)
}

func TestARootRequestJoinsAGenerationInUse(t *testing.T) {
	w := newWorld(t)
	c := Client{Conn: &Conn{}, Name: "192.0.2.1 libdnf"}
	s := newSuite(t)
	s.publish(w.up, baseA)
	old := s.files
	r := w.debian(baseA)
	r.Refresh = time.Second
	wantGet(t, r.Live(c), inRelease, old[inRelease].Content)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	w.clock.advance(5 * time.Second)
	other := Client{Conn: &Conn{}, Name: "192.0.2.2 apt"}
	wantGet(t, r.Live(other), inRelease, s.content(inRelease))
	again := Client{Conn: &Conn{}, Name: c.Name}
	wantGet(t, r.Live(again), inRelease, old[inRelease].Content)
	fresh := again
	fresh.NoCache = true
	wantGet(t, r.Live(fresh), inRelease, s.content(inRelease))
	// Not for ever: a minute after the first of them began it ends.
	third := Client{Conn: &Conn{}, Name: c.Name}
	w.clock.advance(bindingHold)
	wantGet(t, r.Live(third), inRelease, s.content(inRelease))
}

func TestASignatureIsOfTheRootThatTheClientHas(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	old := s.publish(w.up, baseA)
	r := w.debian(baseA)
	r.Refresh = time.Second
	c := Client{Conn: &Conn{}, Name: "192.0.2.1 apt"}
	wantGet(t, r.Live(c), inRelease, old[inRelease].Content)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	w.clock.advance(time.Second)
	other := Client{Conn: &Conn{}, Name: "192.0.2.2 apt"}
	wantGet(t, r.Live(other), inRelease, s.content(inRelease))
	wantGet(t, r.Live(c), releasePath+".gpg", old[releasePath+".gpg"].Content)
	wantGet(t, r.Live(Client{Conn: &Conn{}, Name: c.Name}), releasePath, old[releasePath].Content)
	wantGet(t, r.Live(other), releasePath+".gpg", s.content(releasePath+".gpg"))
}

func TestAClosedConnectionHoldsNobody(t *testing.T) {
	w := newWorld(t)
	c := Client{Conn: &Conn{}, Name: "192.0.2.1 apt"}
	s := newSuite(t)
	s.publish(w.up, baseA)
	old := s.files
	r := w.debian(baseA)
	r.Refresh = time.Millisecond
	wantGet(t, r.Live(c), inRelease, old[inRelease].Content)
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	w.clock.advance(10 * time.Millisecond)
	wantGet(t, r.Live(Client{Conn: &Conn{}, Name: c.Name}), inRelease, old[inRelease].Content)
	c.Conn.Close()
	next := Client{Conn: &Conn{}, Name: "192.0.2.3 apt"}
	wantGet(t, r.Live(next), inRelease, s.content(inRelease))
	for range 3 { // one run right after the other, each with the newest
		next.Conn.Close()
		next = Client{Conn: &Conn{}, Name: next.Name}
		s.add(testenv.Package{Name: "hello", Version: "1"})
		s.publish(w.up, baseA)
		w.clock.advance(10 * time.Millisecond)
		wantGet(t, r.Live(next), inRelease, s.content(inRelease))
	}
}

func TestATreeWithHashNamesNeedsNoJoining(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.ByHash = true
	s.publish(w.up, baseA)
	r := w.debian(baseA)
	r.Refresh = time.Second
	wantGet(t, r.Live(Client{Conn: &Conn{}, Name: "192.0.2.1 apt"}), inRelease, s.content(inRelease))
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	w.clock.advance(5 * time.Second)
	wantGet(t, r.Live(Client{Conn: &Conn{}, Name: "192.0.2.1 apt"}), inRelease, s.content(inRelease))
}

func TestRetainedGenerationsAnswerByHash(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.ByHash = true
	r := w.debian(baseA)
	live := r.Live(Client{})
	var paths []string
	content := map[string][]byte{}
	for _, version := range []string{"1", "2", "3"} {
		s.add(testenv.Package{Name: "hello", Version: version})
		s.publish(w.up, baseA)
		w.due()
		wantGet(t, live, inRelease, s.content(inRelease))
		at := s.byHash(packagesXZ)
		f := wantGet(t, live, at, s.content(packagesXZ))
		if !f.ByDigest || f.Kind != chantal.Meta {
			t.Errorf("%s is %v, named by digest: %v", at, f.Kind, f.ByDigest)
		}
		root := "dists/bookworm/by-hash/SHA256/" + sha256Of(s.content(inRelease)).Hex()
		content[at], content[root] = s.content(packagesXZ), s.content(inRelease)
		paths = append(paths, at, root)
	}
	w.up.fail(down, "", -1)
	for _, at := range paths {
		wantGet(t, live, at, content[at])
	}
	// Beyond history they are answered no more.
	w.clock.advance(40 * 24 * time.Hour)
	w.up.heal()
	s.add(testenv.Package{Name: "hello", Version: "4"})
	s.publish(w.up, baseA)
	wantGet(t, live, inRelease, s.content(inRelease))
	w.clock.advance(40 * 24 * time.Hour)
	w.up.fail(down, "", -1)
	w.restart(true)
	if _, _, err := get(t, w.debian(baseA).Live(Client{}), paths[0]); err == nil {
		t.Error("a generation of eighty days ago is still answered")
	}
}

func TestASpellingOfAnIndexCountsAsWanted(t *testing.T) {
	w := newWorld(t)
	s := newSuite(t)
	s.ByHash = true
	s.add(testenv.Package{Name: "hello", Version: "1"})
	s.publish(w.up, baseA)
	live := w.debian(baseA).Live(Client{})
	wantGet(t, live, inRelease, s.content(inRelease))
	wantGet(t, live, s.byHash(packagesXZ), s.content(packagesXZ))
	s.add(testenv.Package{Name: "hello", Version: "2"})
	s.publish(w.up, baseA)
	w.due()
	wantGet(t, live, inRelease, s.content(inRelease))
	w.up.fail(down, "", -1)
	wantGet(t, live, s.byHash(packagesXZ), s.content(packagesXZ))
	wantGet(t, live, packagesXZ, s.content(packagesXZ))
}
