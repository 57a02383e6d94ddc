package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// web serves the folder DIR over HTTP, as a server does that knows nothing of
// repositories, and sets $WEB:
//
//	web [nginx|python] DIR
//
// python, the default, is http.server; it confirms by date what is not newer.
// It stands in for nginx where that is not installed.
func web(ts *testscript.TestScript, neg bool, args []string) {
	program := "python"
	if len(args) == 2 {
		program, args = args[0], args[1:]
	}
	free, err := freePort()
	ts.Check(err)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(free))
	var server *exec.Cmd
	program, found := nginxProgram(program)
	if found {
		server = nginx(ts, program, address, ts.MkAbs(args[0]))
	} else {
		python, err := exec.LookPath("python3")
		ts.Check(err)
		server = exec.Command(python, "-m", "http.server", strconv.Itoa(free), "--bind", "127.0.0.1")
		server.Dir = ts.MkAbs(args[0])
	}
	ts.Check(server.Start())
	ts.Defer(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	worldOf(ts).set(ts, "WEB", "http://"+address)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + address + "/")
		if err == nil {
			response.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("web: %v", err)
		}
	}
}

// nginxProgram finds nginx, where that is wanted.
func nginxProgram(wanted string) (program string, found bool) {
	if wanted != "nginx" {
		return "", false
	}
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, true
		}
	}
	return "", false
}

// nginx is an nginx of its own, with the folder as its root.
func nginx(ts *testscript.TestScript, program, address, dir string) *exec.Cmd {
	own := ts.Getenv("WORK") + "/nginx"
	ts.Check(os.MkdirAll(own, 0o755))
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n" // the folders of tests are root's own
	}
	conf := user + strings.NewReplacer("OWN", own, "ADDRESS", address, "DIR", dir).Replace(`daemon off; master_process off;
pid OWN/pid;
error_log OWN/error.log;
events {}
http {
	access_log off;
	client_body_temp_path OWN/body; proxy_temp_path OWN/proxy; fastcgi_temp_path OWN/fastcgi;
	uwsgi_temp_path OWN/uwsgi; scgi_temp_path OWN/scgi;
	types { text/html html; }
	default_type application/octet-stream;
	server { listen ADDRESS; root DIR; }
}
`)
	ts.Check(os.WriteFile(own+"/nginx.conf", []byte(conf), 0o644))
	return exec.Command(program, "-c", own+"/nginx.conf", "-p", own, "-e", own+"/error.log")
}

// flip changes one bit of a file, in place of the file: of further names of it
// nothing changes.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	at := ts.MkAbs(args[0])
	body, err := os.ReadFile(at)
	ts.Check(err)
	body[len(body)/2] ^= 0x10
	ts.Check(os.WriteFile(at+".flipped", body, 0o644))
	ts.Check(os.Rename(at+".flipped", at))
}

// mode prints who may do what with the folders and files below DIR, each that
// occurs once.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	seen := map[string]bool{}
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err == nil && !seen[fi.Mode().String()] {
			seen[fi.Mode().String()] = true
			_, err = ts.Stdout().Write([]byte(fi.Mode().String() + "\n"))
		}
		return err
	}))
}
