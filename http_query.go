package chat

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// readQuery parses a request's query. It rejects a query that [url.URL.Query] would parse
// in part, because the rest would be another request. The parameters in once, and token,
// may appear only once: two programs on the way could use different values. Unknown
// parameters are ignored. The errors wrap ErrInvalid and repeat nothing of the query,
// which may contain a token.
func readQuery(r *http.Request, once ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrapf(ErrInvalid, "the query is malformed: in a name or a value, write ; as %%3B and %% as %%25")
	}
	for _, name := range append(once, "token") {
		if len(query[name]) > 1 {
			return nil, wrapf(ErrInvalid, "the query has more than one %s", name)
		}
	}
	return query, nil
}

// bearerToken returns a request's token: from the Authorization header (RFC 6750), else
// from the offered subprotocols, else from the query; "" if there is none.
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

// requestedChannels reads the channels (?channel=) and the ids to resume from (?since=).
// An invalid id, or one of another channel, counts as unknown: the socket is not
// recovered.
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
		channels = append(channels, strings.Clone(channel)) // a substring would keep the whole request in memory
	}
	if len(query["since"]) > 0 {
		resume.from = make(map[string]Position)
	}
	for _, id := range query["since"] {
		channel, position, err := ParseID(id)
		if err != nil || channel != "" && channel != UserChannel(who.User.Name) && !slices.Contains(channels, channel) {
			resume.unknown = true
			continue
		}
		resume.from[channel] = position
	}
	return channels, resume, nil
}
