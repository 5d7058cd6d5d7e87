// Package wstest has what tests of WebSockets share: frames as bytes, a client's
// end that can break every rule and checks what it receives, the events of the
// protocol, and [Eventually].
//
// It is built on package net alone. The tests that use it therefore do not judge
// the service's WebSocket code with the library that the service is built on.
package wstest
