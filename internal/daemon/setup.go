package daemon

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/reto10/chat"
)

// components are what the configuration names, read from its files or made at start.
type components struct {
	auth       *chat.PasswordLogin
	tls        *tls.Config // nil with -plaintext
	accounts   []account   // made at start; nil with -users
	selfSigned bool        // the certificate was made at start
	reloads    []reloadable
	warnings   []Warning
}

// Warning is a log line for when the server runs. A server that does not start logs its
// error only.
type Warning struct {
	Msg  string
	Args []any // as for [slog.Logger.Warn]
}

func (c *components) warn(msg string, args ...any) {
	c.warnings = append(c.warnings, Warning{msg, args})
}

// reloadable is a file, or several, to read again on SIGHUP. If read returns an error,
// the previous content stays in use.
type reloadable struct {
	what string
	read func() error
	file File // its permissions are checked at each reload
}

// add reads something for the first time, and registers it for SIGHUP.
func (c *components) add(r reloadable) error {
	c.reloads = append(c.reloads, r)
	if err := r.read(); err != nil {
		return err
	}
	c.warnings = append(c.warnings, r.file.Warnings()...)
	return nil
}

// setUp reads the files that cfg names, and makes users, key and certificate where it
// names none. It does not touch the network.
func setUp(cfg *config, log *slog.Logger) (*components, error) {
	c := new(components)
	if err := c.setUpTLS(cfg, log); err != nil {
		return nil, err
	}
	signer, err := c.newSigner(cfg)
	if err != nil {
		return nil, err
	}
	users, err := c.setUpUsers(cfg)
	if err != nil {
		return nil, err
	}
	c.auth = chat.NewPasswordLogin(users, signer)
	return c, nil
}

func (c *components) setUpUsers(cfg *config) (users *chat.Users, err error) {
	if cfg.usersFile == "" {
		c.accounts, users, err = makeAccounts()
		return users, err
	}
	users = new(chat.Users)
	read := func() error { return loadUsers(users, cfg.usersFile) }
	err = c.add(reloadable{"users", read, File{What: "the users file", Path: cfg.usersFile}})
	return users, cfg.flagError("users", err)
}

func (c *components) newSigner(cfg *config) (*chat.HS256, error) {
	ttl := chat.WithTokenTTL(cfg.tokenTTL)
	if cfg.secretFile == "" {
		switch {
		case cfg.storage.Registry != InMemory:
			c.warn("no -secret-file is given: tokens are signed with a key made at start, and other nodes refuse them", "instead", "-secret-file")
		case cfg.usersFile != "": // without it the banner says the same
			c.warn("no -secret-file is given: tokens are signed with a key made at start, and end with this process", "instead", "-secret-file")
		}
		return chat.NewHS256(makeSecret(), ttl)
	}
	secret, err := readSecret(cfg.secretFile)
	if err != nil {
		return nil, cfg.flagError("secret-file", err)
	}
	signer, err := chat.NewHS256(secret, ttl)
	if err != nil {
		return nil, cfg.flagError("secret-file", fmt.Errorf("using %s as the secret: %w", cfg.secretFile, err))
	}
	c.warnings = append(c.warnings, File{"the secret", cfg.secretFile, true}.Warnings()...)
	return signer, nil
}

func (c *components) setUpTLS(cfg *config, log *slog.Logger) error {
	switch {
	case cfg.plaintext:
		return nil
	case len(cfg.acmeDomains) > 0:
		if host, _, _ := net.SplitHostPort(cfg.addr); host == "localhost" {
			c.warn("-addr is on localhost: to issue a certificate, Let's Encrypt must reach this server", "instead", "-addr :443")
		}
		var err error
		var cache string
		c.tls, cache, err = acmeConfig(cfg.acmeDomains, cfg.acmeCache, log)
		if err != nil {
			return cfg.flagError("acme-cache", err)
		}
		c.warnings = append(c.warnings, File{What: "the directory of certificates and keys", Path: cache}.Warnings()...)
		return nil
	case cfg.tlsCert != "":
		pair := &keyPair{certFile: cfg.tlsCert, keyFile: cfg.tlsKey}
		read := func() error {
			if err := pair.load(); err != nil {
				return err
			}
			if pair.expired(time.Now()) {
				log.Warn("the certificate of -tls-cert has expired", "file", cfg.tlsCert)
			}
			return nil
		}
		if err := c.add(reloadable{"certificate", read, File{"the TLS key", cfg.tlsKey, true}}); err != nil {
			return cfg.flagError("tls-cert", err)
		}
		c.tls = tlsConfig(pair.get)
		return nil
	default:
		host, _, _ := net.SplitHostPort(cfg.addr)
		cert, err := selfSigned(host, time.Now())
		if err != nil {
			return cfg.flagError("addr", err)
		}
		if cfg.usersFile != "" {
			c.warn("no -tls-cert is given: clients cannot trust the certificate made at start",
				"until", cert.Leaf.NotAfter.Format(time.DateOnly), "instead", "-tls-cert")
		}
		c.selfSigned = true
		c.tls = tlsConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil })
		return nil
	}
}

// reload reads all files again. One that fails does not keep the others from it.
func (c *components) reload(log *slog.Logger) {
	for _, r := range c.reloads {
		if err := r.read(); err != nil {
			log.Error("reloading failed: the previous content stays in use", "what", r.what, "err", err)
			continue
		}
		log.Info("reloaded", "what", r.what)
		for _, w := range r.file.Warnings() {
			log.Warn(w.Msg, w.Args...)
		}
	}
}
