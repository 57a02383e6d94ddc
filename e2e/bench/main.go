// Bench measures hits: Chantal beside nginx's proxy_cache, over the same
// upstream, on this machine, in one run. Absolute figures of a shared machine
// mean little, so rounds alternate between the servers and the table shows
// ratios of medians: above 1 Chantal answers more (or needs more CPU).
// With -sync it measures full mirrors instead: of a suite with so many small
// packages, beside aptly where that is installed. Ratios above 1 say how much
// more aptly takes.
//
//	go run ./e2e/bench [-rounds N] [-each DURATION] [-only SIZE] [CHANTAL...]
//	go run ./e2e/bench -sync N [-rounds N] [CHANTAL...]
//
// The arguments are binaries to measure, the last one in the place of
// Chantal's column and the others beside it; without any, the working tree is
// built. It needs Linux, nginx and wrk. Everything is on loopback and lies in
// a temporary folder that is removed at the end.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// object is a file that is asked for.
type object struct {
	name string
	size int
	path string // in the repository
}

// load is one cell of the table: an object asked for over a number of
// connections, each of which asks again as soon as it has its answer.
type load struct {
	object
	conns  int
	rounds int
}

// figure is what one round of one server came to.
type figure struct {
	rate float64 // requests or bytes per second
	cpu  float64 // seconds of the server per request or per GB
}

// bulk is the size from which bytes count and not requests.
const bulk = 10 << 20

func main() {
	rounds := flag.Int("rounds", 5, "how often each server is measured; large files three times at most")
	each := flag.Duration("each", 2*time.Second, "how long one measurement takes")
	only := flag.String("only", "", "measure this size only: 4k, 100k or 200m")
	packages := flag.Int("sync", 0, "measure full mirrors of a suite with so many packages instead")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	err := bench(ctx, *rounds, *each, *only, *packages, flag.Args())
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, rounds int, each time.Duration, only string, packages int, binaries []string) (err error) {
	tools := []string{"nginx", "wrk"}
	if packages > 0 {
		tools = tools[:1]
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("it takes %s to compare with: %w", tool, err)
		}
	}
	dir, err := os.MkdirTemp("", "chantal-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if len(binaries) == 0 {
		binary := filepath.Join(dir, "chantal")
		build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/chantal")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building: %w", err)
		}
		binaries = []string{binary}
	}
	if packages > 0 {
		return benchSync(ctx, packages, min(rounds, 2), binaries, dir)
	}
	up, objects, err := startUpstream()
	if err != nil {
		return err
	}
	defer up.Down()
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	s, err := startNginx(dir, up.URL())
	if err != nil {
		return err
	}
	servers = append(servers, s)
	for i, binary := range binaries {
		s, err := startChantal(fmt.Sprintf("%s/%d", dir, i), binary, up.URL())
		if err != nil {
			return err
		}
		servers = append(servers, s)
	}
	for _, s := range servers {
		if err := s.warm(ctx, objects); err != nil {
			return fmt.Errorf("filling %s: %w", s.name, err)
		}
	}
	loads := plan(objects, rounds, only)
	head(os.Stdout, servers)
	for _, l := range loads {
		got, err := compare(ctx, servers, l, each)
		if err != nil {
			return err
		}
		row(os.Stdout, l, got)
	}
	return nil
}

func plan(objects []object, rounds int, only string) []load {
	var loads []load
	for _, o := range objects {
		if only != "" && o.name != only {
			continue
		}
		n := rounds
		if o.size >= bulk {
			n = min(n, 3)
		}
		for _, conns := range []int{1, 16, 64} {
			loads = append(loads, load{o, conns, n})
		}
	}
	return loads
}

// compare measures the servers in turn, so that what else the machine does
// meets all of them, and returns their figures in the order of servers.
func compare(ctx context.Context, servers []*server, l load, each time.Duration) ([][]figure, error) {
	got := make([][]figure, len(servers))
	for range l.rounds {
		for i, s := range servers {
			measure := ask
			if l.size >= bulk {
				measure = sink
			}
			before, err := s.cpu()
			if err != nil {
				return nil, err
			}
			done, took, err := measure(ctx, s.url+l.path, l.conns, each)
			if err != nil {
				return nil, fmt.Errorf("%s with %d connections from %s: %w", l.name, l.conns, s.name, err)
			}
			after, err := s.cpu()
			if err != nil {
				return nil, err
			}
			got[i] = append(got[i], figure{done / took.Seconds(), (after - before).Seconds() / done})
		}
	}
	return got, nil
}

func head(w io.Writer, servers []*server) {
	fmt.Fprintf(w, "%-5s %5s", "size", "conns")
	for _, s := range servers {
		fmt.Fprintf(w, "  %22s", s.name)
	}
	fmt.Fprintf(w, "  %5s  %9s\n", "ratio", "CPU ratio")
}

// row prints the medians of every server, and the last one's beside the first
// one's.
func row(w io.Writer, l load, got [][]figure) {
	fmt.Fprintf(w, "%-5s %5d", l.name, l.conns)
	var rates, cpus []float64
	for _, figures := range got {
		rate := median(figures, func(f figure) float64 { return f.rate })
		cpu := median(figures, func(f figure) float64 { return f.cpu })
		rates, cpus = append(rates, rate), append(cpus, cpu)
		if l.size >= bulk {
			fmt.Fprintf(w, "  %6.0f MB/s %4.0f ms/GB", rate/1e6, cpu*1e12)
		} else {
			fmt.Fprintf(w, "  %6.0f req/s %5.1f µs", rate, cpu*1e6)
		}
	}
	last := len(got) - 1
	fmt.Fprintf(w, "  %5.2f  %9.2f\n", rates[last]/rates[0], cpus[last]/cpus[0])
}

func median(figures []figure, of func(figure) float64) float64 {
	var v []float64
	for _, f := range figures {
		v = append(v, of(f))
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
