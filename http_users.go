package chat

import (
	"net/http"

	"github.com/reto10/chat/internal/wire"
)

// ConnectedHandler serves GET for admins. It answers with the connected users, or with
// those in ?channel=, as {"count","users":[{"username","role","connections","since"}]}.
func (s *Service) ConnectedHandler() http.Handler {
	return s.route(methods{http.MethodGet: s.serveConnected})
}

// DisconnectHandler serves POST for admins: it closes a user's sockets and answers
// {"closed": n}. Mount it with a pattern that contains {username}.
func (s *Service) DisconnectHandler() http.Handler {
	return s.route(methods{http.MethodPost: s.serveDisconnect})
}

func (s *Service) serveConnected(w http.ResponseWriter, r *http.Request) {
	type user struct {
		Username    string `json:"username"`
		Role        string `json:"role"`
		Connections int    `json:"connections"`
		Since       string `json:"since"`
	}
	query, err := readQuery(r, "channel")
	if err == nil {
		_, err = s.authenticateAdmin(r)
	}
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	list, err := s.Connected(r.Context(), query.Get("channel"))
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	users := make([]user, len(list))
	for i, p := range list {
		users[i] = user{p.User.Name, p.User.Role, p.Connections, wire.Time(p.Since)}
	}
	answer(w, http.StatusOK, struct {
		Count int    `json:"count"`
		Users []user `json:"users"`
	}{len(users), users})
}

func (s *Service) serveDisconnect(w http.ResponseWriter, r *http.Request) {
	_, err := readQuery(r)
	if err == nil {
		_, err = s.authenticateAdmin(r)
	}
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	n, err := s.Disconnect(r.Context(), r.PathValue("username"))
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	answer(w, http.StatusOK, struct {
		Closed int `json:"closed"`
	}{n})
}
