package chat

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/wsconn"
)

// keptFrame is about how many bytes of memory a kept frame takes besides its own bytes.
const keptFrame = 64

// filter is between the registry's deliveries and the outbox of one socket. While a join
// command runs, it keeps the channel's messages, so that the ack is sent at the right
// position. It drops messages that a replay has sent already. Usually neither is needed,
// and a delivery costs one atomic load. The zero value is ready to use.
type filter struct {
	active   atomic.Bool         // replayed or gate is not empty
	mu       sync.Mutex          // guards the fields below; held during sends to the outbox, which never block
	replayed map[string]Position // by channel: messages up to here are dropped
	gate     *gate               // nil: every channel is open
}

// gate keeps the frames of the one channel that a join command is joining. The frames count
// towards WithBacklog.
type gate struct {
	channel  string
	kept     []fanout.Frame
	reserved int // bytes in the outbox, see Outbox.Reserve
}

// pass sends, keeps or drops delivered frames.
func (f *filter) pass(out *wsconn.Outbox, frames []fanout.Frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fr := range frames {
		f.passOne(out, fr)
	}
}

// passOne requires f.mu.
func (f *filter) passOne(out *wsconn.Outbox, fr fanout.Frame) {
	e := fr.Event.(*encodedEvent)
	if e.presence == nil && f.alreadyReplayed(&e.message) {
		return
	}
	if f.gate == nil || f.gate.channel != e.channel() {
		out.Send(fr.Bytes)
		return
	}
	if n := len(fr.Bytes) + keptFrame; out.Reserve(n) {
		f.gate.reserved += n
		f.gate.kept = append(f.gate.kept, fr)
	}
}

// alreadyReplayed reports whether a replay has sent m. A message after the position ends
// the filtering of its channel, since the registry delivers in order. It requires f.mu.
func (f *filter) alreadyReplayed(m *Message) bool {
	p, ok := f.replayed[m.Channel]
	if !ok {
		return false
	}
	if m.Position.Epoch == p.Epoch && m.Position.Seq <= p.Seq {
		return true
	}
	f.drop(m.Channel)
	return false
}

// setReplayed makes the filter drop messages of a channel up to a position: the client has
// them from a replay or over HTTP.
func (f *filter) setReplayed(channel string, p Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set(channel, p)
}

// forget undoes setReplayed.
func (f *filter) forget(channel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(channel)
}

// hold keeps the messages of a channel from now on, until resume or cancelHold. It returns
// the position up to which the channel's messages are dropped, zero for none.
func (f *filter) hold(channel string) (replayed Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gate = &gate{channel: channel}
	f.updateActive()
	return f.replayed[channel]
}

// resume ends a hold. It sends the kept messages up to upTo, then answer, then the other
// kept messages, without those up to end. Without a hold it does nothing.
func (f *filter) resume(out *wsconn.Outbox, upTo Position, answer []byte, end Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.gate
	if g == nil {
		return
	}
	f.gate = nil
	out.Release(g.reserved)
	before := 0
	for i, fr := range g.kept {
		e := fr.Event.(*encodedEvent)
		if p := e.message.Position; e.presence == nil && p.Epoch == upTo.Epoch && p.Seq <= upTo.Seq {
			before = i + 1
		}
	}
	for _, fr := range g.kept[:before] {
		out.Send(fr.Bytes)
	}
	out.Send(answer)
	if end != upTo {
		f.set(g.channel, end)
	}
	for _, fr := range g.kept[before:] {
		f.passOne(out, fr)
	}
	f.updateActive()
}

// cancelHold ends a hold, if resume has not. It sends the kept messages if send is true,
// else drops them.
func (f *filter) cancelHold(out *wsconn.Outbox, send bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.gate
	if g == nil {
		return
	}
	f.gate = nil
	out.Release(g.reserved)
	if send {
		for _, fr := range g.kept {
			out.Send(fr.Bytes)
		}
	}
	f.updateActive()
}

// set, drop and updateActive require f.mu.
func (f *filter) set(channel string, p Position) {
	if f.replayed == nil {
		f.replayed = make(map[string]Position)
	}
	f.replayed[channel] = p
	f.updateActive()
}

func (f *filter) drop(channel string) {
	maps.DeleteFunc(f.replayed, func(c string, _ Position) bool { return c == channel })
	if len(f.replayed) == 0 {
		f.replayed = nil
	}
	f.updateActive()
}

// updateActive makes deliveries pass the filter only while it has something to keep or
// drop.
func (f *filter) updateActive() { f.active.Store(f.gate != nil || len(f.replayed) > 0) }
