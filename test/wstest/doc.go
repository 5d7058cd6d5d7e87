// Package wstest has helpers for tests of WebSockets: frames as bytes, a client that can
// break every rule and checks what it receives, the events of the protocol, and
// [Eventually].
//
// It uses only package net, so the tests do not judge the service's WebSocket code with the
// library that the service is built on.
package wstest
