package webtest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/reto10/chat/internal/daemon"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/leak"
)

// chatd and cluster are the programs under test; cluster is chatd-cluster.
var chatd, cluster chatdtest.Program

// certificate and its key are what all servers here show, and what the browser
// takes. Set by run.
var certificate, certificateKey, certificateHash string

// linked makes the code of chatd a part of this binary too. It is not run here; but
// go test looks at the binary to tell whether a result it has kept still holds.
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
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return leak.Run(closing{m})
}

// prepare builds the programs and makes the certificate.
func prepare(dir string) error {
	cert, key, leaf, err := chatdtest.WriteCertificate(dir)
	if err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	certificate, certificateKey = cert, key
	hash := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	certificateHash = base64.StdEncoding.EncodeToString(hash[:])
	chatd.Path, cluster.Path = filepath.Join(dir, "chatd"), filepath.Join(dir, "chatd-cluster")
	if err := build("../..", "./cmd/chatd", chatd.Path); err != nil {
		return err
	}
	return build("../../cmd/chatd-cluster", ".", cluster.Path)
}

// build makes a program, with the race detector if these tests have it.
func build(dir, pkg, output string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := []string{"build", "-buildvcs=false", "-o", output}
	if raceEnabled() {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", filepath.Base(output), err, out)
	}
	return nil
}

func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	for _, setting := range info.Settings {
		if setting.Key == "-race" {
			return setting.Value == "true"
		}
	}
	return false
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
