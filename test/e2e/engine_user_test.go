package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatserver"
	"github.com/reto10/chat/test/wstest"
)

// user has one socket at a time, and remembers what all of them received.
type user struct {
	*engine
	name  string
	rng   *rand.Rand
	slow  bool // reads nothing for a while, once
	late  bool // it did: its socket may be cut before the close frame has come
	peer  *chatserver.RawPeer
	at    map[string]chat.Position // by channel they are in: the last message's
	left  map[string]chat.Position // by channel they left: the last before that
	asked []asked                  // of this socket, not answered yet, oldest first
	pings []string                 // likewise
	sent  int                      // commands and pings, to tell them apart
	saw   []wstest.Event           // messages
	acked map[string]string        // texts by id
	ended map[string]bool          // channels whose last message came
}

// asked is a command.
type asked struct {
	typ, ref, channel, content string
	resume                     bool
}

func (u *user) try(do func() error) {
	if err := do(); err != nil {
		u.t.Errorf("%s: %v", u.name, err)
	}
	if u.peer != nil {
		_ = u.peer.Close()
	}
}

// connect opens a socket that goes on where the one before ended.
func (u *user) connect() error {
	var query, want []string
	own := chat.UserChannel(u.name)
	channels := []string{"", own}
	for channel := range u.at {
		if channel != "" && channel != own {
			channels = append(channels, channel)
			query = append(query, "channel", channel)
		}
	}
	returns := len(u.at) > 0
	if returns {
		for _, channel := range channels {
			id := chat.FormatID(channel, u.at[channel])
			query, want = append(query, "since", id), append(want, id)
		}
	}
	p, err := u.s.TryDialRaw(u.name, query...)
	if err != nil {
		return err
	}
	u.peer, u.asked, u.pings = p, nil, nil
	if !returns {
		for i, channel := range channels {
			if _, u.at[channel], err = chat.ParseID(p.Welcome.SinceIDs()[i]); err != nil {
				return err
			}
		}
		return nil
	}
	u.resumed.Add(1)
	if p.Welcome.Recovered == nil || !*p.Welcome.Recovered || !slices.Equal(p.Welcome.SinceIDs(), want) {
		return fmt.Errorf("welcome %+v, want all recovered since %q", p.Welcome, want)
	}
	return nil
}

// stay listens until all channels have ended.
func (u *user) stay() error {
	if err := u.connect(); err != nil {
		return err
	}
	for _, channel := range engineChannels[1:] {
		u.ask(asked{typ: "join", channel: channel})
	}
	return u.untilEnd(engineChannels)
}

// catchUp opens a last socket and receives the rest.
func (u *user) catchUp() error {
	if err := u.connect(); err != nil {
		return err
	}
	var in []string
	for channel := range u.at {
		if channel != chat.UserChannel(u.name) {
			in = append(in, channel)
		}
	}
	return u.untilEnd(in)
}

func (u *user) untilEnd(channels []string) error {
	for slices.ContainsFunc(channels, func(c string) bool { return !u.ended[c] }) {
		if err := u.read(1); err != nil {
			return err
		}
	}
	return nil
}

// roam does one thing after the other, and hangs up.
func (u *user) roam() error {
	if err := u.connect(); err != nil {
		return err
	}
	for round := range engineRounds {
		var err error
		switch n := u.rng.IntN(20); {
		case n < 6:
			u.joinOrLeave()
		case n < 9:
			u.sent++
			u.pings = append(u.pings, strings.Repeat("p", u.rng.IntN(100))+fmt.Sprint(u.sent))
			u.peer.Send(wstest.Masked(wstest.Fin|wstest.OpPing, u.pings[len(u.pings)-1]))
		case n < 13 && strings.HasPrefix(u.name, "admin"):
			for range u.rng.IntN(10) {
				u.ask(asked{typ: "broadcast", channel: u.anyChannel(), content: strings.Repeat("y", 1+u.rng.IntN(3000))})
			}
		case n < 14:
			err = u.hangUp()
		case n < 15:
			err = u.vanish()
		case n < 16:
			_, err = u.s.Disconnect(context.Background(), u.name)
			err = errors.Join(err, u.untilClosed())
		}
		if round == engineRounds/2 && u.slow {
			err = errors.Join(err, u.readNothing())
		}
		if err := errors.Join(err, u.read(1+u.rng.IntN(40))); err != nil {
			return err
		}
	}
	return u.hangUp()
}

func (u *user) anyChannel() string { return engineChannels[u.rng.IntN(len(engineChannels))] }

// joinOrLeave changes whether the user is in a channel, unless that is changing.
func (u *user) joinOrLeave() {
	channel := engineChannels[1+u.rng.IntN(len(engineChannels)-1)]
	if slices.ContainsFunc(u.asked, func(a asked) bool { return a.channel == channel && a.typ != "broadcast" }) {
		return
	}
	if _, in := u.at[channel]; in {
		u.ask(asked{typ: "leave", channel: channel})
		return
	}
	a := asked{typ: "join", channel: channel}
	if last, known := u.left[channel]; known && u.rng.IntN(2) == 0 {
		a.resume, u.at[channel] = true, last
	}
	u.ask(a)
}

func (u *user) ask(a asked) {
	u.sent++
	a.ref = fmt.Sprint(u.sent)
	command := map[string]any{"type": a.typ, "ref": u.sent}
	if a.channel != "" {
		command["channel"] = a.channel
	}
	if a.content != "" {
		command["content"] = a.content
	}
	if a.resume {
		command["since"] = chat.FormatID(a.channel, u.at[a.channel])
	}
	text, _ := json.Marshal(command) // strings and a number
	u.asked = append(u.asked, a)
	u.peer.Send(wstest.Masked(wstest.Fin|wstest.OpText, string(text)))
}

// hangUp closes the socket with a close frame, and opens another.
func (u *user) hangUp() error {
	u.peer.Send(wstest.Masked(wstest.Fin|wstest.OpClose, wstest.ClosePayload(1000, "")))
	return u.untilClosed()
}

// vanish drops the connection, with all that is unread on it, and opens another.
func (u *user) vanish() error {
	if u.rng.IntN(2) == 0 {
		_ = u.peer.TCP().SetLinger(0)
	}
	_ = u.peer.TCP().Close()
	return u.connect()
}

// readNothing opens a socket and reads nothing until a slow socket is closed, usually
// this one.
func (u *user) readNothing() error {
	before := u.s.Stats().SlowClosed
	if err := u.hangUp(); err != nil {
		return err
	}
	text := strings.Repeat("z", 32<<10)
	own := chat.UserChannel(u.name) // so that no other user receives it
	var last chat.Message
	open := func() bool { return u.s.Stats().SlowClosed == before && u.connected() }
	for n := 0; n < engineMostSlow && open(); n++ {
		var err error
		if last, err = u.s.Broadcast(context.Background(), chat.Message{Channel: own, Content: text}); err != nil {
			return err
		}
	}
	// A disconnected socket receives nothing more. It has some time to answer the
	// close frame, which it does not read either.
	if !inTime(func() bool { return !open() }) {
		return fmt.Errorf("still open with %d unread messages of %d bytes", engineMostSlow, len(text))
	}
	u.late = true
	defer func() { u.late = false }()
	for last.Position.Seq > u.at[own].Seq { // on this socket or the next
		if err := u.read(1); err != nil {
			return err
		}
	}
	return nil
}

// inTime reports whether ok becomes true within chatserver.Patience.
func inTime(ok func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(chatserver.Patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			return ok()
		}
	}
	return true
}

// connected reports whether the user has a socket: somebody may have disconnected
// it meanwhile.
func (u *user) connected() bool {
	list, err := u.s.Connected(context.Background(), "")
	return err == nil && slices.ContainsFunc(list, func(p chat.Presence) bool { return p.User.Name == u.name })
}

// read reads so many frames. If the socket is closed it goes on with another.
func (u *user) read(frames int) error {
	for range frames {
		closed, err := u.step()
		if err == nil && closed {
			err = u.connect()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// untilClosed reads until the socket is closed, and opens another.
func (u *user) untilClosed() error {
	for {
		closed, err := u.step()
		if err != nil {
			return err
		}
		if closed {
			return u.connect()
		}
	}
}

// step takes one frame.
func (u *user) step() (closed bool, err error) {
	f, err := u.peer.Next()
	if u.late && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		u.late = false
		u.closed[chat.CloseTooSlow].Add(1) // a slow machine: not all was read within the time for closing
		_ = u.peer.Close()
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading: %w", err)
	}
	switch f.Opcode {
	case wstest.OpPong:
		if f.Payload == "" { // a heartbeat
			return false, nil
		}
		if len(u.pings) == 0 || f.Payload != u.pings[0] {
			return false, fmt.Errorf("pong %q, pinged %q", f.Payload, u.pings)
		}
		u.pings = u.pings[1:]
		return false, nil
	case wstest.OpClose:
		u.peer.Send(wstest.Masked(wstest.Fin|wstest.OpClose, f.Payload))
		if _, err := u.peer.Next(); err != io.EOF {
			return true, fmt.Errorf("behind close %d: %v, want EOF", f.Code(), err)
		}
		if code := f.Code(); code != 1000 && code != 4002 && code != 4003 {
			return true, fmt.Errorf("closed with %d %s", code, f.Payload[2:])
		}
		u.closed[f.Code()].Add(1)
		_ = u.peer.Close() // over TLS it fails: the server is gone
		return true, nil
	}
	e, err := f.Event()
	if err != nil {
		return false, err
	}
	switch e.Type {
	case "message":
		return false, u.message(e)
	case "ack":
		return false, u.ack(e)
	case "user_joined", "user_left":
		return false, nil
	}
	return false, fmt.Errorf("event %.200s", f.Payload)
}

func (u *user) message(e wstest.Event) error {
	channel, place, err := chat.ParseID(e.ID)
	if err != nil || channel != e.Channel {
		return fmt.Errorf("message %.200v: its id is of %q (%v)", e, channel, err)
	}
	last, in := u.at[channel]
	if !in {
		return fmt.Errorf("message %s of a channel that the socket is not in", e.ID)
	}
	if last.Epoch != place.Epoch || last.Seq+1 != place.Seq {
		return fmt.Errorf("message %s behind %s", e.ID, chat.FormatID(channel, last))
	}
	u.at[channel] = place
	u.saw = append(u.saw, e)
	if e.Content == engineEnd {
		if u.ended == nil {
			u.ended = make(map[string]bool)
		}
		u.ended[channel] = true
	}
	return nil
}

func (u *user) ack(e wstest.Event) error {
	if len(u.asked) == 0 || string(e.Ref) != u.asked[0].ref {
		return fmt.Errorf("ack %+v, asked %+v", e, u.asked)
	}
	a := u.asked[0]
	u.asked = u.asked[1:]
	switch a.typ {
	case "broadcast":
		u.acked[e.ID] = a.content
	case "leave": // what was sent to the channel before came before
		u.left[a.channel] = u.at[a.channel]
		delete(u.at, a.channel)
	case "join":
		channel, start, err := chat.ParseID(e.SinceIDs()[0])
		if err != nil || channel != a.channel {
			return fmt.Errorf("ack %+v of %+v: %v", e, a, err)
		}
		if a.resume && (e.Recovered == nil || !*e.Recovered || start != u.at[channel]) {
			return fmt.Errorf("ack %+v of %+v, want it recovered up to %v", e, a, u.at[channel])
		}
		u.at[channel] = start
	}
	return nil
}
