package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SecretVariable is the environment variable with the secret for tokens, in hex.
const SecretVariable = "BENCH_SECRET"

// Ready is the line that a server prints when it listens.
type Ready struct {
	Sockets string `json:"sockets"` // address of the server under comparison
	Control string `json:"control"` // address of the control requests
}

// Constructor makes a server of a kind.
type Constructor func(kind string, s Settings) (Peer, error)

// Main is a server's program: it serves one of the kinds, by default the first, on loopback
// until its standard input ends, so that it ends with the process that started it. It exits
// with 1 on an error.
func Main(create Constructor, kinds ...string) {
	err := serve(os.Args[1:], os.Stdin, os.Stdout, create, kinds)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", kinds[0], err)
		os.Exit(1)
	}
}

func serve(args []string, in io.Reader, out io.Writer, create Constructor, kinds []string) error {
	// Before any allocation that would be sampled: the samples use the process's memory, more
	// with more places that allocate.
	sampling := runtime.MemProfileRate
	runtime.MemProfileRate = 0
	flags := flag.NewFlagSet(kinds[0], flag.ContinueOnError)
	kind := flags.String("kind", kinds[0], "one of "+strings.Join(kinds, ", "))
	profile := flags.Bool("profile", false, "sample allocations for /debug/pprof/heap and allocs, which costs memory")
	core := flags.Int("core", -1, "pin to this core")
	sendBuffer := flags.Int("sndbuf", 0, "bytes of the sockets' send buffers, 0: the kernel's choice")
	var s Settings
	flags.BoolVar(&s.TLS, "tls", false, "serve TLS")
	flags.IntVar(&s.Backlog, "backlog", 0, "bytes that may wait for a slow socket, 0: the default")
	flags.DurationVar(&s.Heartbeat, "heartbeat", 0, "between signs of life, 0: the default")
	flags.BoolVar(&s.Direct, "direct", false, "find sockets by their user, for /publish?users=")
	flags.BoolVar(&s.History, "history", false, "keep 1,000 messages a channel, if that is not the default")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *profile {
		runtime.MemProfileRate = sampling
	}
	if !slices.Contains(kinds, *kind) {
		return fmt.Errorf("-kind: unknown server %q, not one of %s", *kind, strings.Join(kinds, ", "))
	}
	if *core >= 0 {
		if err := Pin(*core); err != nil {
			return err
		}
	}
	var err error
	if s.Secret, err = hex.DecodeString(os.Getenv(SecretVariable)); err != nil {
		return fmt.Errorf("%s: %w", SecretVariable, err)
	}
	p, err := create(*kind, s)
	if err != nil {
		return err
	}
	sockets, err := listen(*sendBuffer)
	if err != nil {
		return err
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0)
	failed := make(chan error, 3)
	server := &http.Server{Handler: p, ErrorLog: quiet}
	if s.TLS {
		cert, err := selfSigned()
		if err != nil {
			return err
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		server.Protocols = new(http.Protocols)
		server.Protocols.SetHTTP1(true)
		go func() { failed <- server.ServeTLS(sockets, "", "") }()
	} else {
		go func() { failed <- server.Serve(sockets) }()
	}
	go func() {
		failed <- (&http.Server{Handler: newControl(p), ErrorLog: quiet}).Serve(control)
	}()
	go func() {
		_, err := io.Copy(io.Discard, in)
		failed <- err
	}()
	err = json.NewEncoder(out).Encode(Ready{sockets.Addr().String(), control.Addr().String()})
	if err != nil {
		return err
	}
	return <-failed
}

// listen opens the port for the sockets. Those accepted inherit its send buffer.
func listen(sendBuffer int) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		if sendBuffer == 0 {
			return nil
		}
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
		}), err)
	}}
	return config.Listen(context.Background(), "tcp", "127.0.0.1:0")
}

// selfSigned makes a certificate that is valid for a run.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Pin keeps every thread of this process, and those that they start, on one core.
func Pin(core int) error {
	var set unix.CPUSet
	set.Set(core)
	for pinned := map[string]bool{}; ; {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		more := false
		for _, t := range threads {
			var id int
			if _, err := fmt.Sscan(t.Name(), &id); err != nil || pinned[t.Name()] {
				continue
			}
			more = true
			pinned[t.Name()] = true
			if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("pinning to core %d: %w", core, err)
			}
		}
		if !more {
			return nil
		}
	}
}
