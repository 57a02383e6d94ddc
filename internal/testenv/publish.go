package testenv

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Publisher changes a repository as real archives are changed: file by file,
// while clients read, in an order chosen at random. It remembers the content
// that every publication had, so that what a client got can be told.
//
// The fields are set before First. Latest, Files and Find are safe while Run
// runs.
type Publisher struct {
	Server *Server
	Prefix string
	Next   func(n int) (Files, error) // makes the publication with that number, from 1
	Gap    [2]time.Duration           // between the end of one publication and the start of the next
	Pause  time.Duration              // between two files: the most there is; each publication has its own
	Keep   int                        // how many publications later a file leaves that is listed no more
	Torn   bool                       // files are written in place: for a moment half of one is there
	Random *rand.Rand

	mu      sync.Mutex
	count   int
	live    Files                       // what was last published
	leaving []leaving                   // what is listed no more, oldest first
	content map[string]map[[32]byte]int // publication by path and content
}

type leaving struct {
	path  string
	after int // the publication in which it was missing first
}

// First publishes number 1 at one moment.
func (p *Publisher) First() error {
	files, err := p.Next(1)
	if err != nil {
		return err
	}
	for at, f := range files {
		p.write(at, f)
	}
	p.note(1, files)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count, p.live = 1, files
	return nil
}

// Run publishes one number after the other until ctx ends; the one that is
// being written then is finished.
func (p *Publisher) Run(ctx context.Context) error {
	for {
		if !sleep(ctx, p.Gap[0]+time.Duration(p.Random.Int64N(int64(p.Gap[1]-p.Gap[0])+1))) {
			return nil
		}
		n := p.Latest() + 1
		files, err := p.Next(n)
		if err != nil {
			return fmt.Errorf("publication %d: %w", n, err)
		}
		p.note(n, files)
		p.change(n, files)
	}
}

// Latest returns the number of the last publication that is complete.
func (p *Publisher) Latest() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// Files returns the last publication that is complete. The caller does not
// change it.
func (p *Publisher) Files() Files {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live
}

// Find returns the first publication in which the file at path, relative to
// the repository, had that content; 0 for none.
func (p *Publisher) Find(path string, content []byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.content[path][sha256.Sum256(content)]
}

func (p *Publisher) note(n int, files Files) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.content == nil {
		p.content = map[string]map[[32]byte]int{}
	}
	for at, f := range files {
		if p.content[at] == nil {
			p.content[at] = map[[32]byte]int{}
		}
		sum := sha256.Sum256(f.Content)
		if p.content[at][sum] == 0 {
			p.content[at][sum] = n
		}
	}
}

// change writes what is new in files, and removes what is due: the roots
// before everything else, or after it, and the removals first, between or last.
func (p *Publisher) change(n int, files Files) {
	var roots, others []func()
	pause := time.Duration(p.Random.Int64N(int64(p.Pause) + 1))
	for _, at := range slices.Sorted(maps.Keys(files)) {
		f := files[at]
		if old, ok := p.live[at]; ok && sha256.Sum256(old.Content) == sha256.Sum256(f.Content) && string(old.JSON) == string(f.JSON) {
			continue
		}
		group := &others
		if IsRoot(at) {
			group = &roots
		}
		if p.Torn {
			half := f
			half.Content, half.JSON = f.Content[:len(f.Content)/2], nil
			*group = append(*group, func() {
				p.write(at, half)
				time.Sleep(time.Duration(p.Random.Int64N(int64(p.Pause) + 1)))
				p.write(at, f)
			})
			continue
		}
		*group = append(*group, func() { p.write(at, f) })
	}
	p.Random.Shuffle(len(roots), func(i, j int) { roots[i], roots[j] = roots[j], roots[i] })
	p.Random.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	steps := [][]func(){others, roots}
	if p.Random.IntN(2) == 0 {
		steps = [][]func(){roots, others}
	}
	steps = slices.Insert(steps, p.Random.IntN(3), p.removals(n, files))
	for _, step := range slices.Concat(steps...) {
		step()
		if pause > 0 {
			time.Sleep(time.Duration(p.Random.Int64N(int64(pause))))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count, p.live = n, files
}

// removals returns what removes the files whose time has come.
func (p *Publisher) removals(n int, files Files) []func() {
	for _, at := range slices.Sorted(maps.Keys(p.live)) {
		if _, ok := files[at]; !ok {
			p.leaving = append(p.leaving, leaving{at, n})
		}
	}
	var steps []func()
	for len(p.leaving) > 0 && p.leaving[0].after+p.Keep <= n {
		at := p.leaving[0].path
		p.leaving = p.leaving[1:]
		if _, again := files[at]; !again {
			steps = append(steps, func() { p.Server.Put("/"+path.Join(p.Prefix, at), File{}) })
		}
	}
	return steps
}

func (p *Publisher) write(at string, f File) {
	f.Modified = time.Now()
	name := "/" + path.Join(p.Prefix, at)
	if strings.HasSuffix(at, "/") {
		name += "/"
	}
	p.Server.Put(name, f)
}

// IsRoot reports whether a path is one that clients begin with.
func IsRoot(at string) bool {
	switch path.Base(at) {
	case "InRelease", "Release", "Release.gpg", "repomd.xml", "repomd.xml.asc":
		return true
	}
	return strings.HasSuffix(at, "/")
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
