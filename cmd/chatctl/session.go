package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/cli"
	"github.com/reto10/chat/internal/terminal"
)

const (
	defaultURL = "https://localhost:8443"

	// What is read of files, so that a slip such as -token-file /dev/zero ends.
	maxSecretFile = 16 << 10
	maxCAFile     = 4 << 20

	// idleTime is how long a connection is kept for the next request: less than
	// servers and proxies do, since one that is sent as they close it is lost.
	idleTime = 30 * time.Second
)

// session is what flags and environment say about where to connect and as whom.
type session struct {
	std   streams
	given map[string]string // by flag: "-url" or "CHATCTL_URL", whichever set it

	address      string
	url          *url.URL // address, once that is known to be one
	insecure     bool
	ca           string
	user         string
	passwordFile string
	token        string
	tokenFile    string

	asked string // the password, once it was read
	first string // the token that -token-file held at first, likewise

	warned bool // of plain HTTP
}

// shared are the flags of a session, all that have an environment variable.
var shared = []string{"url", "user", "password-file", "token-file", "token", "ca", "insecure"}

// environment has variables for the flags of a session alone: a -channel in the
// environment would be one too easily forgotten.
var environment cli.Environment = func(flagName string) string {
	if slices.Contains(shared, flagName) {
		return cli.Prefixed("CHATCTL_")(flagName)
	}
	return ""
}

func (s *session) define(flags *flag.FlagSet) {
	// Whatever is wrong with it is found later: package flag would repeat it in its
	// error, and there may be a password in it.
	flags.StringVar(&s.address, "url", defaultURL,
		"the service's `address`, with the path that it is mounted at")
	flags.StringVar(&s.user, "user", "",
		"log in with this `name`; the password is asked for at the terminal")
	flags.StringVar(&s.passwordFile, "password-file", "",
		"take the password from the first line of this `file`")
	flags.StringVar(&s.tokenFile, "token-file", "",
		"instead of logging in, use the token in this `file`, which is read again when the token expires")
	flags.StringVar(&s.token, "token", "",
		"use this `token`; others on this machine can read it while the command runs, unlike those of -token-file and CHATCTL_TOKEN")
	flags.StringVar(&s.ca, "ca", "",
		"trust the authorities in this PEM `file`, beside those of the system")
	flags.BoolVar(&s.insecure, "insecure", false,
		"trust any certificate, such as the one that chatd makes at start; whoever is on the way can read all")
}

// validate finds settings that hold each alone but not together.
func (s *session) validate() (err error) {
	if s.url, err = parseURL(s.address); err != nil {
		return cli.Usagef("%s is %w", s.given["url"], err)
	}
	s.forget()
	for _, pair := range [][2]string{
		{"token", "token-file"},
		{"token", "user"},
		{"token-file", "user"},
		{"insecure", "ca"},
	} {
		if s.has(pair[0]) && s.has(pair[1]) {
			return cli.Usagef("%s and %s exclude each other", s.given[pair[0]], s.given[pair[1]])
		}
	}
	if s.has("password-file") && !s.has("user") {
		return cli.Usagef("%s needs -user", s.given["password-file"])
	}
	if s.user != "" && !chat.ValidUsername(s.user) {
		return cli.Usagef("%s: %q cannot be a user's name", s.given["user"], s.user)
	}
	return nil
}

// forget drops who the environment says one is where the command line says
// somebody else, or in another way.
func (s *session) forget() {
	byFlag := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return s.given[name] == "-"+name })
	}
	login, token := []string{"user", "password-file"}, []string{"token", "token-file"}
	if byFlag(token...) && !byFlag(login...) {
		s.user, s.passwordFile = "", ""
	}
	if byFlag(login...) && !byFlag(token...) {
		s.token, s.tokenFile = "", ""
	}
	switch {
	case byFlag("token") && !byFlag("token-file"):
		s.tokenFile = ""
	case byFlag("token-file") && !byFlag("token"):
		s.token = ""
	}
}

// has reports whether a setting says something: -user "" does not.
func (s *session) has(name string) bool {
	switch name {
	case "token":
		return s.token != ""
	case "token-file":
		return s.tokenFile != ""
	case "user":
		return s.user != ""
	case "password-file":
		return s.passwordFile != ""
	case "ca":
		return s.ca != ""
	case "insecure":
		return s.insecure
	}
	panic("chatctl: has: " + name)
}

// password is the one for -user, asked for where no file has it.
func (s *session) password() (string, error) {
	if s.passwordFile != "" {
		text, err := readSecret(s.passwordFile)
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		line, _, _ := strings.Cut(text, "\n")
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			return "", fmt.Errorf("reading the password: the first line of %s is empty", s.passwordFile)
		}
		return line, nil
	}
	password, err := terminal.ReadPassword(fmt.Sprintf("password of %s at %s: ", s.user, s.url.Host))
	switch {
	case errors.Is(err, terminal.ErrNone):
		return "", cli.Usagef("no terminal to ask for the password of %s at: -password-file names a file that has it", s.user)
	case err != nil:
		return "", fmt.Errorf("reading the password: %w", err)
	case password == "":
		return "", errors.New("reading the password: none was typed")
	}
	return password, nil
}

// readToken reads -token-file.
func (s *session) readToken() (string, error) {
	text, err := readSecret(s.tokenFile)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(text)
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", fmt.Errorf("reading the token: %s does not hold one, and nothing else", s.tokenFile)
	}
	return token, nil
}

// readSecret reads a small file.
func readSecret(path string) (string, error) { return readFile(path, maxSecretFile) }

func readFile(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return "", err
	}
	if int64(len(text)) > limit {
		return "", fmt.Errorf("%s is over %d bytes", path, limit)
	}
	return string(text), nil
}

// transport is how to get to the service. It speaks HTTP/1.1, as the upgrade to a
// WebSocket does, and goes by the system's proxy.
func (s *session) transport() (*http.Transport, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.insecure}
	if s.ca != "" {
		text, err := readFile(s.ca, maxCAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the authorities of %s: %w", s.given["ca"], err)
		}
		if trust.RootCAs, err = x509.SystemCertPool(); err != nil {
			trust.RootCAs = x509.NewCertPool()
		}
		if !trust.RootCAs.AppendCertsFromPEM([]byte(text)) {
			return nil, fmt.Errorf("reading the authorities of %s: no certificate in %s", s.given["ca"], s.ca)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = trust
	transport.IdleConnTimeout = idleTime
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	return transport, nil
}

// parseURL reads a service's address.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("no URL such as " + defaultURL) // err would repeat it
	case u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "":
		return nil, errors.New("not https:// or http:// and a host")
	case cmp.Or(u.Hostname(), u.Host) == "":
		return nil, errors.New("without a host")
	case u.User != nil:
		return nil, errors.New("with a user in it: there is -user for that")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("with more than a path behind the host")
	}
	return u, nil
}
