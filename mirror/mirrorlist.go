package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"chantal"
	"chantal/internal/fetch"
)

const (
	maxList      = 1 << 20          // bytes of a list
	listPatience = 3 * time.Second  // how long a refresh of a list is waited for where an older one will do
	listRetry    = time.Minute      // how long a failed refresh of a list is not tried again
	listAgain    = 5 * time.Second  // how often a list is asked for again because mirrors have what it does not list
	listPeriod   = 10 * time.Minute // how long a list is used, where Settings do not say
	mirrorRest   = 5 * time.Minute  // how long a mirror that disappointed comes after the others
	mirrorsTried = 10               // how many mirrors of a list are asked for one file
)

// mirrorList is the list of mirrors that a repository names: fetched again
// when that is due, and kept when it cannot be. The last good one is a derived
// file too, so that it outlives a restart while the list's host is away.
type mirrorList struct {
	repo   *Repo
	lister chantal.MirrorLister
	url    *url.URL

	mu      sync.Mutex
	loaded  bool
	roots   []chantal.ListedRoot // which roots are right; nil where the list does not say
	bases   []*url.URL           // the mirrors, the preferred first; none: there was no good list yet
	version int                  // rises with every list that says something else
	forced  time.Time            // when it was asked for last although it was not due
	checked time.Time            // when a good list was fetched last
	failed  time.Time            // when that failed; zero after success
	err     error                // why
	running chan struct{}        // closed when the refresh under way ends; nil for none
	tired   map[string]time.Time // mirrors that disappointed, and until when they come last
}

// newList returns the list of mirrors of a repository whose settings name one;
// nil otherwise.
func (r *Repo) newList() (*mirrorList, error) {
	if r.List == "" {
		return nil, nil
	}
	lister, ok := r.Format.(chantal.MirrorLister)
	if !ok {
		return nil, fmt.Errorf("repositories of type %s have no lists of mirrors", r.Type)
	}
	u, err := url.Parse(r.List)
	if err != nil {
		return nil, fmt.Errorf("list of mirrors of %s: %w", r.Name, err)
	}
	if r.ListRefresh == 0 {
		r.ListRefresh = listPeriod
	}
	return &mirrorList{repo: r, lister: lister, url: u, tired: map[string]time.Time{}}, nil
}

// sources returns the base URLs at which the repository is asked for, in the
// order in which to try them: those that are configured, then some of the list
// of mirrors as it is known.
func (r *Repo) sources() []*url.URL {
	if r.list == nil {
		return r.bases
	}
	return slices.Concat(r.bases, r.list.mirrors())
}

// mirrors returns the first of the list's mirrors; those that disappointed a
// moment ago come after the others.
func (l *mirrorList) mirrors() []*url.URL {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.load()
	now := l.repo.m.Now()
	var good, tired []*url.URL
	for _, b := range l.bases {
		if now.Before(l.tired[b.String()]) {
			tired = append(tired, b)
		} else {
			good = append(good, b)
		}
	}
	all := append(good, tired...)
	return all[:min(len(all), mirrorsTried)]
}

// blame lets a mirror come after the others for a while. raw is its base or
// the URL of a file there; URLs of anybody else do nothing.
func (r *Repo) blame(raw string) {
	if r.list == nil {
		return
	}
	l := r.list
	l.mu.Lock()
	defer l.mu.Unlock()
	now := r.m.Now()
	maps.DeleteFunc(l.tired, func(_ string, until time.Time) bool { return now.After(until) })
	for _, b := range l.bases {
		if base := b.String(); strings.HasPrefix(raw, base) {
			l.tired[base] = now.Add(mirrorRest)
		}
	}
}

// meetMirrors makes sure that the list of mirrors is known, where the
// repository has one, and asks for a newer one if that is due. The error says
// why there is none at all.
func (r *Repo) meetMirrors(ctx context.Context) error {
	if r.list == nil {
		return nil
	}
	return r.list.refresh(ctx, false)
}

// refresh asks for the list if that is due; force asks although it is not.
// Where there is a good list the wait is short, and failing is no error.
func (l *mirrorList) refresh(ctx context.Context, force bool) error {
	m := l.repo.m
	l.mu.Lock()
	l.load()
	had := len(l.bases) > 0
	if l.running == nil {
		switch {
		case m.Offline && !had:
			l.mu.Unlock()
			return &chantal.UpstreamError{URL: l.url.Redacted(), Err: chantal.ErrOffline}
		case m.Offline || !l.due(m.Now(), force):
			err := l.err
			l.mu.Unlock()
			if had {
				return nil
			}
			return err
		}
		if force {
			l.forced = m.Now()
		}
		l.running = make(chan struct{})
		m.work.Go(func() { l.run(m.ctx, had) })
	}
	done := l.running
	l.mu.Unlock()
	var enough <-chan time.Time
	if had {
		timer := time.NewTimer(listPatience)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-done:
	case <-enough:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.bases) > 0 {
		return nil
	}
	return l.err
}

// trouble returns what is wrong with the list; "" for nothing.
func (l *mirrorList) trouble() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed.IsZero() {
		return ""
	}
	return "list of mirrors: " + l.err.Error()
}

// due reports whether the list is to be asked for. The caller holds l.mu.
func (l *mirrorList) due(now time.Time, force bool) bool {
	period := l.repo.ListRefresh
	switch {
	case !l.failed.IsZero() && len(l.bases) == 0:
		return now.Sub(l.failed) >= backoffFirst
	case !l.failed.IsZero():
		return now.Sub(l.failed) >= min(listRetry, period)
	case force:
		return now.Sub(l.forced) >= min(listAgain, period)
	}
	return now.Sub(l.checked) >= period
}

// run fetches the list once and takes it in.
func (l *mirrorList) run(ctx context.Context, had bool) {
	m := l.repo.m
	body, read, err := m.fetchList(ctx, &fetch.Request{Repo: l.repo.Name, URL: l.url.String(), Fallback: had}, l.lister)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		err = l.take(read)
	}
	if err == nil {
		l.checked, l.failed, l.err = m.Now(), time.Time{}, nil
		l.keep(body)
	} else {
		l.failed, l.err = m.Now(), err
		if ctx.Err() == nil {
			m.Log.Warn("no list of mirrors", "repo", l.repo.Name, "url", l.url.Redacted(), "kept", len(l.bases), "error", err)
		}
	}
	close(l.running)
	l.running = nil
}

// fetchList fetches what req asks for and reads it as a list.
func (m *Mirror) fetchList(ctx context.Context, req *fetch.Request, lister chantal.MirrorLister) ([]byte, chantal.MirrorList, error) {
	req.NoCache, req.Urgent, req.Within = true, true, time.Minute
	resp, err := m.Source.Fetch(ctx, req)
	if err != nil {
		return nil, chantal.MirrorList{}, err
	}
	defer resp.Body.Close()
	if err := resp.Complete(); err != nil {
		return nil, chantal.MirrorList{}, err
	}
	body, err := readAll(resp, maxList)
	if err != nil {
		return nil, chantal.MirrorList{}, fetch.Unusable(redact(req.URL), err)
	}
	read, err := lister.ParseList(body)
	if err != nil {
		return nil, read, &notListError{fetch.Unusable(redact(req.URL), err)}
	}
	return body, read, nil
}

// notListError says that what came is no list of mirrors.
type notListError struct{ err error }

func (e *notListError) Error() string { return e.err.Error() }
func (e *notListError) Unwrap() error { return e.err }

// take makes a list the one in force, if it is as the settings have it. The
// caller holds l.mu.
func (l *mirrorList) take(read chantal.MirrorList) error {
	r := l.repo
	if r.ListForm != "" && read.Form != r.ListForm {
		return fetch.Unusable(l.url.Redacted(), fmt.Errorf("it is a %s, not a %s: configure it as that", read.Form, r.ListForm))
	}
	var bases []*url.URL
	for _, raw := range read.Bases {
		u, err := url.Parse(raw)
		if err == nil && (u.Scheme == "https" || l.mayBePlain(read)) {
			bases = append(bases, u)
		}
	}
	if len(bases) == 0 {
		return fetch.Unusable(l.url.Redacted(), errors.New("it came by https and names mirrors with plain http only, "+
			"which nothing would check: use metalink in place of mirrorlist, or a keyring, or upstream with the mirrors that you trust"))
	}
	if !reflect.DeepEqual(l.bases, bases) || !reflect.DeepEqual(l.roots, read.Roots) {
		l.version++
	}
	l.bases, l.roots, l.loaded = bases, read.Roots, true
	return nil
}

// mayBePlain reports whether mirrors without TLS may be used: not where the
// list came by https and nothing else says whether their roots are right.
func (l *mirrorList) mayBePlain(read chantal.MirrorList) bool {
	return l.url.Scheme != "https" || len(read.Roots) > 0 || l.repo.Keyring != nil
}

// key names the derived file of the last good list.
func (l *mirrorList) key() string {
	sum := sha256.Sum256([]byte(l.repo.Type + "\n" + l.repo.ListForm + "\n" + l.url.String()))
	return "list-1-" + hex.EncodeToString(sum[:16])
}

// keep writes the list down: its digest, as the file may be damaged, and the
// bytes that upstream sent. The caller holds l.mu.
func (l *mirrorList) keep(body []byte) {
	sum := sha256.Sum256(body)
	err := l.repo.m.Store.PutDerived(l.key(), func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%x\n%s", sum, body)
		return err
	})
	if err != nil {
		l.repo.m.Log.Warn("the list of mirrors is kept in memory only", "repo", l.repo.Name, "error", err)
	}
}

// load takes in what an earlier run kept, once; it is due at once. The caller
// holds l.mu.
func (l *mirrorList) load() {
	if l.loaded {
		return
	}
	l.loaded = true
	f, err := l.repo.m.Store.Derived(l.key())
	if err != nil {
		return
	}
	defer f.Close()
	kept, err := io.ReadAll(io.LimitReader(f, maxList+2*sha256.Size+1))
	if err != nil {
		return
	}
	head, body, _ := bytes.Cut(kept, []byte("\n"))
	sum := sha256.Sum256(body)
	if string(head) != hex.EncodeToString(sum[:]) {
		return
	}
	if read, err := l.lister.ParseList(body); err == nil {
		_ = l.take(read) // what was good then may not be as the settings have it now
	}
}
