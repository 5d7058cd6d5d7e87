package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// Timeout bounds one fetch from its first to its last byte.
	Timeout = 5 * time.Second
	// maxBody is the size in bytes of the largest key set that is read.
	maxBody = 1 << 20
	// maxRedirects is how many hops a fetch may take.
	maxRedirects = 5
)

// fetch fetches the keys once. The error names the address.
func (s *Set) fetch(ctx context.Context) (_ *keys, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("key set %s: %w", redacted(s.url), err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	request.Close = true // no idle connection: the next fetch is minutes away
	response, err := s.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %s", response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	if len(body) > maxBody {
		return nil, fmt.Errorf("larger than %d bytes", maxBody)
	}
	return parseKeys(body)
}

// guarded returns a copy of client, or of a plain one if it is nil, that follows
// redirects to safe addresses only.
func guarded(client *http.Client) *http.Client {
	if client == nil {
		client = &http.Client{}
	}
	careful := *client
	before := client.CheckRedirect
	careful.CheckRedirect = func(request *http.Request, via []*http.Request) error {
		if err := safe(request.URL); err != nil {
			return err
		}
		if before != nil {
			return before(request, via)
		}
		if len(via) > maxRedirects {
			return errors.New("too many redirects")
		}
		return nil
	}
	return &careful
}

// safe returns an error if an attacker on the network could replace the keys that come
// from u.
func safe(u *url.URL) error {
	switch host := u.Hostname(); {
	case host == "":
		return fmt.Errorf("%w: no absolute URL", ErrAddress)
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return fmt.Errorf("%w: neither https nor http", ErrAddress)
	case host == "localhost" || net.ParseIP(host).IsLoopback():
		return nil
	}
	return fmt.Errorf("%w: plain http, and not a loopback host", ErrAddress)
}

// redacted returns an address without the password that it may contain.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}
