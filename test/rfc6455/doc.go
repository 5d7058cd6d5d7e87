// Package rfc6455 tests the service's WebSockets frame by frame, as RFC 6455 asks,
// with raw frames over TCP and TLS.
package rfc6455
