// Package webtest opens the page of chatd in a real browser, Debian's Chromium
// without a window, and uses it as people do: with the mouse, the keyboard and a
// screen reader's rules. chatd and chatd-cluster run as processes that serve TLS.
//
// It is a module of its own, so that the library gets no dependency of what drives
// the browser. All of it is tests; the screenshots of docs/page are made by
//
//	go test -run TestScreenshots -args -screenshots ../../docs/page
package webtest
