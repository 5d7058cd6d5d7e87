package chat

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/reto10/chat/internal/admission"
	"github.com/reto10/chat/internal/jsonobject"
	"github.com/reto10/chat/internal/lazyctx"
)

const (
	// pagesOfUser is how many pages of the history are sent to one user at once, and
	// pagesInAll to all users. A page takes memory for readBytes and one message. Its
	// client may take [WithStallTimeout] for each step of it.
	pagesOfUser = 4
	pagesInAll  = 2048
	// pagesWaiting is how many further requests wait, pagesWaitingOf how many of one user,
	// and pagesWait how long.
	pagesWaiting   = 2048
	pagesWaitingOf = 28
	pagesWait      = 2 * time.Second
)

func newPageTurns() *admission.Gate {
	return admission.New(admission.Limits{
		Inside: pagesInAll, InsideOf: pagesOfUser,
		Waiting: pagesWaiting, WaitingOf: pagesWaitingOf, Wait: pagesWait,
	}, nil)
}

// MessagesHandler serves GET, a page of a channel's history: {"messages","more"}, and
// "gap" if messages are missing. It serves POST, which publishes {"content","channel"} as
// the token's user and answers with the message.
func (s *Service) MessagesHandler() http.Handler {
	m := methods{http.MethodGet: s.serveHistory, http.MethodPost: s.servePublish}
	if s.cfg.noHistory {
		delete(m, http.MethodGet)
	}
	return s.route(m)
}

func (s *Service) serveHistory(w http.ResponseWriter, r *http.Request) {
	query, err := readQuery(r, "channel", "after", "before", "limit")
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	who, err := s.authenticate(r)
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	q, err := parseHistoryQuery(query)
	if err == nil {
		err = s.mayJoin(r.Context(), who, q.channel)
	}
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	user := who.User.Name
	switch err := s.pages.Enter(r.Context(), user); {
	case errors.Is(err, admission.ErrBusyKey):
		setRetryAfter(w, pagesWait)
		s.rejectRequest(w, r, wrapf(errTooFast, "a user reads at most %d pages at once", pagesOfUser))
		return
	case err != nil:
		s.rejectRequest(w, r, wrapUnavailable("reading the history", errors.Join(errReading, err)))
		return
	}
	defer s.pages.Leave(user)
	page := historyPage{reader: historyReader{s, user, q.channel}}
	if q.backward {
		err = page.openBackward(r.Context(), q)
	} else {
		err = page.openForward(r.Context(), q)
	}
	if err != nil {
		s.rejectRequest(w, r, wrapUnavailable("reading the history", err))
		return
	}
	if err := s.sendPage(w, r, &page); err != nil {
		if r.Context().Err() != nil {
			err = errors.Join(errClient, err)
		}
		s.cfg.logger.Log(r.Context(), level(err), "a page of the history broke off", "user", user, "error", err)
		panic(http.ErrAbortHandler) // ends the connection: the page is not complete
	}
}

// errClient: writing the answer failed.
var errClient = errors.New("sending to the client")

// sendPage writes a page step by step, and message by message within a step, so that no
// more of it is in memory at once. Messages that wait for the client count as backlog.
// The client may take WithStallTimeout for each step. If sendPage returns an error, part
// of the answer is sent.
func (s *Service) sendPage(w http.ResponseWriter, r *http.Request, page *historyPage) error {
	answerJSON(w, http.StatusOK)
	client := http.NewResponseController(w)
	buf := append(make([]byte, 0, 4<<10), `{"messages":[`...)
	for first := true; ; {
		// An error means that middleware hides the connection; then http.Server.WriteTimeout applies.
		_ = client.SetWriteDeadline(time.Now().Add(s.cfg.stall))
		waiting := contentBytes(page.step)
		s.websockets.Totals.Backlog.Add(int64(waiting))
		err := func() error {
			defer func() { s.websockets.Totals.Backlog.Add(-int64(waiting)) }()
			for i := range page.step {
				m := page.step[i]
				page.step[i] = Message{}
				if !first {
					buf = append(buf, ',')
				}
				first = false
				stored := storedMessage(&m, "")
				buf = stored.Append(buf)
				if _, err := w.Write(buf); err != nil {
					return errors.Join(errClient, err)
				}
				buf = buf[:0]
				waiting -= len(m.Content)
				s.websockets.Totals.Backlog.Add(-int64(len(m.Content)))
			}
			return nil
		}()
		if err != nil {
			return err
		}
		if page.complete {
			break
		}
		if err := page.next(r.Context()); err != nil {
			return err
		}
	}
	buf = strconv.AppendBool(append(buf, `],"more":`...), page.more)
	if page.gap {
		buf = append(buf, `,"gap":true`...)
	}
	if _, err := w.Write(append(buf, '}', '\n')); err != nil {
		return errors.Join(errClient, err)
	}
	return nil
}

// level returns the level at which an error is logged: Debug for errors that are expected
// under load, and frequent.
func level(err error) slog.Level {
	for _, of := range []error{errBusy, errReading, errClient, errDropped} {
		if errors.Is(err, of) {
			return slog.LevelDebug
		}
	}
	return slog.LevelWarn
}

func (s *Service) servePublish(w http.ResponseWriter, r *http.Request) {
	if _, err := readQuery(r); err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	who, err := s.authenticate(r)
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	var body struct {
		Content string  `json:"content"`
		Channel *string `json:"channel"`
	}
	if err := jsonobject.Decode(http.MaxBytesReader(w, r.Body, maxBody), &body); err != nil {
		rejectBody(w, r, r.Body, err)
		return
	}
	if err := s.countCommand(who.User); err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	channel, err := channelOf(body.Channel)
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	// The message is published even if the client disconnects.
	ctx := new(lazyctx.Context)
	ctx.StartDetached(r.Context(), portTimeout)
	defer ctx.Cancel()
	m, err := s.publishAs(ctx, who, channel, body.Content)
	if err != nil {
		s.rejectRequest(w, r, err)
		return
	}
	stored := storedMessage(&m, "")
	text := stored.Append(make([]byte, 0, 128+len(m.Content)))
	answerJSON(w, http.StatusCreated)
	_, _ = w.Write(append(text, '\n')) // fails if the client has gone
}
