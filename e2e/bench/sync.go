package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"chantal/internal/testenv"
)

// mirroring is one step of a full mirror, and what it took.
type mirroring struct {
	step   string
	took   time.Duration
	cpu    time.Duration
	memory int64 // peak, in bytes
}

// benchSync mirrors a suite of n small packages, once more without any change,
// freezes it and publishes what was frozen under metadata of its own, with
// aptly, where that is installed, and with each binary. nginx has the files.
func benchSync(ctx context.Context, n, rounds int, binaries []string, dir string) error {
	fmt.Printf("a suite of %d packages of 200 to 2,000 bytes\n", n)
	upstream, err := bulkUpstream(dir, n)
	if err != nil {
		return err
	}
	defer upstream.stop()
	fmt.Printf("%-24s %-8s %9s %9s %9s\n", "", "", "seconds", "CPU s", "peak MB")
	for round := range rounds {
		var ours, theirs []mirroring
		if _, err := exec.LookPath("aptly"); err == nil {
			if theirs, err = aptly(ctx, filepath.Join(dir, fmt.Sprint("aptly", round)), upstream.url); err != nil {
				return err
			}
			show("aptly", theirs)
		}
		for i, binary := range binaries {
			if ours, err = syncs(ctx, binary, filepath.Join(dir, fmt.Sprintf("sync%d-%d", round, i)), upstream.url); err != nil {
				return err
			}
			show(filepath.Base(binary), ours)
		}
		if len(theirs) > 0 {
			fmt.Printf("%-24s %-8s %9.2f %9.2f %9.2f\n", "ratio", "in all", ratio(theirs, ours, func(m mirroring) float64 { return m.took.Seconds() }),
				ratio(theirs, ours, func(m mirroring) float64 { return m.cpu.Seconds() }), float64(theirs[0].memory)/float64(ours[0].memory))
		}
	}
	return nil
}

// ratio returns how much more of it the one took in all than the other.
func ratio(one, other []mirroring, of func(mirroring) float64) float64 {
	sum := func(all []mirroring) (s float64) {
		for _, m := range all {
			s += of(m)
		}
		return s
	}
	return sum(one) / sum(other)
}

func show(name string, all []mirroring) {
	for _, m := range all {
		fmt.Printf("%-24s %-8s %9.2f %9.2f %9.0f\n", name, m.step, m.took.Seconds(), m.cpu.Seconds(), float64(m.memory)/1e6)
	}
}

// bulkUpstream serves the suite "bench".
func bulkUpstream(dir string, n int) (*server, error) {
	key, err := testenv.NewKey("bench", time.Now().Add(-24*time.Hour))
	if err != nil {
		return nil, err
	}
	suite := testenv.NewAPT(key, time.Now(), "bench")
	suite.Bulk(n, 1)
	files, err := suite.Publish()
	if err != nil {
		return nil, err
	}
	www := filepath.Join(dir, "www")
	if err := files.Write(www); err != nil {
		return nil, err
	}
	return startFiles(dir, www)
}

// run measures a command. What it prints is in the error, if there is one.
func run(ctx context.Context, step string, args ...string) (mirroring, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	m := mirroring{step: step}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return m, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			m.took, m.cpu = time.Since(began), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()
			if err != nil {
				text, _ := io.ReadAll(io.LimitReader(&out, 2000))
				return m, fmt.Errorf("%s: %w: %s", args[0], err, text)
			}
			return m, nil
		case <-time.After(5 * time.Millisecond):
			// What the kernel says at the end counts what this process had
			// before the other one began.
			m.memory = max(m.memory, peakMemory(cmd.Process.Pid))
		}
	}
}

// peakMemory returns the most memory that a process has had so far, in bytes
// (VmHWM of proc(5)); 0 where it has ended.
func peakMemory(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kilobytes int64
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		return 0
	}
	return kilobytes << 10
}

func syncs(ctx context.Context, binary, dir, upstream string) ([]mirroring, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "chantal.yaml")
	text := fmt.Sprintf("data: %s/data\nrepos:\n  - name: bench\n    type: apt\n    upstream: %s\n    sync: {suites: [bench], architectures: [amd64]}\n", dir, upstream)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	with := []string{binary, "--config", file, "--quiet"}
	return steps(ctx, []step{
		{"first", append(with[:4:4], "sync")},
		{"again", append(with[:4:4], "sync")},
		{"freeze", append(with[:4:4], "snapshot", "create", "frozen")},
		{"publish", append(with[:4:4], "snapshot", "publish", "frozen", "published", "--filter", `pkg.name != "none"`)},
		{"switch", append(with[:4:4], "snapshot", "publish", "frozen", "next", "--filter", `pkg.name != "other"`)},
	})
}

// step is a command to measure, and what it is called.
type step struct {
	name string
	args []string
}

func steps(ctx context.Context, all []step) ([]mirroring, error) {
	var took []mirroring
	for _, s := range all {
		m, err := run(ctx, s.name, s.args...)
		if err != nil {
			return nil, err
		}
		took = append(took, m)
	}
	return took, nil
}

// aptly works without checking signatures or making any, with as many downloads
// at a time, and without lists of contents, for the packages are none inside.
func aptly(ctx context.Context, dir, upstream string) ([]mirroring, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "aptly.conf")
	text := fmt.Sprintf(`{"rootDir": %q, "downloadConcurrency": 8, "architectures": ["amd64"], "gpgDisableSign": true, "gpgDisableVerify": true}`, dir+"/root")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	with := []string{"aptly", "-config=" + file}
	if _, err := run(ctx, "", append(with[:2:2], "mirror", "create", "-ignore-signatures", "bench", upstream, "bench", "main")...); err != nil {
		return nil, err
	}
	return steps(ctx, []step{
		{"first", append(with[:2:2], "mirror", "update", "-ignore-signatures", "bench")},
		{"again", append(with[:2:2], "mirror", "update", "-ignore-signatures", "bench")},
		{"freeze", append(with[:2:2], "snapshot", "create", "frozen", "from", "mirror", "bench")},
		{"publish", append(with[:2:2], "publish", "snapshot", "-batch", "-skip-signing", "-skip-contents", "-distribution=bench", "frozen")},
		{"switch", append(with[:2:2], "publish", "switch", "-batch", "-skip-signing", "-skip-contents", "bench", "frozen")},
	})
}
