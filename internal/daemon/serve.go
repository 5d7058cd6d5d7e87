package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/connlimit"
	"github.com/reto10/chat/web"
)

// errSecondSignal ends the program without waiting for anybody.
var errSecondSignal = errors.New("stopped at once by a second signal")

// serve runs the server that cfg describes, until ctx ends or a signal comes.
func serve(ctx context.Context, prog Program, proc Process, cfg *config) (err error) {
	surviveClosedStderr(proc)
	log := newLogger(proc.Stderr, cfg.logLevel, cfg.logFormat)
	parts, err := assemble(cfg, log)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	end := &ending{signals: signals, log: log}
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
				if bad := closeBackend(backend, end); err == nil {
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
	return s.run(ctx, end)
}

// closeBackend closes what may have to wait for others, unless a signal insists.
func closeBackend(b Backend, end *ending) error {
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	for {
		select {
		case err := <-closed:
			return err
		case sig := <-end.signals:
			if end.insists(sig) {
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
	warnings    []Warning // of the parts and of the backend
	ready       *readiness
	main, debug *http.Server
	limiter     *connlimit.Limiter // of main
	capacity    capacity
	failed      chan error // the first of the listeners to

	listeners []*lastCall // of main
	accepting sync.WaitGroup
	requests  requests // that main answers
}

func newServer(cfg *config, parts *assembly, backend Backend, args []string, log *slog.Logger) (*server, error) {
	client := warnOfProxies(clientAddr(cfg.trustedProxies), cfg.trustedProxies, log)
	capacity := capacityWithin(openFiles(), cfg.waiting)
	opts := append([]chat.Option{
		chat.WithMaxSockets(capacity.sockets),
		chat.WithLogger(log),
		chat.WithOrigins(cfg.origins...),
		chat.WithClientAddr(client),
		chat.WithRequestScheme(requestScheme(cfg.trustedProxies)),
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
		return nil, cfg.byFlag(err)
	}
	s := &server{
		log:      log,
		drain:    cfg.drain,
		service:  service,
		parts:    parts,
		warnings: append(parts.warnings, backend.Warnings...),
		failed:   make(chan error, 1),
	}
	var public http.Handler = service
	if cfg.page {
		public = web.Handler(service)
	}
	s.leaving.delay = cfg.drainDelay
	s.ready = newReadiness(backend.Checks, func() bool { return s.leaving.begun.Load() || service.Draining() }, log)
	h := s.leaving.around(accessLog(routes(public, s.ready.of), log, client))
	if parts.tls != nil && !parts.ownCert && (cfg.hsts > 0 || cfg.given["hsts"] != "") {
		h = strictTransport(h, cfg.hsts, len(cfg.acmeDomains) > 0 || cfg.hsts == 0)
	}
	s.main = hardened(h, log)
	s.capacity, s.limiter = capacity, cfg.limiter(capacity)
	s.limiter.Watch(s.main)
	s.requests.watch(s.main) // beside the limiter
	s.main.TLSConfig = parts.tls
	debug := http.NewServeMux()
	debug.Handle("GET /debug/vars", debugVars(func() any { return service.Stats() }, s.limiter.Refused, args))
	if backend.Debug != nil {
		backend.Debug(service, debug)
	}
	s.debug = hardened(oneAtATime(debug), log)
	return s, nil
}

// byFlag is an error of [chat.New], about the flag where it is about its option:
// who starts a program knows its flags and not the options that they become.
func (c *config) byFlag(err error) error {
	for option, flagName := range map[string]string{
		"WithOrigins":   "origins",
		"WithHeartbeat": "heartbeat",
	} {
		if why, ok := strings.CutPrefix(err.Error(), "chat: "+option+": "); ok {
			return c.mistake(flagName, errors.New(why))
		}
	}
	return err
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
	for _, w := range s.warnings {
		s.log.Warn(w.Msg, w.Args...)
	}
	if s.capacity.sockets < chat.DefaultMaxSockets {
		s.log.Info("the limit of open files bounds the sockets",
			"sockets", s.capacity.sockets, "waiting_connections", s.capacity.waiting, "open_files", openFiles())
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
		return addresses{}, fmt.Errorf("%s: %w", cfg.name("addr"), err)
	}
	var debug []net.Listener
	if cfg.debugAddr != "" {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", cfg.debugAddr)
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
			return addresses{}, fmt.Errorf("%s: %w", cfg.name("debug-addr"), err)
		}
		debug = append(debug, l)
		bound.debug = l.Addr()
	}
	for _, l := range listeners {
		bound.main = append(bound.main, l.Addr())
		last := &lastCall{Listener: l}
		s.listeners = append(s.listeners, last)
		l = s.limiter.Listener(last)
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

// run waits for what ends the server, and ends it.
func (s *server) run(ctx context.Context, end *ending) error {
	for {
		select {
		case sig := <-end.signals:
			if sig == syscall.SIGHUP {
				s.parts.readAgain(s.log)
				continue
			}
			end.begin(sig)
			s.log.Info("draining", "signal", sig.String(), "limit", s.drain)
		case <-ctx.Done():
			end.begin(nil)
			s.log.Info("draining", "limit", s.drain)
		case err := <-s.failed:
			s.stopAtOnce()
			return err
		}
		return s.stop(context.WithoutCancel(ctx), end)
	}
}

// stop drains, unless a signal insists.
func (s *server) stop(ctx context.Context, end *ending) error {
	defer s.ready.stop()
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
		case sig := <-end.signals:
			if !end.insists(sig) {
				continue
			}
			cancel()
			s.stopAtOnce()
			return errSecondSignal
		}
	}
}

// shutDown first serves on while balancers notice that the server leaves. Then it ends
// the sockets, while HTTP still answers: new handshakes with 503, and /readyz with 503.
// Then it ends the listeners, waits for the requests under way, and ends HTTP, for which
// it keeps the last tenth of the time. It cuts what is left when time is up, and returns
// an error.
func (s *server) shutDown(ctx context.Context) error {
	s.leaving.pause(ctx)
	sockets, cancel := context.WithTimeout(ctx, s.drain-s.drain/10)
	defer cancel()
	err := s.service.Shutdown(sockets)
	s.endListeners(ctx)
	s.requests.finish(ctx)
	err = errors.Join(err, s.main.Shutdown(ctx), s.debug.Shutdown(ctx))
	if err != nil {
		s.main.Close()
		s.debug.Close()
		return fmt.Errorf("not drained within %v: %w", s.drain, err)
	}
	return nil
}

// endListeners accepts what waits, and returns when main knows of it. A limiter that is
// full may keep main from accepting: that is not waited for.
func (s *server) endListeners(ctx context.Context) {
	for _, l := range s.listeners {
		l.end()
	}
	accepted := make(chan struct{})
	go func() { // ended by main's Shutdown at the latest
		defer close(accepted)
		s.accepting.Wait()
	}()
	timer := time.NewTimer(firstRequestTime)
	defer timer.Stop()
	select {
	case <-accepted:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// stopAtOnce ends everything without a word to anybody.
func (s *server) stopAtOnce() {
	s.ready.stop()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.service.Shutdown(over) // it cuts all sockets and says that time was up
	s.main.Close()
	s.debug.Close()
}
