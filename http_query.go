package chat

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// readQuery reads a request's query. [url.URL.Query] leaves out what it cannot read,
// and the rest would be another request. A parameter of which there is to be one must
// not come twice: two programs on the way may each take another one. Unknown
// parameters are passed over. The errors wrap ErrInvalid and repeat nothing, since
// there may be a token in the query.
func readQuery(r *http.Request, once ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrapf(ErrInvalid, "the query cannot be read; in a name or a value ; is %%3B and %% is %%25")
	}
	for _, name := range append(once, "token") {
		if len(query[name]) > 1 {
			return nil, wrapf(ErrInvalid, "the query has more than one %s", name)
		}
	}
	return query, nil
}

// bearerToken finds a request's token: in the Authorization header (RFC 6750),
// else among the offered subprotocols, else in the query; "" when there is none.
func bearerToken(r *http.Request) string {
	for _, line := range r.Header.Values("Authorization") {
		if scheme, token, ok := strings.Cut(line, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
	}
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for offered := range strings.SplitSeq(line, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(offered), "bearer."); ok {
				return token
			}
		}
	}
	return r.URL.Query().Get("token")
}

// requestedChannels reads ?channel= and ?since=. An id that names no place in one
// of the socket's channels is one that is not known any more.
func (s *Service) requestedChannels(ctx context.Context, query url.Values, who Identity) (channels []string, resume resumption, err error) {
	for _, channel := range query["channel"] {
		if channel == "" || channel == UserChannel(who.User.Name) || slices.Contains(channels, channel) {
			continue
		}
		if len(channels) == s.cfg.channelsPerSocket {
			return nil, resume, wrapf(ErrInvalid, "a socket joins at most %d channels", s.cfg.channelsPerSocket)
		}
		if err := s.mayJoin(ctx, who, channel); err != nil {
			return nil, resume, err
		}
		channels = append(channels, strings.Clone(channel)) // it would keep the whole request
	}
	if len(query["since"]) > 0 {
		resume.from = make(map[string]Position)
	}
	for _, id := range query["since"] {
		channel, place, err := ParseID(id)
		if err != nil || channel != "" && channel != UserChannel(who.User.Name) && !slices.Contains(channels, channel) {
			resume.unknown = true
			continue
		}
		resume.from[channel] = place
	}
	return channels, resume, nil
}
