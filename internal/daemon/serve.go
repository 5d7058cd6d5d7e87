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
	"syscall"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/connlimit"
	"github.com/reto10/chat/web"
)

// errSecondSignal means that a second signal ended the program before it had drained.
var errSecondSignal = errors.New("stopped at once by a second signal")

// serve runs the server that cfg describes until ctx ends or a signal comes.
func serve(ctx context.Context, prog Program, proc Process, cfg *config) (err error) {
	surviveClosedStderr(proc)
	log := newLogger(proc.Stderr, cfg.logLevel, cfg.logFormat)
	parts, err := setUp(cfg, log)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	end := &shutdown{signals: signals, log: log}
	var backend Backend
	if prog.Open != nil {
		if backend, err = prog.Open(ctx, cfg.storage, log); err != nil {
			return err
		}
		if backend.Close != nil {
			defer func() {
				if errors.Is(err, errSecondSignal) {
					return
				}
				if closeErr := closeBackend(backend, end); err == nil {
					err = closeErr
				}
			}()
		}
	}
	s, err := newServer(cfg, parts, backend, redactArgs(proc.Args), log)
	if err != nil {
		return err
	}
	proc.Notify(signals, s.handledSignals()...)
	bound, err := s.listen(ctx, cfg)
	if err != nil {
		s.closeNow()
		return err
	}
	s.announce(prog, proc, cfg, bound)
	return s.run(ctx, end)
}

// closeBackend closes b, which may take long, and returns early when a signal forces it.
func closeBackend(b Backend, end *shutdown) error {
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }()
	for {
		select {
		case err := <-closed:
			return err
		case sig := <-end.signals:
			if end.forcedBy(sig) {
				return errSecondSignal
			}
		}
	}
}

// server is a chat service and the two HTTP servers in front of it.
type server struct {
	log        *slog.Logger
	drainTime  time.Duration
	drainDelay time.Duration
	service    *chat.Service
	parts      *components
	warnings   []Warning // of the components and the backend
	ready      *readiness
	main       *drainServer
	debug      *http.Server
	limiter    *connlimit.Limiter // of main
	capacity   capacity
	failed     chan error // has room for one: the first error of a listener
}

func newServer(cfg *config, parts *components, backend Backend, args []string, log *slog.Logger) (*server, error) {
	client := warnOfUntrustedProxy(clientAddr(cfg.trustedProxies), cfg.trustedProxies, log)
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
		return nil, cfg.optionError(err)
	}
	s := &server{
		log:        log,
		drainTime:  cfg.drain,
		drainDelay: cfg.drainDelay,
		service:    service,
		parts:      parts,
		warnings:   append(parts.warnings, backend.Warnings...),
		capacity:   capacity,
		limiter:    cfg.limiter(capacity),
		failed:     make(chan error, 1),
	}
	s.ready = newReadiness(backend.Checks, s.draining, log)
	var h http.Handler = service
	if cfg.page {
		h = web.Handler(service)
	}
	h = accessLog(withHealth(h, s.ready.check), log, client)
	if parts.tls != nil && !parts.selfSigned && (cfg.hsts > 0 || cfg.given["hsts"] != "") {
		h = strictTransport(h, cfg.hsts, len(cfg.acmeDomains) > 0 || cfg.hsts == 0)
	}
	main := newHTTPServer(h, log)
	main.TLSConfig = parts.tls
	s.limiter.Watch(main)
	s.main = newDrainServer(main) // after Watch, which replaces the ConnState
	debug := http.NewServeMux()
	debug.Handle("GET /debug/vars", debugVars(func() any { return service.Stats() }, s.limiter.Refused, args))
	if backend.Debug != nil {
		backend.Debug(service, debug)
	}
	s.debug = newHTTPServer(oneAtATime(debug), log)
	return s, nil
}

// draining reports whether the server is about to end.
func (s *server) draining() bool { return s.main.leaving.Load() || s.service.Draining() }

// optionError returns an error of [chat.New]. Where it names an option, the result names
// the flag that set the option: the person who starts the program knows only flags.
func (c *config) optionError(err error) error {
	for option, flagName := range map[string]string{
		"WithOrigins":   "origins",
		"WithHeartbeat": "heartbeat",
	} {
		if why, ok := strings.CutPrefix(err.Error(), "chat: "+option+": "); ok {
			return c.flagError(flagName, errors.New(why))
		}
	}
	return err
}

// handledSignals are the signals that the server acts on. SIGHUP is one when there are
// files to reload. Otherwise it keeps its default and ends the process, as when a person
// closes the terminal of a server that they tried out.
func (s *server) handledSignals() []os.Signal {
	handled := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if len(s.parts.reloads) > 0 {
		handled = append(handled, syscall.SIGHUP)
	}
	return handled
}

// announce prints the addresses that the server listens on. Scripts parse the last line
// and wait for it: it does not change, and comes when everything runs.
func (s *server) announce(prog Program, proc Process, cfg *config, bound addresses) {
	if s.parts.accounts != nil {
		printBanner(proc.Stdout, prog.Name, baseURL(cfg, bound.main[0]), s.parts.accounts, s.parts.selfSigned, cfg.page)
	}
	if bound.debug != nil {
		fmt.Fprintf(proc.Stderr, "debug vars on http://%s/debug/vars\n", bound.debug)
	}
	for _, w := range s.warnings {
		s.log.Warn(w.Msg, w.Args...)
	}
	if s.capacity.sockets < maxSockets {
		s.log.Info("the limit of open files (ulimit -n, LimitNOFILE) allows fewer sockets than the default",
			"sockets", s.capacity.sockets, "waiting_connections", s.capacity.waiting, "open_files", openFiles())
	}
	for _, also := range bound.main[1:] {
		s.log.Info("also listening", "addr", also)
	}
	fmt.Fprintf(proc.Stderr, "listening on %s://%s\n", cfg.scheme(), bound.main[0])
}

// addresses are those of the listeners, with the ports that the system chose.
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
		s.main.serve(l, s.limiter.Listener, s.served)
	}
	for _, l := range debug {
		go func() { s.served(s.debug.Serve(l)) }()
	}
	return bound, nil
}

// served notes why a listener is no longer served, unless the server was closed.
func (s *server) served(err error) {
	if !errors.Is(err, http.ErrServerClosed) {
		select {
		case s.failed <- fmt.Errorf("serving: %w", err):
		default:
		}
	}
}

// run waits until ctx ends, a signal comes or a listener fails, then ends the server.
func (s *server) run(ctx context.Context, end *shutdown) error {
	for {
		select {
		case sig := <-end.signals:
			if sig == syscall.SIGHUP {
				s.parts.reload(s.log)
				continue
			}
			end.begin(sig)
			s.log.Info("draining", "signal", sig.String(), "limit", s.drainTime)
		case <-ctx.Done():
			end.begin(nil)
			s.log.Info("draining", "limit", s.drainTime)
		case err := <-s.failed:
			s.closeNow()
			return err
		}
		return s.stop(context.WithoutCancel(ctx), end)
	}
}

// stop drains the server. It closes everything at once when a signal forces it.
func (s *server) stop(ctx context.Context, end *shutdown) error {
	defer s.ready.stop()
	ctx, cancel := context.WithTimeout(ctx, s.drainDelay+s.drainTime)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- s.drain(ctx) }()
	for {
		select {
		case err := <-drained:
			if err == nil {
				s.log.Info("drained")
			}
			return err
		case sig := <-end.signals:
			if !end.forcedBy(sig) {
				continue
			}
			cancel()
			s.closeNow()
			return errSecondSignal
		}
	}
}

// drain ends the server in three steps:
//
//  1. For the drain delay it serves as before. /readyz answers 503, so that balancers
//     send no new clients.
//  2. It closes the sockets, in nine tenths of the drain time. HTTP requests are still
//     answered, handshakes and /readyz with 503.
//  3. It closes the listeners and answers the requests under way.
//
// When the time is up, drain cuts the connections that are left and returns an error.
func (s *server) drain(ctx context.Context) error {
	s.main.leave()
	awaitDrainDelay(ctx, s.drainDelay)
	sockets, cancel := context.WithTimeout(ctx, s.drainTime-s.drainTime/10)
	defer cancel()
	err := s.service.Shutdown(sockets)
	err = errors.Join(err, s.main.drain(ctx), s.debug.Shutdown(ctx))
	if err != nil {
		s.main.Close()
		s.debug.Close()
		return fmt.Errorf("-drain %v was too short, open connections were cut: %w", s.drainTime, err)
	}
	return nil
}

// awaitDrainDelay waits for delay or the end of ctx.
func awaitDrainDelay(ctx context.Context, delay time.Duration) {
	if delay == 0 {
		return
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// closeNow closes everything without draining.
func (s *server) closeNow() {
	s.ready.stop()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.service.Shutdown(over) // it cuts all sockets and says that time was up
	s.main.Close()
	s.debug.Close()
}
