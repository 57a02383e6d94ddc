package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// process is a running "chantal serve".
type process struct {
	cmd   *exec.Cmd
	log   string        // the file with what it prints
	ended chan struct{} // closed when it has; err is set before
	err   error
}

// startServe runs "chantal serve" and returns when it is ready at listen.
// Everything it prints is added to the file log.
func startServe(listen, log string, env []string, args ...string) (*process, error) {
	p, err := launchServe(listen, log, env, args...)
	if err != nil {
		return nil, err
	}
	return p, p.await(listen)
}

// launchServe is startServe that does not wait.
func launchServe(listen, log string, env []string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{log: log, ended: make(chan struct{})}
	p.cmd = exec.Command(binary(), append([]string{"serve", "--listen", listen}, args...)...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = env, out, out, filepath.Dir(log)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start serve: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// await returns when the process is ready; an error means that it has ended.
func (p *process) await(listen string) error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		select {
		case <-p.ended:
			return fmt.Errorf("serve ended before it was ready: %v\n%s", p.err, p.tail())
		default:
		}
		resp, err := client.Get("http://" + listen + "/-/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	p.kill()
	return fmt.Errorf("serve was not ready after 20 s\n%s", p.tail())
}

// stop ends the process as an init system would; it must exit with 0 in time.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop serve: %w", err)
	}
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("serve ended with %w\n%s", p.err, p.tail())
		}
		return nil
	case <-time.After(20 * time.Second):
		p.kill()
		return errors.New("serve did not end within 20 s of SIGTERM")
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// tail returns the last lines of the log.
func (p *process) tail() string { return tail(p.log) }

func tail(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return "[serve]\n" + string(b[max(0, len(b)-6000):])
}

func (w *world) log() string {
	if w.proxy == nil {
		return ""
	}
	return "\n" + w.proxy.tail()
}

func serveStart(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	if w.proxy != nil || neg {
		ts.Fatalf("serve runs already, or has a !")
	}
	if _, err := os.Stat(ts.MkAbs("chantal.yaml")); err == nil {
		args = append([]string{"--config", ts.MkAbs("chantal.yaml")}, args...)
	}
	var err error
	w.proxy, err = startServe(w.vars["LISTEN"], filepath.Join(w.vars["WORK"], "serve.log"), w.environ(), args...)
	ts.Check(err)
}

func serveStop(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	p := w.proxy
	w.proxy = nil
	ts.Check(p.stop())
}

func serveKill(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	w.proxy.kill()
	w.proxy = nil
}

// eventually waits for what happens in the background: a program, or a GET
// that has to be answered 200.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		var err error
		switch args[0] {
		case "chantal":
			err = ts.Exec(binary(), args[1:]...)
		case "upstream":
			err = w.control(ts, args[1], args[2:])
		case "stdout":
			if err = ts.Exec(binary(), args[3:]...); err == nil && !regexp.MustCompile(args[1]).MatchString(ts.ReadFile("stdout")) {
				err = fmt.Errorf("the output does not match %q", args[1])
			}
		case "log":
			var b []byte
			if b, err = os.ReadFile(filepath.Join(w.vars["WORK"], "serve.log")); err == nil && !strings.Contains(string(b), args[1]) {
				err = fmt.Errorf("the log does not say %q", args[1])
			}
		default:
			ts.Fatalf("usage: eventually chantal ARG…, stdout PATTERN chantal ARG…, upstream count PATH N, or log TEXT")
		}
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("eventually %s: %v%s", strings.Join(args, " "), err, w.log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
