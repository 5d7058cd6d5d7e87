package daemon

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/reto10/chat"
)

// assembly is what the configuration names, read and made.
type assembly struct {
	auth     *chat.PasswordLogin
	tls      *tls.Config // nil: plaintext
	accounts []account   // made at start, nil when there is a file
	ownCert  bool        // made at start too
	reload   []reload
	warnings []Warning
}

// Warning is to be logged once the server runs: one that does not start says one
// thing only, which is why.
type Warning struct {
	Msg  string
	Args []any // as of [slog.Logger.Warn]
}

func (a *assembly) warn(msg string, args ...any) {
	a.warnings = append(a.warnings, Warning{msg, args})
}

// reload is something to be read again on SIGHUP. On an error it stays as it was.
type reload struct {
	what string
	read func() error
	file File // whose permissions are looked at each time
}

// add reads something for the first time, and keeps it for SIGHUP.
func (a *assembly) add(r reload) error {
	a.reload = append(a.reload, r)
	if err := r.read(); err != nil {
		return err
	}
	a.warnings = append(a.warnings, r.file.Warnings()...)
	return nil
}

// assemble reads the files of a configuration and makes what it leaves out.
func assemble(cfg *config, log *slog.Logger) (*assembly, error) {
	a := new(assembly)
	if err := a.setUpTLS(cfg, log); err != nil {
		return nil, err
	}
	signer, err := a.newSigner(cfg)
	if err != nil {
		return nil, err
	}
	users, err := a.setUpUsers(cfg)
	if err != nil {
		return nil, err
	}
	a.auth = chat.NewPasswordLogin(users, signer)
	return a, nil
}

func (a *assembly) setUpUsers(cfg *config) (users *chat.Users, err error) {
	if cfg.usersFile == "" {
		a.accounts, users, err = inventAccounts()
		return users, err
	}
	users = new(chat.Users)
	read := func() error { return loadUsers(users, cfg.usersFile) }
	err = a.add(reload{"users", read, File{What: "the users file", Path: cfg.usersFile}})
	return users, cfg.mistake("users", err)
}

func (a *assembly) newSigner(cfg *config) (*chat.HS256, error) {
	ttl := chat.WithTokenTTL(cfg.tokenTTL)
	if cfg.secretFile == "" {
		switch {
		case cfg.storage.Registry != InMemory:
			a.warn("signing with a key made at start: other nodes refuse its tokens", "instead", "-secret-file")
		case cfg.usersFile != "": // else it is for trying out, and the banner says so
			a.warn("signing with a key made at start: tokens end with this process", "instead", "-secret-file")
		}
		return chat.NewHS256(inventSecret(), ttl)
	}
	secret, err := readSecret(cfg.secretFile)
	if err != nil {
		return nil, cfg.mistake("secret-file", err)
	}
	signer, err := chat.NewHS256(secret, ttl)
	if err != nil {
		return nil, cfg.mistake("secret-file", fmt.Errorf("using the secret in %s: %w", cfg.secretFile, err))
	}
	a.warnings = append(a.warnings, File{"the secret", cfg.secretFile, true}.Warnings()...)
	return signer, nil
}

func (a *assembly) setUpTLS(cfg *config, log *slog.Logger) error {
	switch {
	case cfg.plaintext:
		return nil
	case len(cfg.acmeDomains) > 0:
		if host, _, _ := net.SplitHostPort(cfg.addr); host == "localhost" {
			a.warn("listening on localhost only: to give a certificate, Let's Encrypt has to get here", "instead", "-addr :443")
		}
		var err error
		var cache string
		a.tls, cache, err = acmeConfig(cfg.acmeDomains, cfg.acmeCache, log)
		if err != nil {
			return cfg.mistake("acme-cache", err)
		}
		a.warnings = append(a.warnings, File{What: "the directory of certificates and keys", Path: cache}.Warnings()...)
		return nil
	case cfg.tlsCert != "":
		pair := &keyPair{certFile: cfg.tlsCert, keyFile: cfg.tlsKey}
		read := func() error {
			if err := pair.load(); err != nil {
				return err
			}
			if pair.expired(time.Now()) {
				log.Warn("the certificate has expired", "file", cfg.tlsCert)
			}
			return nil
		}
		if err := a.add(reload{"certificate", read, File{"the TLS key", cfg.tlsKey, true}}); err != nil {
			return cfg.mistake("tls-cert", err)
		}
		a.tls = tlsConfig(pair.get)
		return nil
	default:
		host, _, _ := net.SplitHostPort(cfg.addr)
		cert, err := selfSigned(host, time.Now())
		if err != nil {
			return cfg.mistake("addr", err)
		}
		if cfg.usersFile != "" {
			a.warn("serving a certificate made at start: nobody has reason to trust it",
				"until", cert.Leaf.NotAfter.Format(time.DateOnly), "instead", "-tls-cert")
		}
		a.ownCert = true
		a.tls = tlsConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil })
		return nil
	}
}

// readAgain does on SIGHUP what there is to do, each for itself.
func (a *assembly) readAgain(log *slog.Logger) {
	for _, r := range a.reload {
		if err := r.read(); err != nil {
			log.Error("reading again failed, what was there stays", "what", r.what, "err", err)
			continue
		}
		log.Info("read again", "what", r.what)
		for _, w := range r.file.Warnings() {
			log.Warn(w.Msg, w.Args...)
		}
	}
}
