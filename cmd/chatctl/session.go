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

	// Limits of files in bytes, so that a mistake such as -token-file /dev/zero ends.
	maxSecretFile = 16 << 10
	maxCAFile     = 4 << 20

	// idleTime is how long an idle connection is kept. It is shorter than that of servers
	// and proxies: a request that they receive while closing is lost.
	idleTime = 30 * time.Second
)

// session holds the flags and variables that say where to connect and as which user.
type session struct {
	std   streams
	given map[string]string // by flag: what set it, such as "-url" or "CHATCTL_URL"

	address      string
	url          *url.URL // the parsed address
	insecure     bool
	ca           string
	user         string
	passwordFile string
	token        string
	tokenFile    string

	asked string // the password, once it was read
	first string // the first token of -token-file, once it was read

	warned bool // warnOfPlainHTTP has warned
}

// shared are the flags of a session. Only these have environment variables.
var shared = []string{"url", "user", "password-file", "token-file", "token", "ca", "insecure"}

// environment gives variables only to the flags of a session: a -channel in the environment
// would be too easy to forget.
var environment cli.Environment = func(flagName string) string {
	if slices.Contains(shared, flagName) {
		return cli.Prefixed("CHATCTL_")(flagName)
	}
	return ""
}

func (s *session) define(flags *flag.FlagSet) {
	// validate checks the address: package flag would repeat it in its error, and it may
	// contain a password.
	flags.StringVar(&s.address, "url", defaultURL,
		"the `address` of the service, with the path where it is mounted")
	flags.StringVar(&s.user, "user", "",
		"log in with this `name`; chatctl asks for the password at the terminal")
	flags.StringVar(&s.passwordFile, "password-file", "",
		"read the password from the first line of this `file`")
	flags.StringVar(&s.tokenFile, "token-file", "",
		"use the token in this `file` instead of logging in; the file is read again when the token expires")
	flags.StringVar(&s.token, "token", "",
		"use this `token`; other users of this machine can read it while the command runs, unlike that of -token-file or CHATCTL_TOKEN")
	flags.StringVar(&s.ca, "ca", "",
		"trust the authorities in this PEM `file`, in addition to the system's")
	flags.BoolVar(&s.insecure, "insecure", false,
		"trust any certificate, such as the one that chatd makes at start; attackers on the network can then read everything")
}

// validate checks the address, and settings that exclude each other.
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

// forget drops the user or token of the environment if the command line has another, or the
// other kind.
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

// has reports whether a setting is set and not empty.
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

// password returns the password for -user, from the file or from the terminal.
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
		return "", cli.Usagef("there is no terminal to ask for the password of %s: use -password-file", s.user)
	case err != nil:
		return "", fmt.Errorf("reading the password: %w", err)
	case password == "":
		return "", errors.New("reading the password: it is empty")
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
		return "", fmt.Errorf("reading the token: %s must contain one token and nothing else", s.tokenFile)
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

// transport returns the transport for all requests. It uses HTTP/1.1, which the WebSocket
// handshake needs, and the proxy of the environment.
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

// parseURL parses the address of a service. Its errors complete "-url is …".
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("no URL such as " + defaultURL) // err would repeat the address
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
