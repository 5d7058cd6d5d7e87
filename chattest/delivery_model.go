package chattest

import (
	"fmt"
	"strings"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/wire"
)

// deliveryModel computes which frames the protocol allows for a socket, given the commands
// of its client. It is not safe for concurrent use.
type deliveryModel struct {
	own     string
	in      map[string]*stream // by channel that the socket is in
	pending []*asked           // commands without an answer, oldest first
	trace   []string           // the last frames, for a report
}

// stream is a channel as one socket sees it.
type stream struct {
	from chat.Position // all messages after it up to at were received, or the client said that it has them
	at   chat.Position // the newest message received
}

// asked is a command that waits for its answer.
type asked struct {
	typ, ref, channel, content string
	since                      *given // of a join
	replayed                   chat.Position
}

// given is an id that a client resumes from.
type given struct {
	id       string
	position chat.Position
	// Whether the position exists. Otherwise the id is of no message, of another channel, of
	// another epoch, or far ahead.
	real bool
}

// keptTrace is the number of frames that a report shows.
const keptTrace = 40

func (m *deliveryModel) note(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
	if len(m.trace) > 2*keptTrace {
		m.trace = append([]string(nil), m.trace[keptTrace:]...)
	}
}

func (m *deliveryModel) report() string {
	return strings.Join(m.trace[max(0, len(m.trace)-keptTrace):], "\n\t")
}

// welcome checks the welcome of a socket that asked for channels and ids.
func (m *deliveryModel) welcome(w wire.Welcome, channels []string, since map[string]given) error {
	all := append([]string{"", m.own}, channels...)
	if len(w.Since) != len(all) {
		return fmt.Errorf("welcome with %d ids, want those of %q", len(w.Since), all)
	}
	recovered := true
	for _, g := range since {
		recovered = recovered && g.real
	}
	switch {
	case len(since) == 0 && w.Recovered != nil:
		return fmt.Errorf("welcome says recovered %v, and nothing was asked for", *w.Recovered)
	case len(since) > 0 && (w.Recovered == nil || *w.Recovered != recovered):
		return fmt.Errorf("welcome says recovered %v, want %v since %v", deref(w.Recovered), recovered, since)
	}
	m.in = make(map[string]*stream)
	for i, channel := range all {
		of, start, err := chat.ParseID(w.Since[i])
		if err != nil || of != channel {
			return fmt.Errorf("welcome starts %q from %s (%v)", channel, w.Since[i], err)
		}
		if g, ok := since[channel]; ok && g.real && start != g.position {
			return fmt.Errorf("welcome starts %q from %v, asked for %v", channel, start, g.position)
		}
		m.in[channel] = &stream{start, start}
	}
	return nil
}

// message checks that a message is the next of its channel.
func (m *deliveryModel) message(e wire.Message) (chat.Position, error) {
	channel, p, err := chat.ParseID(e.ID)
	if err != nil || channel != e.Channel {
		return p, fmt.Errorf("message %s of %q (%v)", e.ID, e.Channel, err)
	}
	if s := m.in[channel]; s != nil {
		return p, next(&s.at, p, "of "+channel)
	}
	// A replay comes before the answer to the join, and after the answers to earlier commands.
	if len(m.pending) > 0 {
		if a := m.pending[0]; a.typ == wire.TypeJoin && a.channel == channel && a.since != nil && a.since.real {
			return p, next(&a.replayed, p, "replayed of "+channel)
		}
	}
	return p, fmt.Errorf("message %s of a channel that the socket is not in", e.ID)
}

func next(at *chat.Position, p chat.Position, what string) error {
	if want := (chat.Position{Epoch: at.Epoch, Seq: at.Seq + 1}); p != want {
		return fmt.Errorf("message %v %s, want %v", p, what, want)
	}
	*at = p
	return nil
}

// answered removes the oldest command from the list.
func (m *deliveryModel) answered(ref wire.Ref) (*asked, error) {
	if len(m.pending) == 0 || m.pending[0].ref != string(ref) {
		return nil, fmt.Errorf("an answer to %s, which is not the oldest of %d commands", ref, len(m.pending))
	}
	a := m.pending[0]
	m.pending = m.pending[1:]
	return a, nil
}

// ack checks an answer and its place among the messages.
func (m *deliveryModel) ack(e wire.Ack) (*asked, error) {
	a, err := m.answered(e.Ref)
	if err != nil {
		return nil, err
	}
	switch a.typ {
	case wire.TypeLeave:
		if m.in[a.channel] == nil {
			return a, fmt.Errorf("left %q, which it had not joined", a.channel)
		}
		delete(m.in, a.channel)
	case wire.TypeJoin:
		of, start, err := chat.ParseID(e.Since)
		if err != nil || of != a.channel {
			return a, fmt.Errorf("joined %q since %q (%v)", a.channel, e.Since, err)
		}
		if (e.Recovered != nil) != (a.since != nil) {
			return a, fmt.Errorf("joined %q, recovered %v, asked for %v", a.channel, deref(e.Recovered), a.since)
		}
		recovered := e.Recovered != nil && *e.Recovered
		if s := m.in[a.channel]; s != nil {
			return a, s.joinedAgain(a, start, recovered)
		}
		return a, m.joined(a, start, recovered)
	}
	return a, nil
}

// joined starts the stream of a channel that the socket was not in.
func (m *deliveryModel) joined(a *asked, start chat.Position, recovered bool) error {
	s := &stream{start, start}
	m.in[a.channel] = s
	if a.since == nil {
		return nil
	}
	if recovered != a.since.real {
		return fmt.Errorf("joined %q since %s: recovered %v", a.channel, a.since.id, recovered)
	}
	if recovered {
		s.from = a.since.position
		if start != a.replayed {
			return fmt.Errorf("joined %q since %v: it was replayed up to %v, and continues from %v",
				a.channel, a.since.position, a.replayed, start)
		}
	}
	return nil
}

// joinedAgain checks the answer to a join of a channel that the socket is in. The answer
// comes between the message at its position and the next one.
func (s *stream) joinedAgain(a *asked, start chat.Position, recovered bool) error {
	if a.since == nil {
		if start != s.at {
			return fmt.Errorf("joined %q again from %v, at %v", a.channel, start, s.at)
		}
		return nil
	}
	p := a.since.position
	ahead := a.since.real && p.Epoch == s.at.Epoch && p.Seq > s.at.Seq
	if ahead {
		if start != p || !recovered {
			return fmt.Errorf("joined %q again from %v, which is ahead of %v: starts from %v, recovered %v",
				a.channel, p, s.at, start, recovered)
		}
		*s = stream{p, p} // the client has the messages between
		return nil
	}
	has := a.since.real && p.Epoch == s.from.Epoch && p.Seq >= s.from.Seq
	if start != s.at || recovered != has {
		return fmt.Errorf("joined %q again from %v, at %v, which has all since %v: starts from %v, recovered %v",
			a.channel, p, s.at, s.from, start, recovered)
	}
	return nil
}

// refused checks an answer that is an error. Only the leave of a channel that the socket
// is not in may fail.
func (m *deliveryModel) refused(e wire.Error) error {
	a, err := m.answered(e.Ref)
	if err != nil {
		return err
	}
	if a.typ == wire.TypeLeave && m.in[a.channel] == nil && e.Code == wire.CodeNotJoined {
		return nil
	}
	return fmt.Errorf("%s of %q was refused: %s %s", a.typ, a.channel, e.Code, e.Message)
}

func deref(b *bool) string {
	if b == nil {
		return "nothing"
	}
	return fmt.Sprint(*b)
}
