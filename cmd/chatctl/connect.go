package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/reto10/chat/client"
	"github.com/reto10/chat/internal/cli"
)

// options returns the client options of the session, and more, the command's own. It asks
// for the password if it needs one.
func (s *session) options(more ...client.Option) ([]client.Option, error) {
	identity, err := s.identity()
	if err != nil {
		return nil, err
	}
	transport, err := s.transport()
	if err != nil {
		return nil, err
	}
	return append([]client.Option{
		identity,
		client.WithHTTPClient(&http.Client{Transport: transport}),
	}, more...), nil
}

// identity returns the option that authenticates. Each client needs an option of its own.
func (s *session) identity() (client.Option, error) {
	s.warnOfPlainHTTP()
	switch {
	case s.token != "":
		return client.WithToken(s.token), nil
	case s.tokenFile != "":
		if s.first == "" {
			var err error
			if s.first, err = s.readToken(); err != nil {
				return nil, err
			}
		}
		return client.WithTokenSource(tokensOfFile(s)), nil
	case s.user != "":
		if s.asked == "" {
			var err error
			if s.asked, err = s.password(); err != nil {
				return nil, err
			}
		}
		return client.WithLogin(s.user, s.asked), nil
	}
	return nil, cli.Usagef("-user or -token-file is required")
}

// warnOfPlainHTTP warns once if the password or token goes unencrypted to another machine.
func (s *session) warnOfPlainHTTP() {
	if s.warned || s.url.Scheme != "http" || onThisMachine(s.url.Hostname()) {
		return
	}
	s.warned = true
	what := "the token"
	if s.user != "" && s.token == "" && s.tokenFile == "" {
		what = "the password"
	}
	fmt.Fprintf(s.std.err, "%s: warning: %s goes to %s over http://, where others on the network can read it: use https://\n", program, what, s.url.Host)
}

// onThisMachine reports whether a host is this machine by its name or address.
func onThisMachine(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// tokensOfFile returns the token that was first read from -token-file, which may be a pipe,
// and later the file's new token.
func tokensOfFile(s *session) client.TokenSource {
	given := ""
	return client.TokenSourceFunc(func(context.Context) (string, error) {
		if given == "" {
			given = s.first
			return given, nil
		}
		token, err := s.readToken()
		if err != nil {
			return "", explained{err.Error(), err}
		}
		if token == given {
			text := fmt.Sprintf("the token in %s is invalid or about to expire, and the file has no new one yet", s.tokenFile)
			return "", explained{text, nil}
		}
		given = token
		return token, nil
	})
}

// api returns the API for commands that need no socket.
func (s *session) api() (*client.API, error) {
	opts, err := s.options()
	if err != nil {
		return nil, err
	}
	api, err := client.NewAPI(s.url.String(), opts...)
	return api, s.explain(err)
}

// explained is an error whose text speaks of flags and hosts instead of Go.
type explained struct {
	text  string
	cause error
}

func (e explained) Error() string { return e.text }
func (e explained) Unwrap() error { return e.cause }

// explain returns an error that says what went wrong and, if known, what to change.
func (s *session) explain(err error) error {
	if err == nil || errors.As(err, new(cli.UsageError)) {
		return err
	}
	if e, ok := errors.AsType[explained](err); ok {
		return e
	}
	return explained{harmless(s.explanation(err)), err}
}

func (s *session) explanation(err error) string {
	host := s.url.Host
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Sprintf("the certificate of %s is not trusted: %v (-ca names its authority, -insecure trusts any)", host, e.Err)
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Sprintf("%s does not use TLS: is it http:// rather than https://?", host)
	}
	if e, ok := errors.AsType[*client.StatusError](err); ok {
		return s.refusal(e)
	}
	switch {
	case errors.Is(err, client.ErrDisconnected):
		return "disconnected by an admin"
	case errors.Is(err, client.ErrReplaced):
		return "replaced by a newer socket of this user"
	case errors.Is(err, client.ErrUnauthenticated):
		return "the token is invalid or has expired, and there is no other"
	case errors.Is(err, client.ErrUnconfirmed):
		return fmt.Sprintf("no answer from %s: the message may have been stored and is not sent again (%v)", host, deepest(err))
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return fmt.Sprintf("cannot connect to %s: %v", host, e)
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("cannot find %s: %v", host, e)
	}
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer from %s in time", host)
	}
	return strings.NewReplacer("client: ", "", "WithToken: ", "").Replace(err.Error())
}

// refusal explains an HTTP answer that rejects the request.
func (s *session) refusal(e *client.StatusError) string {
	switch {
	case e.Status == http.StatusUnauthorized && s.user != "":
		return fmt.Sprintf("wrong username or password (of %s at %s)", s.user, s.url.Host)
	case e.Status == http.StatusUnauthorized:
		return fmt.Sprintf("%s rejects the token: %s", s.url.Host, e.Detail)
	case e.Status == http.StatusForbidden:
		return "not allowed: " + e.Detail
	case e.Status == http.StatusNotFound && s.user != "":
		return fmt.Sprintf("nothing is at %s, or the service has no login (use -token-file)", s.url)
	case e.Status == http.StatusNotFound:
		return fmt.Sprintf("nothing is at %s: -url is where the service is mounted", s.url)
	case e.RetryAfter > 0:
		return fmt.Sprintf("%s; retry in %v", e.Detail, e.RetryAfter)
	case e.Status == http.StatusBadRequest && e.Detail == "" && s.url.Scheme == "http":
		return fmt.Sprintf("%s answers with 400: is it https:// rather than http://?", s.url.Host)
	case e.Detail != "":
		return e.Detail
	}
	return fmt.Sprintf("%s answers with status %d (%s)", s.url.Host, e.Status, http.StatusText(e.Status))
}

// deepest returns the innermost error of a chain.
func deepest(err error) error {
	for {
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if e.Unwrap() == nil {
				return err
			}
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			all := e.Unwrap()
			if len(all) == 0 {
				return err
			}
			err = all[len(all)-1]
		default:
			return err
		}
	}
}
