package chat

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/reto10/chat/internal/fanout"
	"github.com/reto10/chat/internal/wsconn"
)

// keptFrame is about what a frame takes in memory beside its bytes while it is kept.
const keptFrame = 64

// filter stands between a registry's deliveries and the outbox of one socket. It
// keeps what comes of a channel while the socket joins it, so that the ack gets its
// place in the stream, and drops what a replay has sent before. Both last for
// moments; otherwise a delivery costs one atomic load. The zero value is ready to use.
type filter struct {
	active   atomic.Bool         // replayed or gate is not empty
	mu       sync.Mutex          // guards what follows; held while frames go to the outbox, which never blocks
	replayed map[string]Position // by channel: messages up to here are dropped
	gate     *gate               // nil: every channel is open
}

// gate is a channel whose frames are kept: one at a time, for as long as one join
// takes. They count towards the limit of the outbox's backlog.
type gate struct {
	channel  string
	kept     []fanout.Frame
	reserved int // in the outbox
}

// pass sends frames that were delivered, keeps or drops them.
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
	channel := e.Channel
	if e.Type == EventMessage {
		if f.has(&e.Message) {
			return
		}
		channel = e.Message.Channel
	}
	if f.gate == nil || f.gate.channel != channel {
		out.Send(fr.Bytes)
		return
	}
	if n := len(fr.Bytes) + keptFrame; out.Reserve(n) {
		f.gate.reserved += n
		f.gate.kept = append(f.gate.kept, fr)
	}
}

// has reports whether the peer has got m by a replay. The first message behind the
// position shows that all before were delivered: the position is forgotten. It
// requires f.mu.
func (f *filter) has(m *Message) bool {
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

// setReplayed has messages of a channel dropped up to a position, which the peer
// has got in another way.
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

// hold keeps what comes of a channel from now on. It returns the position up to
// which the channel's messages are dropped, zero for none. resume or letGo ends it.
func (f *filter) hold(channel string) (replayed Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gate = &gate{channel: channel}
	f.settle()
	return f.replayed[channel]
}

// resume sends the kept messages up to a position, an answer, and what was kept
// behind them but the messages up to end. Without a hold it does nothing.
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
		if p := e.Message.Position; e.Type == EventMessage && p.Epoch == upTo.Epoch && p.Seq <= upTo.Seq {
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
	f.settle()
}

// letGo ends a hold that resume has not ended: what was kept is sent, or dropped.
func (f *filter) letGo(out *wsconn.Outbox, send bool) {
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
	f.settle()
}

// set requires f.mu, like drop and settle.
func (f *filter) set(channel string, p Position) {
	if f.replayed == nil {
		f.replayed = make(map[string]Position)
	}
	f.replayed[channel] = p
	f.settle()
}

func (f *filter) drop(channel string) {
	maps.DeleteFunc(f.replayed, func(c string, _ Position) bool { return c == channel })
	if len(f.replayed) == 0 {
		f.replayed = nil
	}
	f.settle()
}

// settle has deliveries looked at while there is something to look for.
func (f *filter) settle() { f.active.Store(f.gate != nil || len(f.replayed) > 0) }
