// Package chat is authenticated notification chat over WebSocket, to be mounted
// in a Go service: whoever may broadcasts a message, and everyone connected gets
// it at once, each channel in one order, across reconnects without a gap.
//
// # Mounting
//
// A [Service] is an [http.Handler]. [New] takes an [Authenticator], which turns
// tokens into users, and options for whatever else is to be changed:
//
//	signer, err := chat.NewHS256(secret)
//	…
//	service, err := chat.New(signer, chat.WithOrigins("https://app.example.com"))
//	…
//	mux.Handle("/chat/", http.StripPrefix("/chat", service))
//
// It serves POST /login (where the Authenticator is a [LoginProvider], too), the
// WebSocket at GET /ws/chat, GET /users/connected, GET and POST /messages and
// POST /users/{username}/disconnect. Each is to be had alone as well, as from
// [Service.SocketHandler], for a program with routes and a login of its own.
//
// Middleware around the WebSocket has to leave a way to the connection: its
// [http.ResponseWriter] is an [http.Hijacker] or has an Unwrap method, see
// [http.ResponseController]. Nothing of the request, its context included, is
// used once the handler has returned.
//
// A Service has a goroutine from the start. [Service.Shutdown] ends it, and the
// sockets, of which [http.Server.Shutdown] knows nothing; call it first.
//
// # Who is who
//
// Three Authenticators come with the package: [HS256] issues tokens and checks
// them with a shared secret, [PasswordLogin] adds users with passwords to that,
// [JWKS] checks the tokens of somebody else's identity provider. One of your own
// has a single method.
//
// A [User] is a name and a role. What users may do says a [Policy]; the default
// one lets everybody join any channel and [RoleAdmin] broadcast. The rest of the
// protocol that is for admins (who is connected, disconnecting somebody) is for
// that role alone. Go code that calls [Service.Broadcast] or the other methods of
// a Service is asked nothing.
//
// # Channels
//
// A message goes to everyone connected or, if it names a channel, to those who
// joined it. The channel "@ana" ([UserChannel]) is joined by ana's sockets and by
// nobody else's, so that a notification can be for one person.
//
// # The protocol in brief
//
// A client opens the WebSocket with its token in the Authorization header, in a
// subprotocol "bearer.<token>", or in the query as "token". If it offers the
// subprotocol "chat.v1" each text frame is a command in JSON, with an answer:
//
//	→ {"type":"broadcast","content":"lunch is ready","ref":1}
//	← {"type":"ack","ref":1,"id":"42-k3v9x0"}
//	← {"type":"message","id":"42-k3v9x0","sender":"ana","content":"lunch is ready","time":"2026-11-24T12:00:00.000Z"}
//
// Without it each text frame is a message to everyone. Either way the server
// sends events in JSON, the first of them a "welcome". docs/protocol.md in the
// repository has all of it; [CloseCode] lists why sockets are closed.
//
// # Order and delivery
//
// What [Service.Broadcast] returned without an error, or a client saw
// acknowledged, is in the [History] and has its [Position] there. Then:
//
//   - Within a channel every socket gets messages in the order of their places.
//     There is no order between channels.
//   - A live socket gets each message of its channels once. One that cannot keep
//     up is not waited for: it loses nothing silently but is closed
//     ([CloseTooSlow]) and can resume.
//   - A client that returns with the last id it saw of each channel gets what it
//     missed, each message once, before anything newer; or it is told that some
//     of it is no longer kept.
//   - Comings and goings (user_joined, user_left) have no place: they are told to
//     those connected at the time, gathered over a short window.
//
// An error from Broadcast that wraps [ErrUnavailable] leaves open whether the
// message was stored. How long history lasts is the History's affair: a
// [MemoryHistory] is bounded, and gone with the process.
//
// # Ports
//
// What the service needs from outside are small interfaces, each with something
// behind it in this package: [Authenticator], [Policy], [History], [Registry]. A
// Registry holds the live sockets. Each interface has all that the service needs: an
// implementation that compiles works, also one that embeds the interface or a
// [*MemoryRegistry] and overrides a method. Two abilities are optional: an Authenticator
// that is a [LoginProvider] takes passwords, so there is a /login, and a History that is a
// [SharedHistory] names its data, so that nodes with different ones notice.
//
// Of this module's other packages, chattest tests a Registry or a History of your
// own, client connects other Go programs, and web has a page. In modules of their
// own, redisregistry is for several nodes, sqlhistory keeps messages in a database,
// and prommetrics shows [Service.Stats] to Prometheus.
//
// # Concurrency and errors
//
// Everything that is exported is safe for concurrent use unless its comment says
// otherwise, and a port has to be: its methods are called by many goroutines at
// once, with a context that ends with the request or, for a socket's commands,
// within five seconds. A port that panics ends that request or socket, not the
// process. Options and values such as a [Message] are plain data: copied when they
// are passed, never changed afterwards.
//
// Errors wrap one of the Err variables, to be told apart with [errors.Is], or the
// error of the port that failed. Tokens, secrets and passwords are in no error, no
// log line and no formatted value of this package's types. Sizes are in bytes, and
// times in UTC.
package chat
