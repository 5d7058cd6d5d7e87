package webtest

import (
	"testing"
)

func TestBrowserTrustsTheServer(t *testing.T) {
	t.Parallel()
	server := chatd.Start(t, nil, "-tls-cert", certificate, "-tls-key", certificateKey)
	p := openTab(t, server.URL+"/healthz", look{})
	p.await("a document", `document.body.innerText.trim() === "ok"`)
}
