package chat

import (
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/reto10/chat/internal/fanout"
)

// deliverer is a socket that the hub delivers to.
type deliverer interface {
	Socket
	fanout.Receiver
}

// delivererOf returns s itself if s is a socket of the service.
func delivererOf(s Socket) deliverer {
	if own, ok := s.(*socket); ok {
		return own
	}
	return foreignSocket{s}
}

// foreignSocket is a Socket of another package. It may wrap a socket of the service. The
// hub's goroutines call Receive and Close: without recovery a panic would end the process.
type foreignSocket struct{ Socket }

// Receive implements [fanout.Receiver].
func (f foreignSocket) Receive(b fanout.Batch) {
	defer func() {
		if f.recovered(recover()) {
			f.Close(CloseGoingAway, "internal error")
		}
	}()
	for i := range b.Frames {
		f.Deliver(b.Frames[i].Event.(*encodedEvent).event())
	}
}

// Close implements [Socket].
func (f foreignSocket) Close(code CloseCode, reason string) {
	defer func() { f.recovered(recover()) }()
	f.Socket.Close(code, reason)
}

// recovered logs a panic, if there was one.
func (f foreignSocket) recovered(p any) bool {
	if p != nil {
		slog.Error("chat: a Socket panicked", "type", fmt.Sprintf("%T", f.Socket), "panic", p, "stack", string(debug.Stack()))
	}
	return p != nil
}
