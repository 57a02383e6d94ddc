package mirror

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chantal"
	"chantal/internal/testenv"
)

const (
	listURL = "http://mirrors.example.org/metalink?repo=el-9&arch=x86_64"
	mirrorA = "http://a.mirror.example.org/el/9/"
	mirrorB = "http://b.mirror.example.org/el/9/"
	mirrorC = "http://c.mirror.example.org/pub/el9/"
)

// listed is a repository whose list of mirrors is at listURL.
type listed struct {
	*world
	rpm   *testenv.RPM
	files testenv.Files
	older [][]byte // repomd.xml of earlier publishings, the last first
	repo  *Repo
}

func newListed(t *testing.T, change func(*Settings)) *listed {
	t.Helper()
	w := newWorld(t)
	l := &listed{world: w, rpm: testenv.NewRPM(nil, time.Now())}
	l.publish("1.0", mirrorA, mirrorB, mirrorC)
	l.list(mirrorA, mirrorB, mirrorC)
	l.addListed(change)
	return l
}

func (l *listed) addListed(change func(*Settings)) {
	l.t.Helper()
	s := Settings{Name: "el", Type: "rpm", List: listURL, ListForm: "metalink", ListProves: true}
	if change != nil {
		change(&s)
	}
	l.repo = l.add(s)
}

// publish adds a version and puts the repository at some mirrors.
func (l *listed) publish(version string, mirrors ...string) {
	l.t.Helper()
	if err := l.rpm.Add(testenv.Package{Name: "hello", Version: version, Size: 3000}); err != nil {
		l.t.Fatal(err)
	}
	if l.files != nil {
		l.older = append([][]byte{l.files[repomd].Content}, l.older...)
	}
	var err error
	if l.files, err = l.rpm.Publish(); err != nil {
		l.t.Fatal(err)
	}
	for _, m := range mirrors {
		l.up.publish(m, l.files)
	}
}

// list puts a metalink of the newest publishing at listURL.
func (l *listed) list(mirrors ...string) {
	l.up.put(listURL, testenv.Metalink(mirrors, append([][]byte{l.files[repomd].Content}, l.older...)...).Content)
}

// gen asks for repomd.xml and returns which publishing came: 0 the newest, 1
// the one before.
func (l *listed) gen() int {
	l.t.Helper()
	got, _ := mustGet(l.t, l.repo.Live(Client{}), repomd)
	for i, want := range append([][]byte{l.files[repomd].Content}, l.older...) {
		if bytes.Equal(got, want) {
			return i
		}
	}
	l.t.Fatalf("a repomd.xml that was never published:\n%s", got)
	return -1
}

func (l *listed) wantGen(want int, when string) {
	l.t.Helper()
	if got := l.gen(); got != want {
		l.t.Fatalf("%s: the state before %d publishings, want %d", when, got, want)
	}
	if want > 0 {
		return
	}
	// what is fetched in the background would come in between otherwise
	for _, p := range metadata(l.files, "") {
		eventually(l.t, when+": "+p+" is stored", func() bool {
			_, err := l.store.Find("el", sha256Of(l.files[p].Content))
			return err == nil
		})
	}
}

// wantAsked fails the test unless requests for repomd.xml went to just these
// mirrors, in that order, since the last forget.
func (l *listed) wantAsked(when string, want ...string) {
	l.t.Helper()
	var got []string
	for _, r := range l.up.requests("/" + repomd) {
		base, main := strings.CutSuffix(r.URL, repomd)
		if main && (len(got) == 0 || got[len(got)-1] != base) {
			got = append(got, base)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		l.t.Fatalf("%s: asked (-want +got)\n%s", when, diff)
	}
}

func TestMirrorsOfAListAreTriedInOrder(t *testing.T) {
	l := newListed(t, nil)
	l.up.fail(down, mirrorA, -1)
	other := testenv.NewRPM(nil, time.Now())
	files, err := other.Publish()
	if err != nil {
		t.Fatal(err)
	}
	l.up.publish(mirrorB, files) // somebody else's repository
	l.wantGen(0, "one mirror is down, one has something else")
	l.wantAsked("", mirrorA, mirrorB, mirrorC)

	// what disappointed comes last for a while, and then first again
	l.up.heal()
	l.up.publish(mirrorB, l.files)
	l.up.forget()
	l.clock.advance(time.Minute)
	l.wantGen(0, "after a minute")
	l.wantAsked("after a minute", mirrorC)
	l.up.forget()
	l.clock.advance(mirrorRest + time.Minute)
	l.wantGen(0, "after a rest")
	l.wantAsked("after a rest", mirrorA)

	// any of them may serve what is promised
	l.up.fail(corrupt, mirrorA+"Packages/", -1)
	l.up.fail(missing, mirrorB+"Packages/", -1)
	path := l.rpm.PoolPath(testenv.Package{Name: "hello", Version: "1.0"})
	wantGet(t, l.repo.Live(Client{}), path, l.files[path].Content)
}

func TestAStaleMirrorIsPassedOver(t *testing.T) {
	l := newListed(t, nil)
	l.publish("2.0", mirrorB)
	l.list(mirrorA, mirrorB, mirrorC)
	l.wantGen(0, "the first mirror is stale, from the start")
	l.wantAsked("from the start", mirrorA, mirrorB)

	l.publish("3.0", mirrorC)
	l.list(mirrorA, mirrorB, mirrorC)
	l.clock.advance(11 * time.Minute)
	l.wantGen(0, "only the last mirror has the newest")

	// the list is ahead of all mirrors: the state stays, and nothing is wrong
	l.publish("4.0")
	l.list(mirrorA, mirrorB, mirrorC)
	l.clock.advance(11 * time.Minute)
	l.wantGen(1, "no mirror has the newest")
	if s, err := l.repo.Status(t.Context()); err != nil || len(s.Errors) > 0 {
		t.Errorf("status: %+v, %v", s.Errors, err)
	}
	l.up.publish(mirrorC, l.files)
	l.clock.advance(time.Minute)
	l.wantGen(0, "a mirror has the newest now")
}

// The list says that the head is the present state: mirrors that went back, or
// away, do not make it doubtful.
func TestMirrorsThatGoBackDoNotUnsettleTheHead(t *testing.T) {
	l := newListed(t, nil)
	l.wantGen(0, "at first")
	first := l.files
	l.publish("2.0", mirrorA, mirrorB, mirrorC)
	l.list(mirrorA, mirrorB, mirrorC)
	l.clock.advance(11 * time.Minute)
	l.wantGen(0, "later")
	l.up.publish(mirrorA, first)
	l.up.publish(mirrorB, first)
	l.up.fail(down, mirrorC, -1)
	l.clock.advance(11 * time.Minute)
	got, f := mustGet(t, l.repo.Live(Client{}), repomd)
	if !bytes.Equal(got, l.files[repomd].Content) || f.Cache == chantal.Stale {
		t.Errorf("%d bytes, stale %v", len(got), f.Cache == chantal.Stale)
	}
	if s, err := l.repo.Status(t.Context()); err != nil || len(s.Errors) > 0 {
		t.Errorf("status: %+v, %v", s.Errors, err)
	}
	l.up.fail(down, "/metalink", -1)
	l.clock.advance(11 * time.Minute)
	l.wantGen(0, "the list is away, too")
	if s, err := l.repo.Status(t.Context()); err != nil || len(s.Errors) != 1 || !strings.HasPrefix(s.Errors[0], "list of mirrors: ") {
		t.Errorf("status: %+v, %v", s.Errors, err)
	}
}

// A root that the list knows as an older one is better than none.
func TestAnAlternateIsTakenWhereNoMirrorHasThePresentRoot(t *testing.T) {
	l := newListed(t, nil)
	l.publish("2.0")
	l.list(mirrorA, mirrorB)
	l.wantGen(1, "all mirrors have an older one")
}

func TestWhatAMetalinkDoesNotListIsRefused(t *testing.T) {
	l := newListed(t, func(s *Settings) { s.Upstream = []string{mirrorC} })
	l.publish("2.0", mirrorA, mirrorB, mirrorC)
	_, _, err := get(t, l.repo.Live(Client{}), repomd)
	var wrong *chantal.MismatchError
	if !errors.As(err, &wrong) {
		t.Fatalf("a root that the list does not name: %v", err)
	}
	if _, _, err := get(t, l.repo.Live(Client{}), repomd); err == nil {
		t.Fatal("it was taken the second time")
	}
	l.clock.advance(2 * time.Second)
	if _, _, err := get(t, l.repo.Live(Client{}), repomd); err == nil {
		t.Fatal("it was taken the third time")
	}
	if n := len(l.up.requests("/metalink")); n != 2 {
		t.Errorf("the list was fetched %d times, not once more because of what it does not name", n)
	}
	// configured mirrors come first, and are held to the list as well
	if first := l.up.requests(repomd)[0].URL; first != mirrorC+repomd {
		t.Errorf("asked %s first", first)
	}
}

// Upstream publishes after its list was read: the list is read again, not the
// mirrors blamed.
func TestAListThatIsOlderThanTheMirrorsIsFetchedAgain(t *testing.T) {
	l := newListed(t, nil)
	l.wantGen(0, "at first")
	l.clock.advance(2 * time.Minute) // the tree is due, the list is not
	l.publish("2.0", mirrorA, mirrorB, mirrorC)
	l.list(mirrorA, mirrorB, mirrorC)
	l.up.forget()
	l.wantGen(0, "both have changed")
	if n := len(l.up.requests("/metalink")); n != 1 {
		t.Errorf("the list was fetched %d times", n)
	}

	// the mirrors are ahead of the list, which follows later
	l.clock.advance(2 * time.Minute)
	l.publish("3.0", mirrorA, mirrorB, mirrorC)
	l.wantGen(1, "the list is late")
	l.list(mirrorA, mirrorB, mirrorC)
	l.clock.advance(2 * time.Minute)
	l.wantGen(0, "the list is there")
}

func TestTheLastGoodListIsKept(t *testing.T) {
	l := newListed(t, nil)
	l.wantGen(0, "at first")
	for _, bad := range []trouble{down, portal, truncated, unavailable} {
		l.up.fail(bad, "/metalink", -1)
		l.publish("1."+string(bad), mirrorA)
		l.clock.advance(11 * time.Minute)
		l.wantGen(1, string(bad)) // mirror A has what the kept list does not name
		l.up.heal()
		l.list(mirrorA)
		l.clock.advance(2 * time.Minute)
		l.wantGen(0, "after "+string(bad))
	}

	// it outlives a restart while its host is away
	l.restart(false)
	l.up.fail(down, "/metalink", -1)
	l.addListed(nil)
	path := l.rpm.PoolPath(testenv.Package{Name: "hello", Version: "1.0"})
	wantGet(t, l.repo.Live(Client{}), path, l.files[path].Content)
	l.up.forget()
	l.clock.advance(2 * time.Minute)
	l.wantGen(0, "after a restart")
	l.wantAsked("after a restart", mirrorA)
}

func TestAKeptListThatWasDamagedIsNotBelieved(t *testing.T) {
	l := newListed(t, nil)
	l.wantGen(0, "at first")
	key := l.repo.list.key()
	l.restart(false)
	l.up.fail(down, "/metalink", -1)
	l.addListed(nil)
	f, err := l.store.Derived(key)
	if err != nil {
		t.Fatal(err)
	}
	var kept bytes.Buffer
	if _, err := kept.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	evil := bytes.ReplaceAll(kept.Bytes(), []byte("a.mirror"), []byte("x.mirror"))
	if bytes.Equal(evil, kept.Bytes()) {
		t.Fatal("nothing was damaged")
	}
	if err := l.store.PutDerived(key, writeAll(evil)); err != nil {
		t.Fatal(err)
	}
	path := l.rpm.PoolPath(testenv.Package{Name: "hello", Version: "1.0"})
	if _, _, err := get(t, l.repo.Live(Client{}), path); err == nil {
		t.Errorf("a damaged list led somewhere: %v", l.up.requests("/"))
	}
	if asked := l.up.requests("x.mirror"); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
}

func TestAListThatNeverCameIsTheError(t *testing.T) {
	for title, change := range map[string]func(*Settings){
		"nothing else": nil,
		// without the list nobody knows which root is right
		"upstream, and a list that proves": func(s *Settings) { s.Upstream = []string{mirrorA} },
	} {
		t.Run(title, func(t *testing.T) {
			l := newListed(t, change)
			l.up.fail(down, "/metalink", -1)
			_, _, err := get(t, l.repo.Live(Client{}), repomd)
			var up *chantal.UpstreamError
			if !errors.As(err, &up) || !strings.Contains(up.URL, "mirrors.example.org") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("upstream, and a list of further mirrors", func(t *testing.T) {
		l := newListed(t, func(s *Settings) {
			s.Upstream, s.ListForm, s.ListProves = []string{mirrorA}, "mirrorlist", false
		})
		l.up.fail(down, "/metalink", -1)
		l.wantGen(0, "upstream is enough")
	})
}

func TestListsAreAsTheSettingsHaveThem(t *testing.T) {
	secure := "https" + strings.TrimPrefix(listURL, "http")
	for title, c := range map[string]struct {
		file     testenv.File
		settings Settings
		keyring  bool
		good     bool
	}{
		"a mirrorlist":                   {testenv.Mirrorlist(mirrorA), Settings{List: listURL, ListForm: "mirrorlist"}, false, true},
		"a mirrorlist for a metalink":    {testenv.Mirrorlist(mirrorA), Settings{List: listURL, ListForm: "metalink"}, false, false},
		"plain mirrors by https":         {testenv.Mirrorlist(mirrorA), Settings{List: secure, ListForm: "mirrorlist"}, false, false},
		"plain mirrors and a keyring":    {testenv.Mirrorlist(mirrorA), Settings{List: secure, ListForm: "mirrorlist"}, true, true},
		"plain mirrors that are checked": {testenv.File{}, Settings{List: secure, ListForm: "metalink"}, false, true},
		"too long":                       {testenv.Mirrorlist(mirrorA, "#"+strings.Repeat("x", maxList)), Settings{List: listURL, ListForm: "mirrorlist"}, false, false},
	} {
		t.Run(title, func(t *testing.T) {
			w := newWorld(t)
			key, err := testenv.NewKey("archive", time.Now().Add(-48*time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			l := &listed{world: w, rpm: testenv.NewRPM(key, time.Now())}
			l.publish("1.0", mirrorA)
			if c.file.Content == nil {
				c.file = testenv.Metalink([]string{mirrorA}, l.files[repomd].Content)
			}
			w.up.put(c.settings.List, c.file.Content)
			c.settings.Name, c.settings.Type = "el", "rpm"
			if c.keyring {
				c.settings.Keyring = (&suite{APT: &testenv.APT{Key: key}, t: t}).keyring()
			}
			_, _, err = get(t, w.add(c.settings).Live(Client{}), repomd)
			if (err == nil) != c.good {
				t.Errorf("got %v, want good %v", err, c.good)
			}
		})
	}
}

// The kept list is used while a newer one is waited for.
func TestASlowListHoldsNobodyUp(t *testing.T) {
	l := newListed(t, nil)
	l.wantGen(0, "at first")
	l.clock.advance(11 * time.Minute)
	l.up.fail(silent, "/metalink", -1)
	before := time.Now()
	l.wantGen(0, "the list's host is silent")
	if took := time.Since(before); took > 2*listPatience {
		t.Errorf("it took %v", took)
	}
}
