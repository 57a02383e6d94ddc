package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"chantal/internal/testenv"
)

// disk is a chantal with a data directory that can be full, or read-only, in
// front of one apt repository.
type disk struct {
	*testing.T
	dir, data, listen string
	server            *testenv.Server
	archive           *testenv.APT
	serve             *process
}

// newDisk mounts a small file system for the data directory. size 0 leaves it
// where it is.
func newDisk(t *testing.T, size string) *disk {
	t.Helper()
	d := &disk{T: t, dir: t.TempDir()}
	d.data = filepath.Join(d.dir, "data")
	d.check(os.Mkdir(d.data, 0o755))
	if size != "" {
		if err := unix.Mount("tmpfs", d.data, "tmpfs", 0, "size="+size); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("mounting a small file system needs root: %v", err)
			}
			t.Skipf("mounting a small file system needs root: %v", err)
		}
		t.Cleanup(func() { d.check(unix.Unmount(d.data, 0)) })
	}
	port, err := freePort()
	d.check(err)
	d.listen = "127.0.0.1:" + strconv.Itoa(port)
	d.server, err = testenv.NewServer()
	d.check(err)
	t.Cleanup(func() { d.server.Heal(); d.server.Down() })
	key, err := testenv.NewKey("archive", time.Now().Add(-24*time.Hour))
	d.check(err)
	d.archive = testenv.NewAPT(key, time.Now(), "bookworm")
	for name, size := range map[string]int{"small": 100 << 10, "middle": 5 << 20, "large": 40 << 20} {
		d.check(d.archive.Add(testenv.Package{Name: name, Version: "1", Size: size}))
	}
	d.publish()
	config := fmt.Sprintf("repos: [{name: debian, type: apt, upstream: [%q], refresh: 100ms}]\n", d.server.URL()+"/debian/")
	d.check(os.WriteFile(filepath.Join(d.dir, "chantal.yaml"), []byte(config), 0o644))
	return d
}

func (d *disk) check(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func (d *disk) publish() {
	files, err := d.archive.Publish()
	d.check(err)
	d.server.Publish("debian", files)
}

func (d *disk) env() []string { return append(os.Environ(), "CHANTAL_DATA="+d.data) }

func (d *disk) start(args ...string) {
	d.Helper()
	var err error
	d.serve, err = startServe(d.listen, filepath.Join(d.dir, "serve.log"), d.env(), append([]string{"--config", filepath.Join(d.dir, "chantal.yaml")}, args...)...)
	d.check(err)
	p := d.serve
	d.Cleanup(func() { p.cmd.Process.Kill(); <-p.ended })
}

// chantal runs a command, and returns what it prints and its exit code.
func (d *disk) chantal(args ...string) (string, int) {
	cmd := exec.Command(binary(), append([]string{"--config", filepath.Join(d.dir, "chantal.yaml")}, args...)...)
	cmd.Env, cmd.Dir = d.env(), d.dir
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		d.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// get asks for a path, with a range if that is not empty.
func (d *disk) get(at, span string) (int, []byte) {
	d.Helper()
	r, err := http.NewRequest("GET", "http://"+d.listen+"/"+at, nil)
	d.check(err)
	if span != "" {
		r.Header.Set("Range", span)
	}
	resp, err := http.DefaultClient.Do(r)
	d.check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	d.check(err)
	return resp.StatusCode, body
}

// same asks for a file and compares it with upstream's.
func (d *disk) same(path string) {
	d.Helper()
	status, got := d.get("debian/"+path, "")
	if want := d.upstream(path); status != http.StatusOK || !bytes.Equal(got, want) {
		d.Errorf("%s: %d, %d bytes of %d, the right ones: %v\n%s", path, status, len(got), len(want), bytes.Equal(got, want), d.serve.tail())
	}
}

func (d *disk) upstream(path string) []byte {
	d.Helper()
	f, ok := d.server.File("/debian/" + path)
	if !ok {
		d.Fatalf("upstream has no %s", path)
	}
	return f.Content
}

func (d *disk) pool(name string) string {
	return d.archive.PoolPath(testenv.Package{Name: name, Version: "1"})
}

// stored reports whether a file is in the store, under its final name.
func (d *disk) stored(path string) bool {
	sum := sha256.Sum256(d.upstream(path))
	name := hex.EncodeToString(sum[:])
	_, err := os.Stat(filepath.Join(d.data, "blobs", name[:2], name))
	return err == nil
}

// fill takes all space that is left, and returns how it is given back.
func (d *disk) fill() (free func()) {
	d.Helper()
	ballast := filepath.Join(d.data, "ballast")
	f, err := os.Create(ballast)
	d.check(err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.Fatal(err)
	}
	return func() { d.check(os.Remove(ballast)) }
}

func (d *disk) eventually(what string, so func() bool) {
	d.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			d.Fatalf("not within 30 s: %s\n%s", what, d.serve.tail())
		}
	}
}

func (d *disk) metric(line string) bool {
	_, body := d.get("-/metrics", "")
	return strings.Contains(string(body), "\n"+line+"\n")
}

const inRelease, packages = "dists/bookworm/InRelease", "dists/bookworm/main/binary-amd64/Packages.gz"

func TestAFullDiskKeepsNobodyFromTheirFiles(t *testing.T) {
	d := newDisk(t, "16m")
	d.start()
	d.same(inRelease)
	d.same(packages)
	d.same(d.pool("small"))
	d.eventually("the small package is stored", func() bool { return d.stored(d.pool("small")) })
	if !d.metric("chantal_disk_full 0") {
		t.Error("the metrics say that the disk is full before it is")
	}

	free := d.fill()
	for range 2 {
		d.same(d.pool("middle"))
		d.same(d.pool("large"))
		d.same(d.pool("small"))
	}
	middle := d.upstream(d.pool("middle"))
	if status, got := d.get("debian/"+d.pool("middle"), "bytes=1000-1999"); status != http.StatusPartialContent || !bytes.Equal(got, middle[1000:2000]) {
		t.Errorf("a part of a file: %d, %d bytes", status, len(got))
	}
	large := d.upstream(d.pool("large"))
	if status, got := d.get("debian/"+d.pool("large"), "bytes=1000-1999"); status != http.StatusOK || !bytes.Equal(got, large) {
		t.Errorf("a part of what nothing keeps: %d, %d bytes", status, len(got))
	}
	if status, got := d.get("debian/"+d.pool("large"), "bytes=30000000-"); status != http.StatusPartialContent || !bytes.Equal(got, large[30000000:]) {
		t.Errorf("the rest of what nothing keeps: %d, %d bytes", status, len(got))
	}
	d.server.Put("/debian/key.asc", testenv.File{Content: []byte("a key\n")})
	for range 2 {
		d.same("key.asc")
	}
	if !d.metric("chantal_disk_full 1") || !d.metric("chantal_disk_failing 1") {
		t.Error("the metrics do not say that the disk is full")
	}
	if out, code := d.chantal("status"); code != 0 || !strings.Contains(out, "is full") {
		t.Errorf("status says (%d):\n%s", code, out)
	}
	if out, code := d.chantal("snapshot", "create", "nothing"); code != 1 || !strings.Contains(out, "full") {
		t.Errorf("snapshot create says (%d):\n%s", code, out)
	}
	_, before := d.get("debian/"+inRelease, "")
	d.archive.SetDate(time.Now().Add(time.Minute))
	d.check(d.archive.Add(testenv.Package{Name: "new", Version: "1", Size: 1000}))
	d.publish()
	time.Sleep(150 * time.Millisecond) // beyond refresh
	if status, got := d.get("debian/"+inRelease, ""); status != http.StatusOK || !bytes.Equal(got, before) {
		t.Errorf("a root that cannot be stored: %d", status)
	}
	free()

	d.eventually("the disk takes writes", func() bool { return d.metric("chantal_disk_failing 0") })
	d.eventually("what was in memory is stored", func() bool { return d.stored(d.pool("middle")) })
	d.eventually("upstream's new state is there", func() bool {
		_, got := d.get("debian/"+inRelease, "")
		return bytes.Equal(got, d.upstream(inRelease))
	})
	if out, code := d.chantal("snapshot", "create", "something"); code != 0 {
		t.Errorf("snapshot create says (%d):\n%s", code, out)
	}
	d.check(d.serve.stop())
	d.check(filepath.WalkDir(d.data, func(path string, f fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(f.Name(), ".t-") {
			t.Errorf("%s is left behind", path)
		}
		return err
	}))
}

func TestAFirstStateNeedsRoomOnTheDisk(t *testing.T) {
	d := newDisk(t, "8m")
	d.start()
	free := d.fill()
	status, got := d.get("debian/"+inRelease, "")
	if status != http.StatusServiceUnavailable || !strings.Contains(string(got), "is full") || !strings.Contains(string(got), "make room") {
		t.Errorf("%d: %s", status, got)
	}
	free()
	d.eventually("it is there", func() bool { status, _ := d.get("debian/"+inRelease, ""); return status == http.StatusOK })
	d.same(packages)
}

func TestAReadOnlyDataDirectorySaysSo(t *testing.T) {
	d := newDisk(t, "8m")
	d.start()
	d.same(inRelease)
	d.check(d.serve.stop())
	d.check(unix.Mount("", d.data, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	out, code := d.chantal("serve", "--listen", d.listen)
	if code != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, d.data) || !strings.Contains(out, "writable") || !strings.Contains(out, "--data") {
		t.Errorf("%d: %s", code, out)
	}
}

func TestOnlyOneServeOnADataDirectory(t *testing.T) {
	d := newDisk(t, "")
	d.start()
	out, code := d.chantal("serve", "--listen", "127.0.0.1:0")
	if code != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "is locked by process") || !strings.Contains(out, d.data) {
		t.Errorf("%d: %s", code, out)
	}
	d.same(inRelease)
}

func TestALostOrDamagedCatalogComesBackByItself(t *testing.T) {
	d := newDisk(t, "")
	d.start()
	d.same(inRelease)
	d.same(packages)
	if out, code := d.chantal("snapshot", "create", "kept"); code != 0 {
		t.Fatal(out)
	}
	first := d.upstream(inRelease)
	d.check(d.serve.stop())
	path := filepath.Join(d.data, "catalog.db")
	sound, err := os.ReadFile(path)
	d.check(err)
	for name, damage := range map[string]func() error{
		"deleted":   func() error { return os.Remove(path) },
		"emptied":   func() error { return os.WriteFile(path, nil, 0o600) },
		"truncated": func() error { return os.WriteFile(path, sound[:len(sound)/3], 0o600) },
		"zeroed":    func() error { return os.WriteFile(path, make([]byte, len(sound)), 0o600) },
		"garbage":   func() error { return os.WriteFile(path, bytes.Repeat([]byte("garbage "), len(sound)/8), 0o600) },
		"a bit": func() error {
			b := bytes.Clone(sound)
			b[bytes.Index(b, []byte(`"generation":1`))+13] ^= 2
			return os.WriteFile(path, b, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d.check(damage())
			log := filepath.Join(d.dir, "serve.log")
			d.check(os.RemoveAll(log))
			d.start("--offline")
			defer func() { d.check(d.serve.stop()) }()
			status, got := d.get("debian@kept/"+inRelease, "")
			if status != http.StatusOK || !bytes.Equal(got, first) {
				t.Errorf("the snapshot: %d\n%s", status, got)
			}
			said, err := os.ReadFile(log)
			d.check(err)
			if noticed := strings.Contains(string(said), "made anew from the records"); noticed != (name != "deleted" && name != "emptied") {
				t.Errorf("the log says\n%s", said)
			}
		})
	}
}

func TestADamagedRecordIsNamed(t *testing.T) {
	d := newDisk(t, "")
	d.start()
	d.same(inRelease)
	d.same("dists/bookworm/Release")
	d.check(d.serve.stop())
	log := filepath.Join(d.data, "records", "repos", "debian.jsonl")
	text, err := os.ReadFile(log)
	d.check(err)
	text[10] = 0
	d.check(os.WriteFile(log, text, 0o644))
	out, code := d.chantal("serve", "--listen", d.listen)
	if code != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "line 1 of "+log+" is damaged") || !strings.Contains(out, "backup") {
		t.Errorf("%d: %s", code, out)
	}
}
