package webtest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
)

// look is the size, the theme and the language of a tab.
type look struct {
	width, height int64  // of the window; 1280 by 800
	language      string // as in Accept-Language; "en-GB,en"
	dark, touch   bool
	forgiven      []string // parts of what the browser says of a server that is away or refuses, as the test means it to
}

// tab is a window of the browser with storage of its own.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu         sync.Mutex
	complaints []string // errors in the console, exceptions, what the policy forbade
	forgiven   []string // see look
}

// openTab opens an address. At the end of the test the tab is closed, and the test
// fails if anything in it was wrong.
func openTab(t testing.TB, url string, l look) *tab {
	t.Helper()
	if l.width == 0 {
		l.width, l.height = 1280, 800
	}
	if l.language == "" {
		l.language = "en-GB,en"
	}
	scheme := "light"
	if l.dark {
		scheme = "dark"
	}
	ctx, cancel := chromedp.NewContext(sharedBrowser(t), chromedp.WithNewBrowserContext())
	p := &tab{t: t, ctx: ctx, forgiven: l.forgiven}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the page when it failed: %.1500q\nin its fields: %s", p.text("body"),
				eval[string](p, `[...document.querySelectorAll("input:not([type=password]), select, textarea")].map((e) => e.id + "=" + JSON.stringify(e.value)).join(" ")`))
		}
		p.leavesNothing(url)
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, complaint := range p.complaints {
			t.Errorf("in the browser: %s", complaint)
		}
	})
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatalf("opening a tab: %v", err)
	}
	p.do(
		command(audits.Enable, cdp.Empty{}),
		command(network.Enable, network.EnableParams{}),
		command(log.Enable, cdp.Empty{}),
		command(emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}),
		command(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: l.width, Height: l.height, DeviceScaleFactor: 1, Mobile: l.touch,
		}),
		command(emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{
			UserAgent: "webtest", AcceptLanguage: l.language,
		}),
		command(emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{
			Locale: strings.Split(l.language, ",")[0],
		}),
		command(emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Europe/Madrid"}),
		command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme},
			{Name: "prefers-reduced-motion", Value: "reduce"},
		}}),
		chromedp.Navigate(url),
	)
	return p
}

// leavesNothing fails the test if the page has stored anything that outlives it, or put it into
// its address.
func (p *tab) leavesNothing(url string) {
	left := eval[string](p, `(async () => JSON.stringify({
		local: {...localStorage}, session: {...sessionStorage}, cookies: document.cookie,
		databases: await indexedDB.databases(), caches: await caches.keys(), workers: (await navigator.serviceWorker.getRegistrations()).length,
		address: location.href, state: history.state, name: window.name,
	}))()`)
	want := fmt.Sprintf(`{"local":{},"session":{},"cookies":"","databases":[],"caches":[],"workers":0,"address":%s,"state":null,"name":""}`, quote(url))
	if diff := cmp.Diff(want, left); diff != "" {
		p.t.Errorf("what the page leaves behind (-want +got):\n%s", diff)
	}
}

// command is an action that gives the tab a command of the protocol.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	})
}

// listen records the warnings and errors that the console would show.
func (p *tab) listen(event any) {
	switch e := event.(type) {
	case *cdpruntime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		p.complain(text)
	case *cdpruntime.EventConsoleAPICalled:
		if e.Type == cdpruntime.ConsoleAPICalledTypeError || e.Type == cdpruntime.ConsoleAPICalledTypeWarning || e.Type == cdpruntime.ConsoleAPICalledTypeAssert {
			var text []string
			for _, arg := range e.Args {
				text = append(text, string(arg.Value)+arg.Description)
			}
			p.complain("console." + string(e.Type) + ": " + strings.Join(text, " "))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			p.complain(fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		}
	case *audits.EventIssueAdded:
		if e.Issue.Details.ContentSecurityPolicyIssueDetails != nil {
			detail, _ := json.Marshal(e.Issue.Details.ContentSecurityPolicyIssueDetails)
			p.complain("content security policy: " + string(detail))
		}
	case *network.EventRequestWillBeSent:
		p.address(e.Request.URL)
	case *network.EventWebSocketCreated:
		p.address(e.URL)
	case *page.EventJavascriptDialogOpening:
		p.complain("a dialog of the browser's own: " + e.Message)
	}
}

// address complains of an address with a token in it, which each begins as this.
func (p *tab) address(url string) {
	if strings.Contains(url, "eyJ") || strings.Contains(url, "token=") {
		p.complain("a token in an address: " + url)
	}
}

func (p *tab) complain(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.forgiven {
		if strings.Contains(text, part) {
			return
		}
	}
	p.complaints = append(p.complaints, text)
}

// do carries out actions.
func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, chatdtest.Patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// eval returns what an expression is.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, chatdtest.Patience)
	defer cancel()
	result, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return result
}

// await polls until an expression is true. An error in it, as between two documents, counts as
// false.
func (p *tab) await(what, expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, chatdtest.Patience)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if holds {
			return
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			p.t.Fatalf("waiting for %s: %s (error %v)", what, expression, err)
		}
	}
}

// text is what a person can see of an element.
func (p *tab) text(selector string) string {
	ctx, cancel := context.WithTimeout(p.ctx, chatdtest.Patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		fmt.Sprintf("document.querySelector(%s)?.innerText ?? ''", quote(selector))))
	if err != nil {
		return err.Error()
	}
	return text
}

// quote writes a string as JavaScript has it.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string can be written
	return string(b)
}
