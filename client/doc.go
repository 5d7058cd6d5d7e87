// Package client connects Go programs to a chat service: it keeps a connection up,
// resumes where it was, and says so where it could not.
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
// # What it promises
//
// The messages of a channel come in order, each once, also across any number of
// connections: the client keeps the last id of each channel and goes on from there.
// Where the server cannot, as it no longer keeps what followed or has forgotten all,
// a [Gap] comes before any message behind it, and then what the server still has.
// Between channels there is no order.
//
// [Client.Broadcast] returns when the message is stored and handed on. It sends a
// message at most once: when the connection ends before the answer, it fails with
// [ErrUnconfirmed] rather than perhaps sending it twice.
//
// A connection that ends, or is silent for too long, is made again after a wait with
// jitter. The client ends by itself only where trying again makes no sense: an admin
// disconnected the user ([ErrDisconnected]), a newer socket of theirs replaced it
// ([ErrReplaced]), the token no longer holds and there is no other
// ([ErrUnauthenticated]), or the server answers the handshake with 400, 403, 404 and
// the like, as for a channel that the user may not join any more ([ErrForbidden]).
//
// With [WithLogin] or [WithTokenSource] the client gets a new token ahead of the end
// of the one that it has, and the connection goes on. Tokens travel in the
// Authorization header, never in a URL; redirects are not followed.
//
// # A slow consumer
//
// What waits for the loop over [Client.Events] is bounded ([WithEventLimit]). When it
// is full, the client lets the server wait for a few seconds. Then, or at once when
// the answer to a command is due, it drops what comes, and once the loop has caught
// up it connects again and has what was dropped sent anew, which to the loop looks
// like a [Lost] with [ErrBehind] and a [Welcome]. Programs that only broadcast need
// no loop.
//
// # Concurrency
//
// All methods of [Client] and [API] may be called concurrently, also from inside the
// loop over the events. Events is for one loop at a time. Events are plain values.
// A client has a few goroutines, which end with it: call [Client.Close].
//
// [API] alone, made by [NewAPI], is for programs that need no socket.
package client
