// Package mirror is the live image of upstream repositories: it turns a path
// into a promise, a promise into a blob, and fetches, verifies and stores what
// the store lacks, once for everybody who waits. It keeps the heads of trees
// moving forward and never shows a mixture of two generations.
//
// It knows no repository format (a chantal.Format tells it) and neither HTTP
// (a fetch.Source does) nor the disk (cas and catalog do). open.go tells the
// story of a request.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chantal"
	"chantal/internal/cas"
	"chantal/internal/catalog"
	"chantal/internal/fetch"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Options are what a Mirror works with. All fields but Offline, Allows and
// History are required.
type Options struct {
	Store   *cas.Store
	Catalog *catalog.Catalog
	Source  fetch.Source
	Formats map[string]chantal.Format // by repository type, for recognising repositories
	Now     func() time.Time
	Log     *slog.Logger
	Offline bool // answer from the store only

	// Allows says what the rules of HTTP let one do with an answer that was
	// asked for and received at these times: for how long it may be given out
	// without asking again, if it tells that, and whether it may be kept at all.
	// nil: it tells nothing, and all may be kept.
	Allows func(answer *fetch.Response, requested, received time.Time) (fresh time.Duration, told, keep bool)

	History  time.Duration // how long older generations are answered in live; 0 means 30 days
	Parallel int           // how many files a sync fetches at a time; 0 means 8
}

// Settings describe one repository.
type Settings struct {
	Name        string
	Type        string
	Format      chantal.Format // nil: no format, every file stands for itself
	Upstream    []string       // base URLs, tried in order
	Keyring     chantal.Keyring
	Refresh     time.Duration // how long a tree is served without asking upstream again; 0 means a minute
	Files       []string      // hosts that pages may link to beside the upstream's own; nil for any
	Discovered  bool
	List        string        // URL of a list of mirrors, which follow Upstream; "" for none
	ListForm    string        // the form that the list has to have, as the Format names it
	ListProves  bool          // roots that the list does not name are refused, also before there is one
	ListRefresh time.Duration // how long the list is used without asking for it again; 0 means ten minutes
	Retired     bool          // no longer configured: only its past states are answered
}

// Mirror is the live image of any number of repositories. It is safe for
// concurrent use.
type Mirror struct {
	Options
	ctx    context.Context // of all work that outlives its client
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.RWMutex
	repos  map[string]*Repo
	byBase map[string]*Repo // normalised upstream URL without scheme → repository
	byList map[string]*Repo // the same of lists of mirrors

	flights  group[*flight]
	probes   group[*probe]
	lookups  *lru.Cache[lookupKey, found]
	states   *lru.Cache[stateKey, state]
	listings *lru.Cache[listingKey, *listing]
	derived  group[*derivation]
	deriving chan struct{} // taken while an index is in memory whole
	small    *smallBlobs
	proven   *lru.Cache[chantal.Digest, int64] // blobs that were read because metadata gives them another size
	bindings *lru.Cache[pairKey, *pair]
	refused  *lru.Cache[string, refusal]
	wants    wantSet
	attests  attestations
	signings *signings
}

// Repo is one repository of a Mirror.
type Repo struct {
	Settings
	m      *Mirror
	bases  []*url.URL
	list   *mirrorList // nil where the settings name none
	crowds crowds
	epoch  atomic.Uint64 // rises whenever a head of this repository moves

	mu     sync.Mutex
	trees  *lru.Cache[string, *tree]
	rooted []string // names of trees with real roots; nil until needed
	known  bool     // the catalog has it
}

// New returns a Mirror without repositories. Close ends its background work.
func New(o Options) *Mirror {
	if o.History == 0 {
		o.History = 30 * 24 * time.Hour
	}
	if o.Parallel <= 0 {
		o.Parallel = 8
	}
	m := &Mirror{Options: o, repos: map[string]*Repo{}, byBase: map[string]*Repo{}, byList: map[string]*Repo{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.lookups, _ = lru.New[lookupKey, found](100_000)
	m.states, _ = lru.New[stateKey, state](20_000)
	m.listings, _ = lru.New[listingKey, *listing](512)
	m.deriving = make(chan struct{}, 2)
	m.small = newSmallBlobs()
	m.signings = newSignings()
	m.proven, _ = lru.New[chantal.Digest, int64](10_000)
	m.bindings, _ = lru.New[pairKey, *pair](100_000)
	m.refused, _ = lru.New[string, refusal](10_000)
	m.work.Go(m.flushWants)
	return m
}

// Close stops all fetching and waits for it, at most until ctx ends. What was
// being fetched is dropped.
func (m *Mirror) Close(ctx context.Context) error {
	m.cancel()
	done := make(chan struct{})
	go func() { m.work.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for downloads to end: %w", ctx.Err())
	}
}

// Add makes a configured repository, or one that the catalog remembers, known.
// A repository with the same name is replaced; its trees stay.
func (m *Mirror) Add(s Settings) (*Repo, error) {
	r, err := m.newRepo(s)
	if err != nil {
		return nil, err
	}
	if err := r.register(); err != nil {
		return nil, err
	}
	return r, nil
}

func (m *Mirror) newRepo(s Settings) (*Repo, error) {
	if s.Format == nil {
		s.Format = plain{}
	}
	if s.Refresh == 0 {
		s.Refresh = time.Minute
	}
	r := &Repo{Settings: s, m: m}
	r.trees, _ = lru.New[string, *tree](100_000)
	for _, raw := range s.Upstream {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("upstream of %s: %w", s.Name, err)
		}
		if !strings.HasSuffix(u.Path, "/") {
			u.Path += "/"
			u.RawPath = ""
		}
		r.bases = append(r.bases, u)
	}
	var err error
	r.list, err = r.newList()
	return r, err
}

// register enters r in the catalog and the tables. A repository that was
// recognised takes a free name here.
func (r *Repo) register() error {
	m := r.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.known {
		return nil
	}
	if r.Name == "" {
		r.Name = m.freeName(r.origin())
	}
	old, err := m.Catalog.Repo(r.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entry := catalog.Repo{Name: r.Name, Type: r.Type, Discovered: r.Discovered, Created: old.Created}
	if r.list != nil {
		entry.List, entry.ListForm = r.list.url.Redacted(), r.ListForm
	}
	for _, b := range r.bases {
		entry.Upstream = append(entry.Upstream, b.Redacted())
	}
	if err != nil || old.Type != entry.Type || !slices.Equal(old.Upstream, entry.Upstream) ||
		old.Discovered != entry.Discovered || old.List != entry.List || old.ListForm != entry.ListForm {
		if entry.Created.IsZero() {
			entry.Created = m.Now()
		}
		if err := m.Catalog.PutRepo(entry); err != nil {
			return err
		}
	}
	r.known = true
	m.repos[r.Name] = r
	same := func(_ string, other *Repo) bool { return other.Name == r.Name }
	maps.DeleteFunc(m.byBase, same)
	maps.DeleteFunc(m.byList, same)
	if r.Retired {
		return nil
	}
	claim := func(table map[string]*Repo, key string) {
		if other := table[key]; other == nil || other.Discovered || other.Name == r.Name {
			table[key] = r
		}
	}
	for _, b := range r.bases {
		claim(m.byBase, baseKey(b))
	}
	if r.list != nil {
		canonical, _ := r.list.lister.ListURL(r.list.url)
		claim(m.byList, listKey(canonical))
	}
	return nil
}

// origin returns the URL that stands for the repository: its first upstream,
// else its list of mirrors.
func (r *Repo) origin() *url.URL {
	switch {
	case len(r.bases) > 0:
		return r.bases[0]
	case r.list != nil:
		return r.list.url
	}
	return &url.URL{}
}

// freeName makes a name of a repository's URL: host, port if unusual, and
// path. The caller holds m.mu.
func (m *Mirror) freeName(u *url.URL) string {
	var b strings.Builder
	host := u.Hostname()
	if p := u.Port(); p != "" && p != "80" && p != "443" {
		host += "-" + p
	}
	for _, c := range strings.ToLower(host + strings.TrimSuffix(u.Path+" "+u.RawQuery, "/ ")) {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' {
			b.WriteRune(c)
		} else {
			b.WriteByte('-')
		}
	}
	base := b.String()
	base = strings.Trim(base[:min(len(base), 150)], "-._")
	if base == "" {
		base = "repo"
	}
	for name, n := base, 2; ; name, n = fmt.Sprintf("%s-%d", base, n), n+1 {
		if _, err := m.Catalog.Repo(name); m.repos[name] == nil && err != nil {
			return name
		}
	}
}

// Repo returns the repository with that name, or nil.
func (m *Mirror) Repo(name string) *Repo {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.repos[name]
}

// Repos returns all repositories by name.
func (m *Mirror) Repos() []*Repo {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]*Repo, 0, len(m.repos))
	for _, r := range m.repos {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *Repo) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Prefix is what repository paths begin with that the upstream URL contains.
func (r *Repo) Prefix() string {
	if l, ok := r.Format.(chantal.Locator); ok {
		return l.Prefix()
	}
	return ""
}

// upstream returns the URLs at which the repository path p may be found, in
// the order in which to try them.
func (r *Repo) upstream(p string) []string { return r.below(r.sources(), p) }

// below returns the URLs of the repository path p below bases.
func (r *Repo) below(bases []*url.URL, p string) []string {
	if !strings.HasPrefix(p, r.Prefix()) {
		return nil
	}
	urls := make([]string, 0, len(bases))
	for _, b := range bases {
		urls = append(urls, r.urlAt(b, p))
	}
	return urls
}

// urlAt returns the URL of the repository path p below one of the bases.
func (r *Repo) urlAt(base *url.URL, p string) string {
	u := *base
	u.Path, u.RawPath = u.Path+strings.TrimPrefix(p, r.Prefix()), ""
	// Some object stores read a bare plus sign as a space.
	u.RawPath = strings.ReplaceAll(u.EscapedPath(), "+", "%2B")
	return u.String()
}

// tree returns the tree; it holds no state yet when nothing was observed of it.
func (r *Repo) tree(t chantal.Tree) *tree {
	r.mu.Lock()
	defer r.mu.Unlock()
	if have, ok := r.trees.Get(t.Name); ok {
		return have
	}
	made := &tree{repo: r, Tree: t, opaque: len(t.Roots) == 1 && t.Roots[0] == t.Name}
	r.trees.Add(t.Name, made)
	return made
}

// observed returns the tree with that name, or nil if it was never observed.
func (r *Repo) observed(name string) *tree {
	if t, ok := r.trees.Get(name); ok {
		return t
	}
	g, err := r.m.Catalog.Newest(r.Name, name)
	if err != nil {
		return nil
	}
	if g.Roots[0].Path == name {
		return r.tree(opaque(name))
	}
	return r.tree(r.Format.Classify(g.Roots[0].Path).Tree)
}

// rootedTrees returns the names of the observed trees that have real roots:
// only these promise anything.
func (r *Repo) rootedTrees() ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rooted != nil {
		return r.rooted, nil
	}
	all, err := r.m.Catalog.Trees(r.Name)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(all))
	for _, name := range all {
		g, err := r.m.Catalog.Newest(r.Name, name)
		if err != nil {
			return nil, err
		}
		if g.Roots[0].Path != name {
			names = append(names, name)
		}
	}
	r.rooted = names
	return names, nil
}

// moved notes that a head of the repository is a new one.
func (r *Repo) moved() {
	r.mu.Lock()
	r.rooted = nil
	r.mu.Unlock()
	r.epoch.Add(1)
}

// plain is the format of files that no format knows: each stands for itself.
type plain struct{}

func (plain) Classify(p string) chantal.Class { return chantal.Class{Kind: chantal.Opaque, Path: p} }

func (plain) Check(t chantal.Tree, _ map[string][]byte, _ chantal.Keyring, _ time.Time) (chantal.Verdict, error) {
	return chantal.Verdict{}, fmt.Errorf("%s: a repository without a format has no roots", t.Name)
}

func (plain) Parse(string, io.Reader) iter.Seq2[chantal.Promise, error] { return nil }

// opaque is the tree of a file that nothing promises.
func opaque(p string) chantal.Tree { return chantal.Tree{Name: p, Roots: []string{p}} }

// baseKey is what a base URL is found by: host, port and path, without scheme.
func baseKey(u *url.URL) string {
	host := strings.ToLower(u.Hostname())
	if p := u.Port(); p != "" && (u.Scheme != "http" || p != "80") && (u.Scheme != "https" || p != "443") {
		host += ":" + p
	}
	p := path.Clean("/" + u.Path)
	if p != "/" {
		p += "/"
	}
	return host + p
}
