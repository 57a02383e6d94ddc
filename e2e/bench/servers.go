package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"chantal/internal/testenv"
)

// agent is the User-Agent of all requests. A server that holds a client to the
// metadata it has read sees one client throughout, as it does with apt.
const agent = "bench"

// metadata are the files that the client reads before it asks for packages.
var metadata = []string{"dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages.xz"}

// startUpstream serves an apt repository of three packages; their content is
// pseudo-random.
func startUpstream() (*testenv.Server, []object, error) {
	objects := []object{
		{"4k", 4 << 10, "pool/main/s/small/small_1.0_all.deb"},
		{"100k", 100 << 10, "pool/main/m/medium/medium_1.0_all.deb"},
		{"200m", 200 << 20, "pool/main/l/large/large_1.0_all.deb"},
	}
	key, err := testenv.NewKey("bench", time.Now().Add(-24*time.Hour))
	if err != nil {
		return nil, nil, err
	}
	apt := testenv.NewAPT(key, time.Now(), "stable")
	random := rand.NewChaCha8([32]byte{})
	debs := testenv.Files{}
	for _, o := range objects {
		content := make([]byte, o.size)
		random.Read(content)
		debs[o.path] = testenv.File{Content: content, Modified: apt.Date()}
		name, _, _ := strings.Cut(filepath.Base(o.path), "_")
		apt.Stanzas += fmt.Sprintf("Package: %s\nVersion: 1.0\nArchitecture: all\nFilename: %s\nSize: %d\nSHA256: %x\n\n",
			name, o.path, o.size, sha256.Sum256(content))
	}
	files, err := apt.Publish()
	if err != nil {
		return nil, nil, err
	}
	up, err := testenv.NewServer()
	if err != nil {
		return nil, nil, err
	}
	up.Publish("", files)
	for path, f := range debs {
		up.Put("/"+path, f)
	}
	return up, objects, nil
}

// server is a process under measurement.
type server struct {
	name string
	url  string // what the repository's paths follow
	cmd  *exec.Cmd
	dead chan error // gets what the process ended with
	log  bytes.Buffer
}

func startNginx(dir, upstream string) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	// tcp_nopush stays off: with it small answers wait for a delayed ACK.
	text := fmt.Sprintf(`
daemon off; worker_processes auto; pid %[1]s/nginx.pid; error_log stderr; %[2]s
events { worker_connections 1024; }
http {
	sendfile on; tcp_nopush off; access_log off; keepalive_requests 1000000000;
	client_body_temp_path %[1]s/n1; proxy_temp_path %[1]s/n2; fastcgi_temp_path %[1]s/n3; uwsgi_temp_path %[1]s/n4; scgi_temp_path %[1]s/n5;
	proxy_cache_path %[1]s/nginx levels=1:2 keys_zone=all:10m max_size=2g use_temp_path=off;
	server {
		listen %[3]s;
		location / { proxy_pass %[4]s; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache all; proxy_cache_valid 200 1d; }
	}
}
`, dir, user, address, upstream)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return start("nginx", address, "/", exec.Command("nginx", "-p", dir, "-c", file))
}

// startFiles serves the files below www with nginx.
func startFiles(dir, www string) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	text := fmt.Sprintf(`
daemon off; worker_processes auto; pid %[1]s/files.pid; error_log stderr; %[2]s
events { worker_connections 1024; }
http {
	sendfile on; access_log off; keepalive_requests 1000000000;
	client_body_temp_path %[1]s/f1; proxy_temp_path %[1]s/f2; fastcgi_temp_path %[1]s/f3; uwsgi_temp_path %[1]s/f4; scgi_temp_path %[1]s/f5;
	server { listen %[3]s; root %[4]s; }
}
`, dir, user, address, www)
	file := filepath.Join(dir, "files.conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return start("nginx", address, "/", exec.Command("nginx", "-p", dir, "-c", file))
}

func startChantal(dir, binary, upstream string) (*server, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("listen: %s\ndata: %s/data\nrepos:\n  - name: bench\n    type: apt\n    upstream: %s\n    refresh: 1h\n", address, dir, upstream)
	file := filepath.Join(dir, "chantal.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return start(filepath.Base(binary), address, "/bench/", exec.Command(binary, "--config", file, "serve"))
}

// freeAddress returns an address of loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start runs a server and returns when it accepts connections.
func start(name, address, prefix string, cmd *exec.Cmd) (*server, error) {
	s := &server{name: name, url: "http://" + address + prefix, cmd: cmd, dead: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.dead <- cmd.Wait() }()
	for range 200 {
		if c, err := net.Dial("tcp", address); err == nil {
			return s, c.Close()
		}
		select {
		case err := <-s.dead:
			return nil, fmt.Errorf("%s ended (%v): %s", name, err, s.log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s does not listen on %s", name, address)
}

// stop ends the process, with patience at first.
func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.dead:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.dead
	}
}

// warm asks for everything twice, and makes sure that the second answers are
// the upstream's bytes.
func (s *server) warm(ctx context.Context, objects []object) error {
	for range 2 {
		for _, path := range metadata {
			if _, err := get(ctx, s.url+path); err != nil {
				return err
			}
		}
		for _, o := range objects {
			n, err := get(ctx, s.url+o.path)
			if err != nil {
				return err
			}
			if n != int64(o.size) {
				return fmt.Errorf("%s has %d bytes, not %d", o.path, n, o.size)
			}
		}
	}
	return nil
}

func get(ctx context.Context, url string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", agent)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return 0, fmt.Errorf("%s: %s: %s", url, resp.Status, why)
	}
	return io.Copy(io.Discard, resp.Body)
}

// tick is the unit of times in /proc/PID/stat (proc(5)); Linux shows all
// programs hundredths of a second.
const tick = 10 * time.Millisecond

// cpu returns the time that the process and its children have used.
func (s *server) cpu() (time.Duration, error) {
	pid := s.cmd.Process.Pid
	total, err := used(pid)
	if err != nil {
		return 0, err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return 0, err
	}
	for field := range strings.FieldsSeq(string(children)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		t, err := used(child)
		if err != nil {
			return 0, err
		}
		total += t
	}
	return total, nil
}

// used returns the user and system time of one process.
func used(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses that may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat is shorter than it should be")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, err
}
