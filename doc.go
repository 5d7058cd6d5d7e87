// Package chat sends notifications to authenticated users over WebSocket.
// Authorized users broadcast; every client receives each channel in order and
// resumes after a reconnect without losing a message. The package is made to be
// mounted in a Go service.
//
// # Mounting
//
// A [Service] is an [http.Handler]. [New] takes an [Authenticator], which turns
// tokens into users, and options for everything that can be changed:
//
//	signer, err := chat.NewHS256(secret)
//	…
//	service, err := chat.New(signer, chat.WithOrigins("https://app.example.com"))
//	…
//	mux.Handle("/chat/", http.StripPrefix("/chat", service))
//
// The service answers POST /login (if the Authenticator is also a
// [LoginProvider]), the WebSocket at GET /ws/chat, GET /users/connected, GET and
// POST /messages, and POST /users/{username}/disconnect. A program with routes or
// a login of its own can mount each route alone, for example with
// [Service.SocketHandler].
//
// Middleware around the WebSocket must pass on an [http.ResponseWriter] that is an
// [http.Hijacker] or has an Unwrap method, see [http.ResponseController]. The service does not use the request or its context
// after the handler has returned.
//
// A Service runs a few goroutines from the start. [Service.Shutdown] ends them and
// closes the sockets, which [http.Server.Shutdown] does not know. Call
// Service.Shutdown first.
//
// # Users and roles
//
// The package has three Authenticators. [HS256] issues tokens and checks them with
// a shared secret. [PasswordLogin] adds users with passwords to that. [JWKS] checks
// the tokens of an external identity provider. An Authenticator of your own has one
// method.
//
// A [User] is a name and a role. A [Policy] decides which channels a user may join
// and publish to. The default policy lets every user join any channel, and lets
// [RoleAdmin] broadcast. Two operations are always for RoleAdmin alone: listing who
// is connected, and disconnecting a user. The Policy and the roles do not apply to Go
// code that calls [Service.Broadcast] or another method of a Service.
//
// # Channels
//
// A message without a channel goes to every client. A message with a channel goes
// to the clients that joined the channel. The channel "@ana" ([UserChannel]) is
// ana's user channel: only ana's sockets join it, so a notification can be for one
// person.
//
// # The protocol in brief
//
// A client opens the WebSocket with its token in the Authorization header, in a
// subprotocol "bearer.<token>", or in the query as "token". If the client offers
// the subprotocol "chat.v1", each text frame is a command in JSON and gets an
// answer:
//
//	→ {"type":"broadcast","content":"lunch is ready","ref":1}
//	← {"type":"ack","ref":1,"id":"42-k3v9x0"}
//	← {"type":"message","id":"42-k3v9x0","sender":"ana","content":"lunch is ready","time":"2026-11-24T12:00:00.000Z"}
//
// Without this subprotocol, each text frame is a message to everyone. In both cases
// the server sends events in JSON, and the first event is a "welcome".
// docs/protocol.md in the repository has the whole protocol. [CloseCode] lists why
// sockets are closed.
//
// # Order and delivery
//
// A message is stored in the [History] and has a [Position] there once
// [Service.Broadcast] returns without an error or a client receives the ack. Then:
//
//   - Within a channel, every socket receives messages in the order of their
//     positions. There is no order between channels.
//   - A live socket receives each message of its channels once. If the client
//     cannot keep up, the service closes the socket ([CloseTooSlow]) and the client
//     can resume. No message is lost silently.
//   - A client that reconnects with the last id it received in each channel gets
//     the missed messages, each once, before anything newer. If some of them are no
//     longer kept, the service says so.
//   - Joins and leaves (user_joined, user_left) have no position. They are
//     announced to the clients that are connected at the time, batched over a short
//     window.
//
// If the error of Broadcast wraps [ErrUnavailable], the message may have been
// stored. The History decides how long messages are kept: a [MemoryHistory] is
// bounded, and is lost when the process ends.
//
// # Ports
//
// The service reaches everything outside it through small interfaces:
// [Authenticator], [Policy], [History] and [Registry]. The package implements each
// of them. A Registry holds the live sockets. The service needs no methods beyond those
// of an interface, so a type may embed the interface or a [*MemoryRegistry] and override
// methods. Two abilities are optional:
//
//   - [LoginProvider]: an Authenticator that checks passwords; the service then
//     answers POST /login.
//   - [SharedHistory]: a History that names its data, so that nodes with different
//     histories notice.
//
// Three other packages belong to this module: chattest tests a Registry or a
// History of your own, client connects other Go programs, and web has a web client.
// Three more are modules of their own: redisregistry connects several nodes,
// sqlhistory keeps messages in a database, and prommetrics exports [Service.Stats]
// to Prometheus.
//
// # Concurrency and errors
//
// Every exported function and method is safe for concurrent use unless its comment
// says otherwise. Ports must be safe too: many goroutines call their methods at
// once. The context of a call ends with the request, or after five seconds where the
// call is for a socket or must outlive the request (publishing). If a port panics, that request or socket ends, not
// the process. Options and values such as a [Message] are plain data: the package
// copies them when they are passed and never changes them afterwards.
//
// An error of a running Service wraps one of the Err variables or ctx's error, and also
// the error of the port that failed: compare with [errors.Is]. [New] returns
// configuration errors, which name the option to change. No error, log line or formatted value of this
// package contains a token, a secret or a password. Sizes are in bytes, and times
// in UTC.
package chat
