// Package client connects Go programs to a chat service. It reconnects, resumes without
// losing messages, and reports a gap if the server no longer has them.
//
//	c, err := client.Dial(ctx, "https://localhost:8443", client.WithLogin("ana", password))
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	for event, err := range c.Events(ctx) {
//		if err != nil {
//			return err
//		}
//		switch e := event.(type) {
//		case client.Message:
//			fmt.Println(e.Sender, e.Content)
//		case client.Gap:
//			fmt.Println("messages may be missing here")
//		}
//	}
//
// Programs that need no socket use an [API] alone, see [NewAPI].
//
// # Delivery
//
// The messages of a channel arrive in order, each once, across any number of connections.
// The client remembers the last id of each channel and resumes from there. If the server no
// longer has the messages that follow that id, a [Gap] arrives first, and then the messages
// that the server still has. Messages of different channels have no order.
//
// [Client.Broadcast] returns when the server stored and published the message. It sends a
// message at most once. If the connection ends before the answer, Broadcast fails with
// [ErrUnconfirmed]: the message may have been stored.
//
// # Reconnecting
//
// When a connection ends or is silent for too long, the client reconnects after a random
// wait. The client ends by itself only if another attempt cannot succeed:
//
//   - An admin disconnected the user ([ErrDisconnected]).
//   - A newer socket of the user replaced this one ([ErrReplaced]).
//   - The token is invalid and there is no other ([ErrUnauthenticated]).
//   - The server rejects the handshake with a status such as 400, 403 or 404, for example
//     because the user may no longer join a channel ([ErrForbidden]).
//
// With [WithLogin] or [WithTokenSource], the client gets a new token before the current one
// expires, and the connection stays open. The client sends tokens in the Authorization
// header, never in a URL, and follows no redirects.
//
// # A slow consumer
//
// The queue of events for [Client.Events] is bounded, see [WithEventLimit]. When the queue
// is full, the client stops reading for a few seconds. Then, or at once if a caller waits
// for the answer to a command, it drops incoming events. When the consumer has emptied the
// queue, the client reconnects and gets the dropped messages again. The consumer sees a
// [Lost] with [ErrBehind] and then a [Welcome]. Programs that only broadcast need not
// consume events.
//
// # Concurrency
//
// All methods of [Client] and [API] are safe for concurrent use, also inside the loop over
// the events. Only one loop may consume [Client.Events] at a time. Events are plain values.
// A client has a few goroutines, which [Client.Close] ends.
package client
