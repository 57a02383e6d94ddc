package mirror

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"chantal"
)

// refusal remembers that a place is no repository, for a while.
type refusal struct {
	err   error
	until time.Time
}

const refusalLife = 10 * time.Second

// probe is one attempt to recognise a repository.
type probe struct {
	done chan struct{}
	repo *Repo
	err  error
}

// Find returns the known repository that a URL belongs to, the one with the
// longest base, and the path in it. A URL on a host of its own belongs to a
// repository when one of its pages links to it. https repositories answer for
// their http URLs, never the other way round.
func (m *Mirror) Find(ctx context.Context, u *url.URL) (*Repo, string) {
	for end := len(u.Path); end > 0; {
		i := strings.LastIndexByte(u.Path[:end], '/')
		if i < 0 {
			break
		}
		if r := m.at(baseKey(&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path[:i+1]}), u.Scheme); r != nil {
			return r, r.Prefix() + clean(u.Path[i+1:])
		}
		end = i
	}
	return m.linked(ctx, u)
}

// Derives returns what makes the file at path of a page, and the page's path;
// "" where the format has no such file.
func (r *Repo) Derives(path string) (chantal.Deriver, string) {
	deriver, ok := r.Format.(chantal.Deriver)
	if !ok {
		return nil, ""
	}
	return deriver, deriver.Derived(path)
}

// FindDerived finds the repository that has, beside its own upstream URL, the
// file that u names and that it makes of a page: "https://HOST/simple/" is the
// URL of an index, and "https://HOST/pypi/NAME/json" such a file. Nil where
// there is none.
func (m *Mirror) FindDerived(u *url.URL) (*Repo, string) {
	for end := len(u.Path); end > 0; {
		i := strings.LastIndexByte(u.Path[:end], '/')
		if i < 0 {
			break
		}
		below := clean(u.Path[i+1:])
		for _, f := range m.Formats {
			deriver, ok := f.(chantal.Deriver)
			locator, located := f.(chantal.Locator)
			if !ok || !located || deriver.Derived(below) == "" {
				continue
			}
			base := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path[:i+1] + locator.Prefix()}
			if r := m.at(baseKey(base), u.Scheme); r != nil {
				if _, page := r.Derives(below); page != "" {
					return r, below
				}
			}
		}
		end = i
	}
	return nil, ""
}

func (m *Mirror) at(key, scheme string) *Repo {
	m.mu.RLock()
	defer m.mu.RUnlock()
	r := m.byBase[key]
	if r == nil || (scheme == "https" && !slices.ContainsFunc(r.bases, func(b *url.URL) bool { return b.Scheme == "https" && baseKey(b) == key })) {
		return nil
	}
	return r
}

// linked finds the repository of which a page links to u.
func (m *Mirror) linked(ctx context.Context, u *url.URL) (*Repo, string) {
	p := "+files/" + u.Host + u.Path
	for _, r := range m.Repos() {
		if _, pages := r.Format.(chantal.Renderer); !pages {
			continue
		}
		class, err := r.classify(p)
		if err != nil || len(class.Trees) == 0 {
			continue
		}
		live := &liveView{r, Client{}}
		if hit, err := live.lookup(ctx, class); err == nil && hit.ok {
			return r, p
		}
	}
	return nil, ""
}

// clean drops "." and empty segments from a path; a slash at the end stays.
func clean(p string) string {
	segs := slices.DeleteFunc(strings.Split(p, "/"), func(s string) bool { return s == "" || s == "." })
	out := strings.Join(segs, "/")
	if out != "" && strings.HasSuffix(p, "/") {
		out += "/"
	}
	return out
}

// Discover recognises the repository that a URL is part of, by a root that
// checks. fs.ErrNotExist: nothing about the URL looks like a repository, or
// upstream has no root there. Other errors say why it cannot be told.
func (m *Mirror) Discover(ctx context.Context, u *url.URL, accept string) (*Repo, string, error) {
	var failed error
	for _, kind := range m.kinds() {
		for _, loc := range m.Formats[kind].(chantal.Locator).Locate(u, accept) {
			r, err := m.probe(ctx, kind+" "+loc.Base+" "+loc.Root, func(ctx context.Context) (*Repo, error) {
				return m.recognise(ctx, kind, loc)
			})
			if err == nil {
				return r, loc.Path, nil
			}
			if ctx.Err() != nil {
				return nil, "", ctx.Err()
			}
			if failed == nil || errors.Is(failed, fs.ErrNotExist) {
				failed = err
			}
		}
	}
	if failed == nil {
		return m.discoverList(ctx, u)
	}
	return nil, "", failed
}

// unknownError says that nothing about a URL looks like a repository.
type unknownError struct{ url string }

func (e *unknownError) Error() string        { return e.url + " belongs to no known repository" }
func (e *unknownError) Is(target error) bool { return target == fs.ErrNotExist || target == ErrUnknown }

// ErrUnknown is what Discover returns for a URL without the shape of any
// repository.
var ErrUnknown = errors.New("belongs to no known repository")

// kinds returns the types that can be recognised, in a fixed order.
func (m *Mirror) kinds() []string {
	var kinds []string
	for kind, f := range m.Formats {
		if _, ok := f.(chantal.Locator); ok {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// probe looks at one place, which key names, once for everybody who asks.
func (m *Mirror) probe(ctx context.Context, key string, look func(context.Context) (*Repo, error)) (*Repo, error) {
	if no, ok := m.refused.Get(key); ok && m.Now().Before(no.until) {
		return nil, no.err
	}
	p := m.probes.join(key, func() *probe {
		p := &probe{done: make(chan struct{})}
		m.work.Go(func() {
			defer m.probes.leave(key)
			defer close(p.done)
			if p.repo, p.err = look(m.ctx); p.err != nil && m.ctx.Err() == nil {
				m.refused.Add(key, refusal{p.err, m.Now().Add(refusalLife)})
			}
		})
		return p
	})
	select {
	case <-p.done:
		return p.repo, p.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *Mirror) recognise(ctx context.Context, kind string, loc chantal.Location) (*Repo, error) {
	r, err := m.newRepo(Settings{Type: kind, Format: m.Formats[kind], Upstream: []string{loc.Base}, Discovered: true})
	if err != nil {
		return nil, err
	}
	class, err := r.classify(loc.Root)
	if err != nil {
		return nil, err
	}
	if class.Kind != chantal.Root {
		return nil, &unknownError{loc.Base + loc.Root}
	}
	if _, _, err := r.tree(class.Tree).current(ctx, false); err != nil {
		return nil, err
	}
	m.Log.Info("recognised a repository", "repo", r.Name, "type", kind, "upstream", r.bases[0].Redacted())
	return r, nil
}

// meet brings in the trees that an index may belong to and that nobody has
// asked for yet; it reports whether there was one.
func (v *liveView) meet(ctx context.Context, class chantal.Class) bool {
	locator, ok := v.Format.(chantal.Locator)
	if !ok || v.m.Offline || !strings.HasPrefix(class.Path, v.Prefix()) || v.meetMirrors(ctx) != nil {
		return false
	}
	bases := v.sources()
	if len(bases) == 0 {
		return false
	}
	base := bases[0].String()
	u, err := url.Parse(v.urlAt(bases[0], class.Path))
	if err != nil {
		return false
	}
	met := false
	for _, loc := range locator.Locate(u, "") {
		root, ok := strings.CutPrefix(loc.Base+strings.TrimPrefix(loc.Root, locator.Prefix()), base)
		if !ok {
			continue
		}
		at, err := v.classify(locator.Prefix() + root)
		if err != nil || at.Kind != chantal.Root {
			continue
		}
		t := v.tree(at.Tree)
		if s, err := t.peek(); err != nil || !s.zero() {
			continue
		}
		if _, _, err := t.current(ctx, false); err == nil {
			met = true
		}
	}
	return met
}
