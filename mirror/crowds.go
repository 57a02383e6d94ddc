package mirror

import (
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// shunned is how long an upstream that did not deliver is not the first that a
// sync asks.
const shunned = 15 * time.Second

// crowds are how many files of a sync each upstream of a repository is being
// asked for, so that they can be used side by side.
type crowds struct {
	mu    sync.Mutex
	asked map[string]int       // by base
	shun  map[string]time.Time // by base: until when
}

// spread returns bases with the one first that is asked for the least, of those
// that deliver, and counts a file there until done is called.
func (c *crowds) spread(bases []*url.URL, now time.Time) (order []*url.URL, done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rank := func(b *url.URL) int {
		if now.Before(c.shun[b.String()]) {
			return c.asked[b.String()] + 1<<20
		}
		return c.asked[b.String()]
	}
	least := 0
	for i, b := range bases {
		if rank(b) < rank(bases[least]) {
			least = i
		}
	}
	order = slices.Insert(slices.Delete(slices.Clone(bases), least, least+1), 0, bases[least])
	if c.asked == nil {
		c.asked, c.shun = map[string]int{}, map[string]time.Time{}
	}
	key := order[0].String()
	c.asked[key]++
	return order, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked[key]--
	}
}

// blame notes that the upstream of that URL did not deliver a file.
func (c *crowds) blame(raw string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for base := range c.asked {
		if strings.HasPrefix(raw, base) {
			c.shun[base] = now.Add(shunned)
		}
	}
}
