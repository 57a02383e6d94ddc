package mirror

import "sync"

// group holds the one piece of work per key that is under way.
type group[T any] struct {
	mu sync.Mutex
	m  map[string]T
}

// join returns the work under key, made by start if there is none. start runs
// under the group's lock: it begins the work and does not wait for it.
func (g *group[T]) join(key string, start func() T) T {
	g.mu.Lock()
	defer g.mu.Unlock()
	if have, ok := g.m[key]; ok {
		return have
	}
	if g.m == nil {
		g.m = map[string]T{}
	}
	made := start()
	g.m[key] = made
	return made
}

// leave ends the work under key.
func (g *group[T]) leave(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.m, key)
}
