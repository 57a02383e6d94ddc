package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"chantal/internal/config"
	"chantal/proxy"
)

// grace is how long answers under way may take once serve is asked to end.
const grace = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, app{serve: serve, open: openLocal})
	stop()
	os.Exit(code)
}

// serve runs the proxy until ctx ends.
func serve(ctx context.Context, env *environment, o serveOptions) error {
	if o.Listen != "" {
		env.config.Listen = o.Listen
	}
	n, err := openNode(env, o.Offline)
	if err != nil {
		return err
	}
	s := &server{node: n, flags: o, failed: make(chan error, 1)}
	err = s.listen()
	if err == nil {
		s.announce()
		endScrub, endSyncs, endCollecting := s.startScrub(ctx), s.startSyncs(ctx), s.startCollecting(ctx)
		endTraffic := s.startTraffic(ctx)
		err = s.wait(ctx)
		endSyncs()
		endTraffic()
		endCollecting()
		endScrub()
	}
	return errors.Join(err, s.shutdown(), n.Close())
}

// server is a node behind its listeners.
type server struct {
	*node
	flags   serveOptions
	servers []*http.Server
	first   net.Listener
	socket  string
	running sync.WaitGroup
	failed  chan error
}

// listen opens every address and the socket, and begins to answer.
func (s *server) listen() error {
	cfg := s.env.config
	all := append([]config.Listener{{Address: cfg.Listen}}, cfg.Listeners...)
	most, err := connections()
	if err != nil {
		return err
	}
	if most < fewConnections {
		s.log.Warn("few files may be open, so clients beyond that many connections wait; raise the limit (ulimit -n, LimitNOFILE=)", "connections", most)
	}
	var open []net.Listener
	var own []netip.AddrPort
	for _, l := range all {
		ln, err := proxy.Listen(l.Address, max(1, most/len(all)))
		if err != nil {
			for _, o := range open {
				o.Close()
			}
			return &failure{Message: "cannot listen on " + l.Address + ": " + err.Error(), Next: "choose another address with --listen or listen: in the configuration", Err: err}
		}
		open = append(open, ln)
		if a, err := netip.ParseAddrPort(ln.Addr().String()); err == nil {
			own = append(own, a)
		}
	}
	s.listens.Store(&own)
	s.first = open[0]
	for i, ln := range open {
		srv := s.handler.Load().Server(all[i].Ref)
		srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handler.Load().ServeHTTP(w, r) })
		s.run(srv, ln)
	}
	return s.listenSocket()
}

const (
	ownFiles       = 128 // open files that are not for clients: the store's, the catalog's, upstream's
	fewConnections = 500
)

// connections returns how many connections clients may have open, so that no
// file of theirs or ours fails to open: each takes one descriptor for itself,
// one for the index that its request is looked up in, and one for what it is
// sent. The Go runtime has raised the soft limit already.
func connections() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("reading the limit of open files: %w", err)
	}
	if limit.Cur < 2*ownFiles {
		return 0, &failure{Message: fmt.Sprintf("only %d files may be open, which is too few", limit.Cur), Next: fmt.Sprintf("raise the limit to %d or more (ulimit -n, LimitNOFILE=)", 8*ownFiles)}
	}
	return int(min(limit.Cur-ownFiles, 1<<20) / 3), nil
}

// listenSocket opens the socket that commands use. The lock is held, so a file
// in its place was left by a process that is gone.
func (s *server) listenSocket() error {
	s.socket = filepath.Join(s.data, socketName)
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing a stale socket: %w", err)
	}
	ln, err := listenSocket(s.socket)
	if err != nil {
		return fmt.Errorf("opening the socket of the commands: %w", err)
	}
	s.run(&http.Server{Handler: apiHandler(&local{s.node}, true), ReadHeaderTimeout: 10 * time.Second}, ln)
	return nil
}

func (s *server) run(srv *http.Server, ln net.Listener) {
	s.servers = append(s.servers, srv)
	s.running.Go(func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			select {
			case s.failed <- fmt.Errorf("answering on %s: %w", ln.Addr(), err):
			default:
			}
		}
	})
}

// announce prints the lines that clients need.
func (s *server) announce() {
	if !s.env.quiet {
		fmt.Fprint(s.env.stderr, banner(s.first.Addr().String()))
	}
	s.log.Info("serving", "listen", s.first.Addr().String(), "data", s.data, "version", version(), "offline", s.offline)
}

// wait returns when ctx ends or a listener fails. SIGHUP reads the
// configuration again.
func (s *server) wait(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.failed:
			return err
		case <-hup:
			s.reload()
		}
	}
}

// reload reads the configuration again; one with mistakes changes nothing.
func (s *server) reload() {
	old := s.config.Load()
	cfg, err := config.Load(old.File)
	if err == nil {
		if s.flags.Listen != "" {
			cfg.Listen = s.flags.Listen
		}
		err = s.apply(cfg)
	}
	if err != nil {
		s.log.Error("the configuration cannot be used; the old one stays", "file", old.File, "error", err)
		return
	}
	if cfg.Listen != old.Listen || !slices.Equal(cfg.Listeners, old.Listeners) || cfg.Data != old.Data || cfg.History != old.History ||
		cfg.Forward.Intercept != old.Forward.Intercept || !reflect.DeepEqual(fixed(cfg.Egress), fixed(old.Egress)) || !reflect.DeepEqual(cfg.Download, old.Download) || cfg.Scrub != old.Scrub {
		s.log.Warn("listen, listeners, data, history, egress but for netrc, download, scrub and forward.intercept take effect at the next start")
	}
	if r := s.rhythm.Load(); r != nil {
		r.reset()
	}
	s.log.Info("configuration read again", "file", cfg.File)
}

// fixed is what of egress stays until the end.
func fixed(e config.Egress) config.Egress {
	e.Netrc = nil
	return e
}

// shutdown lets answers end, for a while.
func (s *server) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, srv := range s.servers {
		wg.Go(func() {
			if srv.Shutdown(ctx) != nil {
				srv.Close()
			}
		})
	}
	wg.Wait()
	s.running.Wait()
	if s.socket != "" {
		_ = os.Remove(s.socket)
	}
	return nil
}
