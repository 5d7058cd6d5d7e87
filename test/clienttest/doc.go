// Package clienttest has chatd, as a process that serves TLS, talk to WebSocket
// clients that have nothing in common with it: gorilla/websocket, the npm package
// ws and Debian's python3-websockets; and to some that mean it no good.
//
// It is a module of its own, so that none of these becomes a dependency of the
// library. All of it is tests.
package clienttest
