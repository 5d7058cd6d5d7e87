package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/web"
)

// readyWithin bounds a backend's answer to whether it is ready.
const readyWithin = 2 * time.Second

var (
	errSecondSignal = errors.New("stopped at once by a second signal")
	errDraining     = notReady{reason: "draining"}
)

// serve runs the server that cfg describes, until ctx ends or a signal comes.
func serve(ctx context.Context, prog Program, proc Process, cfg *config) (err error) {
	log := newLogger(proc.Stderr, cfg.logLevel, cfg.logFormat)
	parts, err := assemble(cfg, log)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	var backend Backend
	if prog.Open != nil {
		if backend, err = prog.Open(ctx, cfg.storage, log); err != nil {
			return err
		}
		if backend.Close != nil {
			defer func() {
				if errors.Is(err, errSecondSignal) {
					return // at once is at once
				}
				if bad := closeBackend(backend, signals); err == nil {
					err = bad
				}
			}()
		}
	}
	s, err := newServer(cfg, parts, backend, hideStorage(proc.Args), log)
	if err != nil {
		return err
	}
	proc.Notify(signals, s.watched()...)
	bound, err := s.listen(ctx, cfg)
	if err != nil {
		s.stopAtOnce()
		return err
	}
	s.announce(prog, proc, cfg, bound)
	return s.run(ctx, signals)
}

// closeBackend closes what may have to wait for others, unless a second signal is
// faster.
func closeBackend(b Backend, signals <-chan os.Signal) error {
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	for {
		select {
		case err := <-closed:
			return err
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				return errSecondSignal
			}
		}
	}
}

// server is what runs: a service and the two HTTP servers in front of it.
type server struct {
	log         *slog.Logger
	drain       time.Duration
	leaving     leaving
	service     *chat.Service
	parts       *assembly
	checks      []Check
	main, debug *http.Server
	failed      chan error // the first of the listeners to

	listeners []*lastCall // of main
	accepting sync.WaitGroup
	requests  requests // that main answers
}

func newServer(cfg *config, parts *assembly, backend Backend, args []string, log *slog.Logger) (*server, error) {
	client := clientAddr(cfg.trustedProxies)
	opts := append([]chat.Option{
		chat.WithLogger(log),
		chat.WithOrigins(cfg.origins...),
		chat.WithClientAddr(client),
		chat.WithHeartbeat(cfg.heartbeat),
	}, backend.Options...)
	if cfg.pings {
		opts = append(opts, chat.WithPings())
	}
	if history := cfg.storage.option(); history != nil {
		opts = append(opts, history)
	}
	service, err := chat.New(parts.auth, opts...)
	if err != nil {
		return nil, err
	}
	s := &server{
		log:     log,
		drain:   cfg.drain,
		service: service,
		parts:   parts,
		checks:  backend.Checks,
		failed:  make(chan error, 1),
	}
	var public http.Handler = service
	if cfg.page {
		public = web.Handler(service)
	}
	s.leaving.delay = cfg.drainDelay
	s.main = hardened(s.leaving.around(accessLog(routes(public, s.ready), log, client)), log)
	s.requests.watch(s.main)
	s.main.TLSConfig = parts.tls
	debug := http.NewServeMux()
	debug.Handle("GET /debug/vars", debugVars(func() any { return service.Stats() }, args))
	if backend.Debug != nil {
		backend.Debug(service, debug)
	}
	s.debug = hardened(debug, log)
	return s, nil
}

// watched are the signals that mean something. SIGHUP is one when there is
// something to read again; else it ends the process, as it does when the terminal
// that it was tried in closes.
func (s *server) watched() []os.Signal {
	watched := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if len(s.parts.reload) > 0 {
		watched = append(watched, syscall.SIGHUP)
	}
	return watched
}

// announce says where the server is to be found. Its last line is stable, and
// whoever reads it finds everything in place.
func (s *server) announce(prog Program, proc Process, cfg *config, bound addresses) {
	if s.parts.accounts != nil {
		printBanner(proc.Stdout, prog.Name, baseURL(cfg, bound.main[0]), s.parts.accounts, s.parts.ownCert, cfg.page)
	}
	if bound.debug != nil {
		fmt.Fprintf(proc.Stderr, "debug vars on http://%s/debug/vars\n", bound.debug)
	}
	for _, w := range s.parts.warnings {
		s.log.Warn(w.msg, w.args...)
	}
	for _, also := range bound.main[1:] {
		s.log.Info("listening too", "addr", also)
	}
	fmt.Fprintf(proc.Stderr, "listening on %s://%s\n", cfg.scheme(), bound.main[0])
}

// addresses are those that the listeners came to have.
type addresses struct {
	main  []net.Addr
	debug net.Addr
}

// listen binds all addresses, then serves on them.
func (s *server) listen(ctx context.Context, cfg *config) (bound addresses, err error) {
	listeners, err := listen(ctx, cfg.addr)
	if err != nil {
		return addresses{}, err
	}
	var debug []net.Listener
	if cfg.debugAddr != "" {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", cfg.debugAddr)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return addresses{}, fmt.Errorf("debug address: %w", err)
		}
		debug = append(debug, l)
		bound.debug = l.Addr()
	}
	for _, l := range listeners {
		bound.main = append(bound.main, l.Addr())
		last := &lastCall{Listener: l}
		s.listeners = append(s.listeners, last)
		l = last
		if s.parts.tls != nil {
			s.accepting.Go(func() { s.serve(func() error { return s.main.ServeTLS(l, "", "") }) })
		} else {
			s.accepting.Go(func() { s.serve(func() error { return s.main.Serve(l) }) })
		}
	}
	for _, l := range debug {
		go s.serve(func() error { return s.debug.Serve(l) })
	}
	return bound, nil
}

func (s *server) serve(fn func() error) {
	if err := fn(); !errors.Is(err, http.ErrServerClosed) {
		select {
		case s.failed <- fmt.Errorf("serving: %w", err):
		default:
		}
	}
}

// notReady is why no new clients should come.
type notReady struct {
	reason string // for anybody
	err    error  // for the log
}

func (n notReady) Error() string {
	if n.err == nil {
		return n.reason
	}
	return n.reason + ": " + n.err.Error()
}

func (n notReady) Unwrap() error { return n.err }

// ready says why no new clients should come, or nil. All parts are asked at once;
// that one does not answer in time is an answer.
func (s *server) ready(r *http.Request) error {
	if s.leaving.begun.Load() || s.service.Draining() {
		return errDraining
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyWithin)
	defer cancel()
	answers := make([]chan error, len(s.checks))
	for i, c := range s.checks {
		answers[i] = make(chan error, 1)
		go func() { answers[i] <- c.Ask(ctx) }()
	}
	for i, c := range s.checks {
		var err error
		select {
		case err = <-answers[i]:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			err = notReady{c.Part, err}
			s.log.Warn("not ready", "err", err)
			return err
		}
	}
	return nil
}

// run waits for what ends the server, and ends it.
func (s *server) run(ctx context.Context, signals <-chan os.Signal) error {
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				s.parts.readAgain(s.log)
				continue
			}
			s.log.Info("draining", "signal", sig.String(), "limit", s.drain)
		case <-ctx.Done():
			s.log.Info("draining", "limit", s.drain)
		case err := <-s.failed:
			s.stopAtOnce()
			return err
		}
		return s.stop(context.WithoutCancel(ctx), signals)
	}
}

// stop drains, unless a second signal is faster.
func (s *server) stop(ctx context.Context, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeout(ctx, s.leaving.delay+s.drain)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- s.shutDown(ctx) }()
	for {
		select {
		case err := <-drained:
			if err == nil {
				s.log.Info("drained")
			}
			return err
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				continue
			}
			cancel()
			s.stopAtOnce()
			return errSecondSignal
		}
	}
}

// shutDown waits for those who send clients here to look elsewhere. Then it ends the sockets first, while HTTP still answers: 503 to who comes
// now, and red to who asks whether it should. HTTP has the last tenth of the time
// for itself. Whatever is left when time is up is cut off, and that is an error.
func (s *server) shutDown(ctx context.Context) error {
	s.leaving.pause(ctx)
	sockets, cancel := context.WithTimeout(ctx, s.drain-s.drain/10)
	defer cancel()
	err := s.service.Shutdown(sockets)
	for _, l := range s.listeners {
		l.end()
	}
	s.accepting.Wait() // main knows all that were accepted
	s.requests.finish(ctx)
	err = errors.Join(err, s.main.Shutdown(ctx), s.debug.Shutdown(ctx))
	if err != nil {
		s.main.Close()
		s.debug.Close()
		return fmt.Errorf("not drained within %v: %w", s.drain, err)
	}
	return nil
}

// stopAtOnce ends everything without a word to anybody.
func (s *server) stopAtOnce() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	s.service.Shutdown(over)
	s.main.Close()
	s.debug.Close()
}
