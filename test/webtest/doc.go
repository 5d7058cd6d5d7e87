// Package webtest opens the web client of chatd in a real browser, Debian's Chromium without
// a window, and uses it as people do: with the mouse, the keyboard and the rules of a screen
// reader. chatd and chatd-cluster run as processes that serve TLS.
//
// It is its own module, so that the library does not depend on the packages that drive the
// browser. It has only tests. This command makes the screenshots of docs/page:
//
//	go test -run TestScreenshots -args -screenshots ../../docs/page
package webtest
