package proxy

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chantal/internal/fetch"
	"chantal/internal/testenv"
	"chantal/mirror"
)

const (
	silent  = time.Second               // after which an upstream that is slow on purpose counts as silent
	patient = 20 * time.Second          // the same for one that is not: machines that run tests are busy
	enough  = slower * 15 * time.Second // within which every client has to have its answer
	peace   = 1200 * time.Millisecond   // what 503-after and 429-after ask for, and a little
	abreast = 64                        // groups of cases at a time: most of their time is spent waiting
)

// The situations in which a fault meets a client.
const (
	first   = "first"   // the file is asked for for the first time
	refresh = "refresh" // it was had before, and upstream has another one now
	resume  = "resume"  // it broke off in the middle, and the rest meets the fault
	second  = "second"  // another mirror has it, without the fault
	both    = "both"    // another mirror has it, with the fault
)

// TestEveryFault lets every part of a repository of every format meet every
// fault in every situation, and checks what a client gets: the bytes of a state
// that upstream has had, never of two, or an error that tells what to do, or a
// connection that is cut, in bounded time and with bounded questions upstream;
// and, once upstream is well again, the newest state.
//
// The root and one other part by turns meet each fault, at one mirror; with
// -every all parts do, and at both mirrors of a repository too. Under the race
// detector one fault in four has to do.
// One case: go test ./proxy -every -run 'TestEveryFault/rpm/refresh/truncate/root$'
func TestEveryFault(t *testing.T) {
	inMemory(t)
	var groups sync.WaitGroup
	defer groups.Wait()
	places := make(chan struct{}, abreast/slower)
	memory := make(chan struct{}, 2) // for those that take much
	for _, make := range []func(*testing.T, int) *stock{aptStock, rpmStock, pypiStock} {
		stocks := map[string]*stock{}
		for i, part := range parts {
			stocks[part] = make(t, i)
		}
		for turn, situation := range []string{first, refresh, resume, second, both} {
			testenv.Faults(func(f testenv.Fault, harm testenv.Harm, _ string) {
				switch {
				case strings.HasPrefix(string(f), "range-") && situation != resume:
					return // it shows only where a part of the file is asked for
				case situation == both && !*every:
					return
				}
				turn++
				if !*every && turn%slower != 0 {
					return
				}
				chosen := []string{root, parts[1+turn%(len(parts)-1)]}
				if *every {
					chosen = parts
				}
				places <- struct{}{}
				groups.Go(func() {
					defer func() { <-places }()
					t.Run(stocks[root].kind+"/"+situation+"/"+string(f), func(t *testing.T) {
						if boundless(f) {
							memory <- struct{}{}
							defer func() { <-memory }()
						}
						meet(t, stocks, chosen, faultCase{situation: situation, fault: f, harm: harm})
					})
				})
			})
		}
	}
}

var every = flag.Bool("every", false, "let every part of a repository meet every fault")

// meet lets one part after the other meet a fault. Each has a stock of its own,
// of which the store has nothing yet.
func meet(t *testing.T, stocks map[string]*stock, chosen []string, c faultCase) {
	c.egress, c.failing = fetch.NewEgress(nil, nil), new(atomic.Bool)
	c.site = newSiteFrom(t, c.source, nil)
	for _, part := range chosen {
		if part == lone && boundless(c.fault) {
			continue // nobody knows how large such a file may be
		}
		if part == root && stocks[part].kind == "pypi" && c.fault == testenv.Redirect {
			continue // links follow the address that a page is found at: it is another page
		}
		t.Run(part, func(t *testing.T) {
			c := c
			c.T, c.part, c.stock = t, part, stocks[part]
			c.run()
		})
	}
}

// source is the real client with retries, which is in a hurry while an upstream
// is slow on purpose.
func (c *faultCase) source(s *site) fetch.Source {
	client := func(timeout time.Duration) fetch.Source {
		client := fetch.New(fetch.Options{Egress: c.egress, Timeout: timeout})
		s.t.Cleanup(client.CloseIdleConnections)
		return fetch.Retry(1, 2*silent, nil)(client)
	}
	usual, hurried := client(patient), client(silent)
	return fetch.SourceFunc(func(ctx context.Context, r *fetch.Request) (*fetch.Response, error) {
		if c.failing.Load() {
			return hurried.Fetch(ctx, r)
		}
		return usual.Fetch(ctx, r)
	})
}

// slow reports whether a fault consists in waiting.
func slow(f testenv.Fault) bool {
	return f == testenv.Stall || strings.HasPrefix(string(f), "hang") || strings.HasPrefix(string(f), "drip") || strings.HasSuffix(string(f), "-flood")
}

// asksForPeace reports whether a fault tells when to come back.
func asksForPeace(f testenv.Fault) bool { return strings.HasSuffix(string(f), "-after") }

func boundless(f testenv.Fault) bool {
	return f == testenv.Huge || strings.HasPrefix(string(f), "endless")
}

// inMemory lets the folders of a test be in memory, where there is a file
// system for that: what it checks has nothing to do with the disk.
func inMemory(t *testing.T) {
	t.Helper()
	const shared = "/dev/shm"
	if probe, err := os.MkdirTemp(shared, "chantal-"); err == nil {
		os.Remove(probe)
		t.Setenv("TMPDIR", shared)
	}
}

// faultCase is one upstream with a fault, and a client before it.
type faultCase struct {
	*testing.T
	*stock
	situation, part string
	fault           testenv.Fault
	harm            testenv.Harm

	site    *site
	egress  *fetch.Egress
	failing *atomic.Bool // an upstream is slow on purpose
	up      []*testenv.Server
	client  *rawClient
	page    []byte // the root that the client got last
}

func (c *faultCase) run() {
	c.start()
	c.publish(0)
	switch {
	case c.situation == refresh:
		c.visit(parts...)
		c.visit(lone) // what nobody promised is followed at first, and had from the store then
		c.site.advance(2 * time.Minute)
		c.publish(1)
	default:
		c.publish(1)
		if c.promised() {
			c.visit(root, index)
		}
	}
	c.fail()
	c.failing.Store(slow(c.fault))
	before := c.asked()
	seen := c.visit(upTo(c.part)...)
	c.consistent(seen)
	got := seen[c.part]
	if want := c.allowed(); !slices.Contains(want, got.outcome) {
		c.Errorf("%s %s got %q, want one of %q; %s", c.part, got.path, got.outcome, want, got.excerpt())
	}
	if n := c.asked() - before; n > 60 {
		c.Errorf("upstream was asked %d times", n)
	}
	c.consistent(c.visit(parts...))
	for _, up := range c.up {
		up.Heal()
	}
	c.failing.Store(false)
	if asksForPeace(c.fault) {
		time.Sleep(peace)
	}
	c.wellAgain()
	c.recovered()
}

// wellAgain checks that a promised file comes as soon as upstream has it: with
// the next request, or the one after it where that joins a download which the
// fault still holds.
func (c *faultCase) wellAgain() {
	if !c.promised() || c.situation == refresh {
		return
	}
	var got reply
	for range 3 {
		if got = c.visit(upTo(c.part)...)[c.part]; got.outcome == "new" {
			return
		}
	}
	c.Errorf("upstream is well, and %s got %q; %s", got.path, got.outcome, got.excerpt())
}

// recovered checks that the newest state is served within two refreshes.
// Where upstream said of other bytes that they are the newest, in a way that
// only the bytes themselves can disprove, it takes until these are asked for.
func (c *faultCase) recovered() {
	wait := 2 * time.Minute
	if !c.promised() && c.harm >= testenv.Past {
		wait = 24 * time.Hour
		if c.part == lone {
			wait *= 7
		}
	}
	for range 2 {
		c.site.advance(wait)
		c.visit(root, lone)
	}
	for part, got := range c.visit(parts...) {
		if got.outcome != "new" {
			c.Errorf("two refreshes after upstream was well, %s %s got %q, not the newest; %s", part, got.path, got.outcome, got.excerpt())
		}
	}
}

// upTo returns the parts that a client asks for to get at one.
func upTo(part string) []string {
	switch part {
	case root, lone:
		return []string{part}
	case index:
		return []string{root, index}
	}
	return []string{root, index, part}
}

// promised reports whether metadata gives a digest of the part.
func (c *faultCase) promised() bool { return c.part != root && c.part != lone }

// allowed are the outcomes that a client may see while the fault is there.
// Right bytes always are: what upstream does wrong need not be noticed.
func (c *faultCase) allowed() []string {
	want := []string{"new"}
	if c.situation == resume && c.part == lone {
		// Only what upstream confirms to be of the same state can be added. Who
		// has not been sent anything by then is told so.
		want = append(want, "cut", "503")
	}
	if c.kind == "pypi" && c.part == root && c.fault == "type-wrong" {
		want = append(want, "old", "502") // a page says by its type which of two forms it has
	}
	if c.harm == testenv.Odd {
		return want
	}
	if c.situation == refresh && (c.part != lone || c.harm != testenv.Absent) {
		want = append(want, "old")
	}
	streams := c.part == large || c.part == lone
	if !c.promised() {
		switch {
		case c.harm == testenv.Past:
			want = append(want, "old")
		case c.harm == testenv.Wrong && (c.part == lone || c.keys == nil):
			want = append(want, "wrong") // nobody could know
		}
	}
	switch {
	case c.situation == second && streams && (c.part == lone || c.harm != testenv.Broken):
		return append(want, "cut") // a client had bytes that the other mirror's cannot follow
	case c.situation == second, c.situation == refresh && c.part == root:
		return want
	case c.harm == testenv.Absent, c.kind == "pypi" && c.promised() && c.harm >= testenv.Past:
		want = append(want, "404") // what is named after its content is not there in another state
	case c.fault == "redirect-private":
		want = append(want, "403")
	}
	asksLater := c.part == small || c.part == large || c.part == index // no state is waited for until it has them
	if c.part == index && c.kind != "pypi" {
		asksLater = false
	}
	if c.situation == refresh && !asksLater || c.harm == testenv.Absent && c.situation != resume {
		return want
	}
	if streams {
		want = append(want, "cut")
	}
	return append(want, "502", "503")
}

// consistent checks that what a client got in one go belongs together.
func (c *faultCase) consistent(got map[string]reply) {
	c.Helper()
	state := got[root].outcome
	if state != "new" && state != "old" {
		return
	}
	named := parts[1:4]
	if c.kind != "pypi" && got[index].outcome != state {
		named = parts[1:2] // without it no client knows the others
	}
	for _, part := range named {
		if o := got[part].outcome; (o == "new" || o == "old") && o != state {
			c.Errorf("a mixture: the root is %s, %s is %s", state, part, o)
		}
	}
}

// start starts the upstreams and adds the repository.
func (c *faultCase) start() {
	c.Helper()
	mirrors := 1
	if c.situation == second || c.situation == both {
		mirrors = 2
	}
	var bases, hosts []string
	for range mirrors {
		up, err := testenv.NewServer()
		if err != nil {
			c.Fatal(err)
		}
		c.Cleanup(up.Down)
		c.up = append(c.up, up)
		hosts = append(hosts, strings.TrimPrefix(up.URL(), "http://"))
		bases = append(bases, up.URL()+"/"+c.base)
	}
	c.egress.AllowHosts(hosts...)
	if _, err := c.site.mirror.Add(mirror.Settings{
		Name: c.name, Type: c.kind, Format: c.site.mirror.Formats[c.kind], Upstream: bases, Keyring: c.keys,
	}); err != nil {
		c.Fatal(err)
	}
	c.client = &rawClient{addr: c.site.addr}
	c.Cleanup(c.client.close)
}

func (c *faultCase) publish(state int) {
	for _, up := range c.up {
		up.Publish("elsewhere", c.other)
		up.Publish("repo", c.files[state])
	}
}

// fail sets the fault; a body that is to be resumed breaks off before.
func (c *faultCase) fail() {
	for i, up := range c.up {
		if i > 0 && c.situation == second {
			break
		}
		for _, p := range c.upstream[c.part] {
			up.Fail(c.fault, "/repo/"+p, -1)
			if c.situation == resume {
				up.Fail(testenv.Truncate, "/repo/"+p, 1)
			}
		}
	}
}

func (c *faultCase) asked() int {
	n := 0
	for _, up := range c.up {
		n += len(up.Requests())
	}
	return n
}

// visit gets parts of the repository over one connection and checks what holds
// for every answer. Where the other parts are is in the root that came last.
func (c *faultCase) visit(wanted ...string) map[string]reply {
	c.Helper()
	c.client.close()
	got := map[string]reply{}
	for _, part := range wanted {
		at := c.path(part, c.page)
		if at == "" {
			got[part] = reply{outcome: "unlisted"}
			continue
		}
		r := c.get(part, at)
		got[part] = r
		if part == root && (r.outcome == "new" || r.outcome == "old") {
			c.page = r.body
		}
	}
	return got
}

func (c *faultCase) get(part, at string) reply {
	c.Helper()
	got := c.client.get("/" + c.name + "/" + at)
	c.judge(part, &got)
	if got.took > enough {
		c.Errorf("%s took %v", at, got.took)
	}
	return got
}

// judge says what an answer is, and reports what no answer may be.
func (c *faultCase) judge(part string, got *reply) {
	c.Helper()
	switch {
	case got.status == 0:
		got.outcome = "none"
		c.Errorf("%s: no answer: %v", got.path, got.err)
	case got.status == http.StatusOK:
		got.outcome = c.compare(part, got)
	default:
		got.outcome = strconv.Itoa(got.status)
		if why := dishonest(got); why != "" {
			c.Errorf("%s: %d %s: %s", got.path, got.status, why, got.body)
		}
	}
}

// compare says which state's bytes a 200 has.
func (c *faultCase) compare(part string, got *reply) string {
	c.Helper()
	body := c.neutral(got.body)
	if got.err == nil {
		for i := range states {
			if bytes.Equal(body, c.right[i][part]) {
				return states[i]
			}
		}
		if part != root && part != lone {
			c.Errorf("%s: %d bytes that were never promised were completed", got.path, len(body))
		}
		return "wrong"
	}
	if part == root || part == index || part == small {
		c.Errorf("%s: a small file was begun and cut after %d bytes: %v", got.path, len(body), got.err)
	}
	if c.harm < testenv.Past {
		fits := false
		for i := range states {
			fits = fits || bytes.HasPrefix(c.right[i][part], body)
		}
		if !fits {
			c.Errorf("%s: %d bytes that upstream never had, before the cut", got.path, len(body))
		}
	}
	return "cut"
}

// dishonest returns what an error lacks of what its clients need, or "".
func dishonest(got *reply) string {
	length, err := strconv.Atoi(got.header.Get("Content-Length"))
	switch {
	case got.err != nil:
		return "broke off: " + got.err.Error()
	case err != nil || length == 0 || length != len(got.body):
		return fmt.Sprintf("has Content-Length %q and %d bytes", got.header.Get("Content-Length"), len(got.body))
	case !slices.Contains([]int{403, 404, 502, 503, 504}, got.status):
		return "is none of the statuses that say what to do"
	}
	after := got.header.Get("Retry-After")
	if got.status >= 500 && after != "1" && after != "2" {
		return fmt.Sprintf("has Retry-After %q", after)
	}
	for _, next := range []string{"try again", "`chantal ", "check the ", "egress.allow_private"} {
		if bytes.Contains(got.body, []byte(next)) {
			return ""
		}
	}
	return "does not say what to do next"
}

// neutral is a body without the addresses of the case's upstreams.
func (c *faultCase) neutral(body []byte) []byte {
	for _, up := range c.up {
		body = bytes.ReplaceAll(body, []byte(strings.TrimPrefix(up.URL(), "http://")), []byte("UPSTREAM"))
	}
	return body
}
