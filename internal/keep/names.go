package keep

import (
	"slices"
	"time"

	"chantal"
	"chantal/internal/catalog"
)

// hold is what keeps a generation.
type hold uint8

const (
	byHead     hold = iota // it is what live answers
	bySnapshot             // a snapshot holds it
	byHistory              // it can be asked for by an instant
	byClient               // a client is in the middle of it
)

func (h hold) String() string {
	return [...]string{"live", "snapshot", "history", "client"}[h&3]
}

// pin is an instant that a snapshot holds a repository at.
type pin struct {
	at   time.Time
	name string
}

// eachKept calls use for every generation that something keeps, once for each
// of these; ref is the name of the snapshot, or the instant. What was in force
// at since or later is history. What catalog.Forget would forget is left out.
func (k *Keeper) eachKept(since time.Time, use func(g chantal.Generation, by hold, ref string) error) error {
	snapshots, err := k.Catalog.Snapshots()
	if err != nil {
		return err
	}
	pins := map[string][]pin{}
	for _, s := range snapshots {
		for _, f := range s.Repos {
			if f.Edition == "" {
				pins[f.Repo] = append(pins[f.Repo], pin{f.At, s.Name})
			} else if err := k.eachOf(s, f, use); err != nil {
				return err
			}
		}
	}
	for _, all := range pins {
		slices.SortFunc(all, func(a, b pin) int { return a.at.Compare(b.at) })
	}
	err = eachTree(k.Catalog, "", func(repo, tree string) error {
		return k.eachOfTree(repo, tree, since, pins[repo], use)
	})
	if err != nil {
		return err
	}
	for _, g := range k.Needs.Begun() {
		if err := use(g, byClient, ""); err != nil {
			return err
		}
	}
	return nil
}

// eachOf calls use for what a snapshot holds of one repository.
func (k *Keeper) eachOf(s catalog.Snapshot, f catalog.Frozen, use func(chantal.Generation, hold, string) error) error {
	states, err := At(k.Catalog, f.Line(), f.At, s.Name)
	if err != nil {
		return err
	}
	for _, st := range states {
		if err := use(st.Generation, bySnapshot, s.Name); err != nil {
			return err
		}
	}
	return nil
}

// eachOfTree calls use for what is kept of one tree.
func (k *Keeper) eachOfTree(repo, tree string, since time.Time, pins []pin, use func(chantal.Generation, hold, string) error) error {
	observed, err := k.Catalog.Observations(repo, tree)
	if err != nil {
		return err
	}
	for i, o := range observed {
		newest := i == len(observed)-1
		recent := newest || !observed[i+1].Observed.Before(since)
		at, _ := slices.BinarySearchFunc(pins, o.Observed, func(p pin, t time.Time) int { return p.at.Compare(t) })
		held := pins[at:]
		if !newest {
			n, _ := slices.BinarySearchFunc(held, observed[i+1].Observed, func(p pin, t time.Time) int { return p.at.Compare(t) })
			held = held[:n]
		}
		if !recent && len(held) == 0 {
			continue
		}
		g, err := k.Catalog.Generation(repo, tree, o.Generation)
		if err != nil {
			return err
		}
		for _, p := range held {
			if err := use(g, bySnapshot, p.name); err != nil {
				return err
			}
		}
		switch {
		case newest:
			err = use(g, byHead, "live")
		case recent:
			err = use(g, byHistory, instantOf(o.Observed))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// instantOf writes a time as a ref: the first whole second at or after it.
func instantOf(t time.Time) string {
	return t.Add(time.Second - time.Nanosecond).Truncate(time.Second).UTC().Format(time.RFC3339)
}
