package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// peak returns the most memory that a process ever had resident, in MiB.
func (p *process) peak(t *testing.T) int {
	t.Helper()
	n, err := peakMemory(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return int(n >> 20)
}

// peakMemory returns the most memory that a process has had so far, in bytes
// (VmHWM of proc(5)).
func peakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	var kilobytes int64
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscan(rest, &kilobytes)
	return kilobytes << 10, err
}

// files returns how many files a process has open.
func (p *process) files(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// metric returns a number from /-/metrics.
func (b *bench) metric(t *testing.T, name string) float64 {
	t.Helper()
	body, err := request(io.Discard, http.MethodGet, "http://"+b.listen+"/-/metrics", "", http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// report says what a crowd cost, and fails the test beyond most MiB.
func (b *bench) report(t *testing.T, p *process, began time.Time, most int) {
	t.Helper()
	peak, heap := p.peak(t), b.metric(t, "go_memstats_sys_bytes")
	t.Logf("%.1f s; peak resident %d MiB, of which Go asked the system for %.0f MiB; %d upstream requests",
		time.Since(began).Seconds(), peak, heap/(1<<20), b.server.Count("/debian/pool/"))
	if peak > most {
		t.Errorf("peak resident memory is %d MiB, more than %d", peak, most)
	}
}

// crowd lets a client ask for each of paths at the same time, each on a
// connection of its own, and returns when all have the right bytes.
func (b *bench) crowd(t *testing.T, paths []string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}, Timeout: 20 * time.Minute}
	var all sync.WaitGroup
	for _, path := range paths {
		all.Go(func() {
			want, _ := b.server.File("/debian/" + path)
			resp, err := client.Get(b.url(path))
			if err != nil {
				t.Errorf("%s: %v", path, err)
				return
			}
			defer resp.Body.Close()
			// Hashing fifty gigabytes would take longer than the rest.
			compared := &comparer{want: want.Content}
			if _, err := io.Copy(compared, resp.Body); err != nil || resp.StatusCode != http.StatusOK || compared.at != len(want.Content) {
				t.Errorf("%s: %s, the first %d bytes of %d are right: %v", path, resp.Status, compared.at, len(want.Content), err)
			}
		})
	}
	all.Wait()
}

// comparer fails at the first byte that is not the one wanted.
type comparer struct {
	want []byte
	at   int
}

func (c *comparer) Write(p []byte) (int, error) {
	if rest := c.want[c.at:]; len(p) > len(rest) || !bytes.Equal(p, rest[:len(p)]) {
		return 0, errors.New("other bytes")
	}
	c.at += len(p)
	return len(p), nil
}

const crowdSize = 1000

func TestAThousandClientsOfOneColdFile(t *testing.T) {
	for name, test := range map[string]struct {
		size  int
		fault testenv.Fault
	}{
		"as fast as can be":     {50 << 20, ""},
		"upstream is slow":      {2 << 20, testenv.Slow},
		"upstream breaks off":   {2 << 20, testenv.Truncate},
		"nobody knows its size": {2 << 20, testenv.Chunked},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, testenv.Package{Name: "large", Version: "1.0", Size: test.size})
			p := b.serve(t)
			b.update(t)
			const path = "pool/main/l/large/large_1.0_all.deb"
			want := 1
			if test.fault == testenv.Truncate {
				want = 2 // the second goes on where the first broke off
				b.server.Fail(test.fault, "/debian/pool/", 1)
			} else if test.fault != "" {
				b.server.Fail(test.fault, "/debian/pool/", -1)
			}
			began := time.Now()
			b.crowd(t, slices.Repeat([]string{path}, crowdSize))
			b.report(t, p, began, 150)
			if got := b.server.Count("/debian/" + path); got != want {
				t.Errorf("upstream got %d requests, want %d", got, want)
			}
		})
	}
}

func TestAThousandClientsOfAThousandColdFiles(t *testing.T) {
	var packages []testenv.Package
	for i := range crowdSize {
		packages = append(packages, testenv.Package{Name: fmt.Sprintf("p%03d", i), Version: "1.0", Size: 256<<10 + i*256})
	}
	b := newBench(t, packages...)
	p := b.serve(t)
	b.update(t)
	var paths []string
	for path := range b.want {
		paths = append(paths, path)
	}
	began := time.Now()
	b.crowd(t, paths)
	b.report(t, p, began, 200)
	if got := b.server.Count("/debian/pool/"); got != crowdSize {
		t.Errorf("upstream got %d requests, want %d", got, crowdSize)
	}
}

// slowly asks for path with a small window and reads a piece every so often,
// until ctx ends or the whole is there.
func (b *bench) slowly(ctx context.Context, path string, piece int64, every time.Duration) (int64, error) {
	c, err := net.Dial("tcp", b.listen)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(c, "GET /debian/%s HTTP/1.1\r\nHost: %s\r\n\r\n", path, b.listen); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 4<<10), nil)
	if err != nil {
		return 0, err
	}
	var sum int64 // the body is not closed: that would read the rest of it
	for ctx.Err() == nil {
		n, err := io.CopyN(io.Discard, resp.Body, piece)
		sum += n
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
		}
	}
	return sum, nil
}

// A thousand readers at 10 KB/s hold neither memory nor another client up.
func TestAThousandSlowReaders(t *testing.T) {
	b := newBench(t, testenv.Package{Name: "large", Version: "1.0", Size: 50 << 20})
	p := b.serve(t)
	b.update(t)
	const path = "pool/main/l/large/large_1.0_all.deb"
	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range crowdSize {
		readers.Go(func() {
			if n, err := b.slowly(ctx, path, 10<<10, time.Second); err != nil {
				t.Errorf("a slow reader was cut after %d bytes: %v", n, err)
			}
		})
	}
	for deadline := time.Now().Add(30 * time.Second); b.metric(t, "process_open_fds") < 2*crowdSize; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d files are open: the readers are not all there", p.files(t))
		}
	}
	if open := p.files(t); open > 2*crowdSize+100 {
		t.Errorf("%d files are open for %d readers", open, crowdSize)
	}
	if got, err := b.sum(t.Context(), path); err != nil || got != b.want[path] {
		t.Errorf("a client beside them: %v, same bytes %v", err, got == b.want[path])
	}
	t.Logf("a client beside them had all %.1f s after they began", time.Since(began).Seconds())
	b.report(t, p, began, 200)
	cancel()
	readers.Wait()
	if got := b.server.Count("/debian/" + path); got != 1 {
		t.Errorf("upstream got %d requests, want 1", got)
	}
	for deadline := time.Now().Add(30 * time.Second); p.files(t) > 100; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d files are still open when the readers are gone", p.files(t))
		}
	}
}

// When the fill fails, those who waited get an error in good time, and upstream
// is not asked once for each of them.
func TestAFailedFillIsNotRepeatedByAllWhoWaited(t *testing.T) {
	b := newBench(t, testenv.Package{Name: "gone", Version: "1.0", Size: 1 << 20})
	b.configure(t, fmt.Sprintf("download: {retries: 2}\nrepos:\n  - {name: debian, type: apt, upstream: [%q]}\n", b.server.URL()+"/debian"))
	b.serve(t)
	b.update(t)
	const path = "pool/main/g/gone/gone_1.0_all.deb"
	b.server.Fail(testenv.Unavailable, "/debian/pool/", -1)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	var all sync.WaitGroup
	for range crowdSize {
		all.Go(func() {
			resp, err := client.Get(b.url(path))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
				t.Errorf("a client got %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
			}
		})
	}
	all.Wait()
	asked := b.server.Count("/debian/" + path)
	t.Logf("%d clients, %d upstream requests", crowdSize, asked)
	if asked > 20 {
		t.Errorf("upstream got %d requests", asked)
	}
	b.server.Heal()
	if got, err := b.sum(t.Context(), path); err != nil || got != b.want[path] {
		t.Errorf("once upstream is back: %v, same bytes %v", err, got == b.want[path])
	}
}

// Where few files may be open, clients wait for each other and nothing fails.
func TestClientsWaitWhereFewFilesMayBeOpen(t *testing.T) {
	var packages []testenv.Package
	for i := range 50 {
		packages = append(packages, testenv.Package{Name: fmt.Sprintf("p%03d", i), Version: "1.0", Size: 300_000})
	}
	b := newBench(t, packages...)
	real := binary()
	b.fewFiles(t, real, 300)
	p := b.serve(t)
	b.update(t)
	var paths []string
	for path := range b.want {
		paths = append(paths, slices.Repeat([]string{path}, 10)...)
	}
	b.crowd(t, paths)
	if log := p.tail(); !strings.Contains(log, "few files may be open") || strings.Contains(log, "too many open files") {
		t.Errorf("the log says:\n%s", log)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	b.fewFiles(t, real, 200)
	refused, err := startServe(b.listen, filepath.Join(b.dir, "refused.log"), []string{"HOME=" + b.dir}, "--data", filepath.Join(b.dir, "data"))
	if err == nil {
		refused.kill()
		t.Fatal("serve runs with 200 open files at most")
	}
	if !strings.Contains(err.Error(), "only 200 files may be open") {
		t.Errorf("serve says %v", err)
	}
}

// fewFiles lets the program, as serve, have no more than n files open.
func (b *bench) fewFiles(t *testing.T, program string, n int) {
	t.Helper()
	limited := filepath.Join(b.dir, "limited-"+strconv.Itoa(n))
	if err := os.WriteFile(limited, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", n, program), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CHANTAL_E2E_BINARY", limited)
}
