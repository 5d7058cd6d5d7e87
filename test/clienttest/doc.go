// Package clienttest connects other WebSocket clients to chatd, which runs as a process and
// serves TLS: gorilla/websocket, the npm package ws, Debian's python3-websockets, and some
// hostile ones.
//
// It is its own module, so that none of these becomes a dependency of the library. It has
// only tests.
package clienttest
