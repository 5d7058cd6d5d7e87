// Package wire turns events and commands of the chat protocol into JSON and
// WebSocket frames, and back. It knows bytes and names of fields; who may do
// what is decided elsewhere. docs/protocol.md is its specification.
package wire
