package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chantal"
	"chantal/internal/fetch"
	"chantal/internal/sign"
	"chantal/internal/testenv"
)

// The parts of a repository.
const (
	root  = "root"
	index = "index"
	small = "small" // an artifact that is held back whole until it is verified
	large = "large" // one that is passed on while it arrives
	lone  = "lone"  // a file that nothing promises
)

var (
	parts  = []string{root, index, small, large, lone}
	states = []string{"old", "new"}
)

// stock is what upstreams of one format publish: two states of a repository.
// No two stocks have a file in common.
type stock struct {
	number   int
	kind     string
	name     string // of the repository at the proxy
	keys     chantal.Keyring
	base     string              // of the repository, below the server
	files    [2]testenv.Files    // by state, below "repo"
	other    testenv.Files       // another repository, below "other"
	upstream map[string][]string // by part: what upstream has it under, below "repo", in any state
	right    [2]map[string][]byte
	path     func(part string, page []byte) string // where clients find a part; "" if page does not list it
}

const (
	smallSize = 10_000
	largeSize = 200_000
	loneSize  = 100_000
)

// packages are those of a state; the sizes are the same in all.
func (s *stock) packages(state int) (p, q testenv.Package) {
	build := 10*s.number + state
	return testenv.Package{Name: "demo", Version: "1", Size: smallSize, Build: build, Depends: fmt.Sprint("build", build)},
		testenv.Package{Name: "demo", Version: "2", Size: largeSize, Build: build}
}

// publisher is what the repositories of testenv have in common.
type publisher interface{ Publish() (testenv.Files, error) }

// fill publishes both states and another repository, each with a lone file at
// the path loneAt. elsewhere makes p that other one.
func (s *stock) fill(t *testing.T, p publisher, add func(testenv.Package) error, loneAt string, elsewhere func()) {
	t.Helper()
	for state := range 3 {
		if state == 2 {
			elsewhere()
		}
		one, two := s.packages(state)
		for _, p := range []testenv.Package{one, two} {
			if err := add(p); err != nil {
				t.Fatal(err)
			}
		}
		files, err := p.Publish()
		if err != nil {
			t.Fatal(err)
		}
		body := bytes.Repeat(fmt.Appendf(nil, "what nobody promised, %d in state %d\n", s.number, state), loneSize/40)
		files[loneAt] = testenv.File{Content: body, Modified: time.Now().Add(time.Duration(state-90) * time.Minute)}
		if state == 2 {
			s.other = files
		} else {
			s.files[state] = files
		}
	}
}

// find notes under which of its paths upstream has a part: those that begin and
// end like that.
func (s *stock) find(part, prefix, suffix string) {
	for _, files := range s.files {
		for at := range files {
			if strings.HasPrefix(at, prefix) && strings.HasSuffix(at, suffix) && !slices.Contains(s.upstream[part], at) {
				s.upstream[part] = append(s.upstream[part], at)
			}
		}
	}
}

// learn notes what clients get of each part and state from an upstream without
// faults.
func (s *stock) learn(t *testing.T) {
	t.Helper()
	for state := range s.files {
		c := &faultCase{T: t, stock: s, situation: first, egress: fetch.NewEgress(nil, nil), failing: new(atomic.Bool)}
		c.site = newSiteFrom(t, c.source, nil)
		c.start()
		c.publish(state)
		page := c.client.get("/" + s.name + "/" + s.path(root, nil))
		s.right[state] = map[string][]byte{}
		for _, part := range parts {
			got := c.client.get("/" + s.name + "/" + s.path(part, page.body))
			if got.status != http.StatusOK || got.err != nil || len(got.body) == 0 {
				t.Fatalf("%s without faults: %s is %d, %v; %s", s.kind, got.path, got.status, got.err, got.excerpt())
			}
			s.right[state][part] = c.neutral(got.body)
		}
	}
	for _, part := range parts {
		if bytes.Equal(s.right[0][part], s.right[1][part]) {
			t.Fatalf("%s: both states have the same %s", s.kind, part)
		}
		if len(s.upstream[part]) == 0 {
			t.Fatalf("%s: upstream has no %s", s.kind, part)
		}
	}
}

func archiveKey(t *testing.T) (*testenv.Key, chantal.Keyring) {
	t.Helper()
	key, err := testenv.NewKey("archive", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := sign.NewKeyring(bytes.NewReader(public))
	if err != nil {
		t.Fatal(err)
	}
	return key, ring
}

func aptStock(t *testing.T, number int) *stock {
	t.Helper()
	s := &stock{kind: "apt", number: number, name: fmt.Sprint("repo", number), base: "repo/", upstream: map[string][]string{}}
	key, ring := archiveKey(t)
	s.keys = ring
	suite := testenv.NewAPT(key, time.Now(), "bookworm")
	const key1 = "keys/archive.gpg"
	s.fill(t, suite, suite.Add, key1, func() { suite.Key, _ = archiveKey(t) })
	one, two := s.packages(0)
	at := map[string]string{root: inRelease, index: packagesXZ, small: suite.PoolPath(one), large: suite.PoolPath(two), lone: key1}
	s.path = func(part string, _ []byte) string { return at[part] }
	s.upstream[root] = []string{inRelease, "dists/bookworm/Release"}
	for _, part := range parts[1:] {
		s.find(part, at[part], "")
	}
	s.learn(t)
	return s
}

func rpmStock(t *testing.T, number int) *stock {
	t.Helper()
	s := &stock{kind: "rpm", number: number, name: fmt.Sprint("repo", number), base: "repo/", upstream: map[string][]string{}}
	key, ring := archiveKey(t)
	s.keys = ring
	repo := testenv.NewRPM(key, time.Now())
	repo.Simple = true
	const iso = "images/boot.iso"
	s.fill(t, repo, repo.Add, iso, func() { repo.Key, _ = archiveKey(t) })
	one, two := s.packages(0)
	at := map[string]string{
		root: "repodata/repomd.xml", index: "repodata/primary.xml.gz", small: repo.PoolPath(one), large: repo.PoolPath(two), lone: iso,
	}
	s.path = func(part string, _ []byte) string { return at[part] }
	for _, part := range parts {
		s.find(part, at[part], "")
	}
	s.learn(t)
	return s
}

var fileURL = regexp.MustCompile(`"url":"([^"]+)"`)

func pypiStock(t *testing.T, number int) *stock {
	t.Helper()
	s := &stock{kind: "pypi", number: number, name: fmt.Sprint("repo", number), base: "repo/simple/", upstream: map[string][]string{}}
	repo := testenv.NewPyPI(time.Now())
	uploaded := time.Now().Add(-24 * time.Hour)
	const notes = "simple/notes/readme.txt"
	s.fill(t, repo, func(p testenv.Package) error { return repo.Add(p, uploaded) }, notes, func() {})
	one, two := s.packages(0)
	names := map[string]string{index: testenv.WheelName(one) + ".metadata", small: testenv.WheelName(one), large: testenv.WheelName(two)}
	s.path = func(part string, page []byte) string {
		switch part {
		case root:
			return "simple/demo/"
		case lone:
			return notes
		}
		for _, m := range fileURL.FindAllSubmatch(page, -1) {
			if link, meta := strings.CutSuffix(names[part], ".metadata"); strings.HasSuffix(string(m[1]), "/"+link) {
				if meta {
					return path.Join("simple/demo", string(m[1])+".metadata")
				}
				return path.Join("simple/demo", string(m[1]))
			}
		}
		return ""
	}
	s.find(root, "simple/demo/", "")
	s.find(lone, notes, "")
	for _, part := range []string{index, small, large} {
		s.find(part, "files/", "/"+names[part])
	}
	s.learn(t)
	return s
}

// reply is what a rawClient got.
type reply struct {
	path    string
	status  int // 0 for no answer
	header  http.Header
	body    []byte
	err     error // of reading the body, or of getting an answer
	took    time.Duration
	outcome string // what judge made of it
}

func (r *reply) excerpt() string {
	return fmt.Sprintf("%d, %v, %d bytes: %.300q", r.status, r.err, len(r.body), r.body)
}

// rawClient asks over one connection after the other and sees when an answer
// is cut. It repeats nothing.
type rawClient struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
}

func (c *rawClient) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *rawClient) get(target string) reply {
	r := reply{path: target}
	began := time.Now()
	if r.err = c.ask(&r); r.err != nil {
		c.close()
	}
	r.took = time.Since(began)
	return r
}

func (c *rawClient) ask(r *reply) error {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return err
		}
		c.conn, c.in = conn, bufio.NewReader(conn)
	}
	if err := c.conn.SetDeadline(time.Now().Add(2 * enough)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\nUser-Agent: faults\r\n\r\n", r.path, c.addr, testenv.SimpleJSON); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	r.status, r.header = resp.StatusCode, resp.Header
	r.body, err = io.ReadAll(resp.Body)
	return err
}
