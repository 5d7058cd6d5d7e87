// Package wire encodes and decodes the events, commands and message ids of the chat
// protocol. docs/protocol.md specifies them. Rights are checked elsewhere.
package wire
