package webtest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/chatdtest"
)

// chatd and cluster are the programs under test; cluster is chatd-cluster.
var chatd, cluster chatdtest.Program

// certificate and key are those of all servers here, and the browser trusts them. Set by run.
var certificate, certificateKey, certificateHash string

// linked makes chatd's code a part of this binary. It does not run, but go test compares the
// binary to decide whether a cached result is still valid.
var linked any

func TestMain(m *testing.M) {
	// They wait for browsers and servers more than they compute.
	_ = flag.Set("test.parallel", "4")
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	linked = daemon.Main
	dir, err := os.MkdirTemp("", "webtest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	cert, key, leaf, err := chatdtest.WriteCertificate(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a certificate:", err)
		return 1
	}
	certificate, certificateKey = cert, key
	hash := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	certificateHash = base64.StdEncoding.EncodeToString(hash[:])
	programs := map[string]*chatdtest.Program{"chatd": &chatd, "chatd-cluster": &cluster}
	return chatdtest.Main("../..", programs, closing{m})
}

// The browser that all tests share is started by the first that wants it.
var browser struct {
	mu    sync.Mutex
	ctx   context.Context
	close func()
}

// sharedBrowser is a context of the browser, to derive contexts of tabs from.
func sharedBrowser(t testing.TB) context.Context {
	t.Helper()
	path := chatdtest.Needs(t, "chromium")
	browser.mu.Lock()
	defer browser.mu.Unlock()
	if browser.ctx != nil {
		return browser.ctx
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.Flag("ignore-certificate-errors-spki-list", certificateHash),
		chromedp.Flag("lang", "en-GB"),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.WSURLReadTimeout(chatdtest.Patience),
	)
	if *screenshots != "" {
		options = append(options, chromedp.Env("FONTCONFIG_FILE="+chatdtest.WriteFile(t, "fonts.conf", fonts)))
	}
	if os.Geteuid() == 0 { // its sandbox refuses root
		options = append(options, chromedp.NoSandbox)
	}
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	if err := chromedp.Do(ctx); err != nil {
		cancel()
		end()
		t.Fatalf("starting Chromium: %v", err)
	}
	browser.ctx, browser.close = ctx, func() {
		cancel()
		end()
	}
	return ctx
}

// closing ends the browser behind the tests.
type closing struct{ m *testing.M }

func (c closing) Run() int {
	code := c.m.Run()
	browser.mu.Lock()
	defer browser.mu.Unlock()
	if browser.ctx != nil {
		browser.close()
	}
	return code
}
