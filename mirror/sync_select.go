package mirror

import (
	"iter"
	"slices"
	"strings"

	"chantal"
)

// selected yields those of the artifacts that the roots of c and the indexes
// promise which keep accepts, each once. One promise of each index is in memory
// at a time.
func selected(c *contents, indexes []chantal.Promise, keep func(*chantal.Promise) bool) iter.Seq2[chantal.Promise, error] {
	seqs := []iter.Seq2[chantal.Promise, error]{artifactsOf(c.Listed())}
	for _, index := range indexes {
		seqs = append(seqs, c.Promises(index))
	}
	return func(yield func(chantal.Promise, error) bool) {
		for p, err := range merged(seqs) {
			if err == nil && !keep(&p) {
				continue
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// artifactsOf yields the artifacts among what roots promise, by path.
func artifactsOf(listed []chantal.Promise) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		var at []int
		for i := range listed {
			if listed[i].Kind == chantal.Artifact {
				at = append(at, i)
			}
		}
		slices.SortFunc(at, func(i, j int) int { return strings.Compare(listed[i].Path, listed[j].Path) })
		for _, i := range at {
			if !yield(listed[i], nil) {
				return
			}
		}
	}
}

// merged yields what the sequences yield, which are sorted by path, in that
// order, and once what several of them promise alike. It ends with the first
// error.
func merged(seqs []iter.Seq2[chantal.Promise, error]) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		type stream struct {
			chantal.Promise
			next func() (chantal.Promise, error, bool)
		}
		var streams []*stream
		for _, seq := range seqs {
			next, stop := iter.Pull2(seq)
			defer stop()
			streams = append(streams, &stream{next: next})
		}
		var err error
		advance := func(s *stream) (ended bool) {
			var more bool
			var failed error
			if s.Promise, failed, more = s.next(); failed != nil {
				err = failed
			}
			return !more
		}
		streams = slices.DeleteFunc(streams, advance)
		var last chantal.Promise
		for len(streams) > 0 && err == nil {
			least := slices.MinFunc(streams, func(a, b *stream) int { return strings.Compare(a.Path, b.Path) })
			p := least.Promise
			if p.Path != last.Path || !slices.Equal(p.Digests, last.Digests) {
				if !yield(p, nil) {
					return
				}
				last = p
			}
			if advance(least) {
				streams = slices.DeleteFunc(streams, func(s *stream) bool { return s == least })
			}
		}
		if err != nil {
			yield(chantal.Promise{}, err)
		}
	}
}
