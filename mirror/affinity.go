package mirror

import (
	"sync"
	"sync/atomic"
	"time"

	"chantal"
)

const (
	bindingLife = 5 * time.Minute  // after which an idle client is no longer held to its generation
	bindingHold = 60 * time.Second // how long other connections of a client join its older generation
	bindingLull = 2 * time.Second  // how long after its last use a connection gives another one its signature
)

// Conn is one client connection. The server closes it when the connection ends.
type Conn struct{ closed atomic.Bool }

// Close notes that the connection has ended.
func (c *Conn) Close() { c.closed.Store(true) }

// Client says who asks, so that one who began with a generation keeps it. The
// zero Client is nobody in particular.
type Client struct {
	Conn    *Conn
	Name    string         // address and user agent
	NoCache bool           // the request asks for the newest state
	Query   bool           // its URL has a query: of lone files, another one for every query
	Began   chantal.Digest // main root of the generation that the request itself names, as our lists of mirrors do; "" for none
}

type pairKey struct{ repo, tree, client string }

// pair holds which generations the connections of one client began with.
type pair struct {
	mu       sync.Mutex
	bindings []binding
}

type binding struct {
	conn  *Conn
	state state
	bound time.Time
	used  time.Time
}

func (m *Mirror) pair(r *Repo, tree string, c Client, create bool) *pair {
	if c.Conn == nil {
		return nil
	}
	key := pairKey{r.Name, tree, c.Name}
	if p, ok := m.bindings.Get(key); ok || !create {
		return p
	}
	p := &pair{}
	if prev, ok, _ := m.bindings.PeekOrAdd(key, p); ok {
		return prev
	}
	return p
}

// begin returns the generation that a root request gets: the head, or for a
// tree with plain names the older one that another connection of the same
// client is in the middle of. The connection is bound to it.
func (m *Mirror) begin(r *Repo, head state, c Client, plain bool) state {
	p := m.pair(r, head.Tree, c, true)
	if p == nil {
		return head
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := m.Now()
	chosen, bound := head, now
	kept := p.bindings[:0]
	for _, b := range p.bindings {
		if b.conn == c.Conn || now.Sub(b.used) > bindingLife {
			continue
		}
		kept = append(kept, b)
		// A client that has closed its connection has what it came for: a new
		// root request is its next visit.
		if plain && !c.NoCache && !b.conn.closed.Load() && b.state.Generation != head.Generation && now.Sub(b.bound) < bindingHold {
			chosen, bound = b.state, b.bound
		}
	}
	if len(kept) >= 16 {
		kept = kept[1:]
	}
	p.bindings = append(kept, binding{c.Conn, chosen, bound, now})
	return chosen
}

// beside returns the generation that a request for a root beside the main one
// (a signature) gets: the one that the client was given a moment ago, if any.
func (m *Mirror) beside(r *Repo, tree string, c Client) (state, bool) {
	p := m.pair(r, tree, c, false)
	if p == nil {
		return state{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := m.Now()
	var best *binding
	for i := range p.bindings {
		b := &p.bindings[i]
		same := b.conn == c.Conn
		if now.Sub(b.bound) > bindingHold || !same && now.Sub(b.used) > bindingLull {
			continue
		}
		if best == nil || same || best.conn != c.Conn && b.used.After(best.used) {
			best = b
		}
	}
	if best == nil {
		return state{}, false
	}
	return best.state, true
}

// begun returns the generation of a tree that a client is held to: its
// connection's, else the one its name used last.
func (m *Mirror) begun(r *Repo, tree string, c Client) (state, bool) {
	if s, ok := r.began(tree, c); ok {
		return s, true
	}
	p := m.pair(r, tree, c, false)
	if p == nil {
		return state{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := m.Now()
	best := -1
	for i, b := range p.bindings {
		if now.Sub(b.used) > bindingLife {
			continue
		}
		if b.conn == c.Conn {
			best = i
			break
		}
		if best < 0 || b.used.After(p.bindings[best].used) {
			best = i
		}
	}
	if best < 0 {
		return state{}, false
	}
	p.bindings[best].used = now
	return p.bindings[best].state, true
}
