package webtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	permissions "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
)

func TestLogInByKeyboardAndBroadcast(t *testing.T) {
	t.Parallel()
	server := serve(t)
	admin := openTab(t, server.URL+"/", look{})
	admin.enter("admin", chatdtest.Passwords["admin"])
	user := openTab(t, server.URL+"/", look{})
	user.enter("user", chatdtest.Passwords["user"])

	admin.await("the focus where one writes", `document.activeElement.id === "content"`)
	admin.keys("lunch is ready")
	admin.keys(kb.Enter, chromedp.KeyModifiers(chromedp.ModifierShift))
	admin.keys("in the kitchen" + kb.Enter)
	for _, p := range []*tab{admin, user} {
		p.awaitMessage("lunch is ready\nin the kitchen")
		head := p.text("#feed .message .head")
		for _, part := range []string{"admin", "everyone", ":"} {
			if !strings.Contains(head, part) {
				t.Errorf("the message's head is %q, without %q", head, part)
			}
		}
	}
	admin.await("an empty composer", `document.querySelector("#content").value === ""`)
}

func TestUserSeesNoComposerAndNobodyElse(t *testing.T) {
	t.Parallel()
	server := serve(t)
	user := openTab(t, server.URL+"/", look{})
	user.enter("user", chatdtest.Passwords["user"])
	post(t, server, server.Token("admin"), "", "hello")
	user.awaitMessage("hello")
	for _, id := range []string{"composer", "people", "people-open"} {
		if !eval[bool](user, `document.getElementById(`+quote(id)+`).getClientRects().length === 0`) {
			t.Errorf("a non-admin sees #%s", id)
		}
	}
}

func TestWrongPasswordIsSaid(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{forgiven: []string{"status of 401"}})
	p.logIn("admin", "wrong")
	p.await("what was wrong", `document.querySelector("#login-problem").textContent === "Username or password is wrong."`)
	p.keys(chatdtest.Passwords["admin"] + kb.Enter) // in place of the wrong one
	p.connected()
}

func TestTooManyWrongPasswordsAreSaid(t *testing.T) {
	t.Parallel()
	server := serve(t)
	for range 10 {
		if status, _ := server.Request("POST", "/login", "", `{"username":"admin","password":"wrong"}`); status != http.StatusUnauthorized {
			t.Fatalf("status %d", status)
		}
	}
	p := openTab(t, server.URL+"/", look{forgiven: []string{"status of 429"}})
	p.logIn("admin", chatdtest.Passwords["admin"])
	p.await("how long to wait", `/^Too many attempts\. Try again in \d+ seconds?\.$/.test(document.querySelector("#login-problem").textContent)`)
}

func TestMessageStaysText(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{width: 390, height: 844, touch: true})
	p.enter("user", chatdtest.Passwords["user"])
	token := server.Token("admin")
	hostile := []string{
		`<script>document.title = "taken"</script>`,
		`<img src=x onerror="document.title='taken'">`,
		`</p></article><style>body{display:none}</style>`,
		`javascript:alert(1) &lt;b&gt; ${1+1} {{1+1}}`,
		strings.Repeat("w", 3000),
		"\u202eevil\u202c مرحبا <b>\u2066",
		"  spaces   and\n\n\tlines  ",
	}
	for _, content := range hostile {
		post(t, server, token, "", content)
	}
	p.awaitMessage(hostile[len(hostile)-1])
	if diff := cmp.Diff(hostile, p.contents()); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
	if title := eval[string](p, "document.title"); title != "Chat" {
		t.Errorf("the title is %q", title)
	}
	if n := eval[int](p, `document.querySelectorAll("#feed script, #feed img, #feed style, #feed b").length`); n != 0 {
		t.Errorf("%d elements were made of messages", n)
	}
	p.fits()
}

// fits fails the test if anything exceeds the window or its column.
func (p *tab) fits() {
	p.t.Helper()
	wide := eval[string](p, `["html", "#feed", "#side", "#channels", "#people", "#people-list", ".pane-head", "#composer"].
		filter((s) => { const e = document.querySelector(s); return e.scrollWidth > e.clientWidth || e.getBoundingClientRect().width > innerWidth; }).join(" ")`)
	if wide != "" {
		p.t.Errorf("too wide: %s", wide)
	}
}

func TestLongNamesFit(t *testing.T) {
	t.Parallel()
	long, channel := strings.Repeat("W", 128), strings.Repeat("m", 128)
	server := serve(t, "-users", usersFile(t, long+"*", "eva"))
	for _, l := range []look{{}, {width: 390, height: 844, touch: true}} {
		p := openTab(t, server.URL+"/", l)
		p.enter(long, backwards(long))
		if l.width != 0 {
			p.click("#side-open")
		}
		p.write("#join-name", channel+kb.Enter)
		p.await("the channel", `document.querySelector("#view-title").textContent === `+quote("#"+channel))
		p.write("#content", "hello"+kb.Enter)
		p.awaitMessage("hello")
		p.await("the list", `document.querySelector(".person")`)
		p.fits()
	}
}

func TestTextThatWasBegunKeepsItsTarget(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{})
	p.enter("admin", chatdtest.Passwords["admin"])
	p.write("#join-name", "ops"+kb.Enter)
	p.await("the channel as a target", `document.querySelector("#to").value === "#ops"`)
	p.write("#content", "for ops alone")
	p.click(`[data-key="all"] button`)
	p.await("the view", `document.querySelector("#view-title").textContent === "All messages"`)
	p.click("#content")
	p.keys(kb.Enter)
	p.awaitMessage("for ops alone")
	if tag := p.text("#feed .message .tag"); tag != "#ops" {
		t.Errorf("a text that was begun for #ops went to %s", tag)
	}
	p.click(`[data-key="everyone"] button`)
	p.await("everyone as a target", `document.querySelector("#to").value === ""`)
}

func TestChannelsAreJoinedAndLeft(t *testing.T) {
	t.Parallel()
	server := serve(t)
	token := server.Token("admin")
	post(t, server, token, "ops", "before")
	p := openTab(t, server.URL+"/", look{})
	p.enter("user", chatdtest.Passwords["user"])
	post(t, server, token, "", "to all")
	p.awaitMessage("to all")

	p.write("#join-name", "no such name"+kb.Enter)
	p.await("what is wrong with it", `document.querySelector("#join-problem").textContent.startsWith("A channel's name")`)
	eval[string](p, `document.querySelector("#join-name").value = ""`)
	p.write("#join-name", "#ops"+kb.Enter)
	p.awaitMessage("before")
	post(t, server, token, "ops", "to ops")
	p.awaitMessage("to ops")
	if diff := cmp.Diff([]string{"before", "to ops"}, p.contents()); diff != "" {
		t.Errorf("in the channel (-want +got):\n%s", diff)
	}
	post(t, server, token, "", "unread")
	p.await("a count", `document.querySelector('[data-key="everyone"] .count:not([hidden])')?.textContent === "1"`)
	p.click(`[data-key="all"] button`)
	p.awaitMessage("unread")
	if diff := cmp.Diff([]string{"before", "to all", "to ops", "unread"}, p.contents()); diff != "" {
		t.Errorf("in all (-want +got):\n%s", diff)
	}
	p.await("no count", `!document.querySelector('[data-key="everyone"] .count:not([hidden])')`)

	p.click(`[data-key="#ops"] .leave`)
	p.await("the channel to go", `!document.querySelector('[data-key="#ops"]')`)
	post(t, server, token, "ops", "not for us any more")
	post(t, server, token, "", "for us")
	p.awaitMessage("for us")
	if diff := cmp.Diff([]string{"to all", "unread", "for us"}, p.contents()); diff != "" {
		t.Errorf("without the channel (-want +got):\n%s", diff)
	}
}

func TestLeavingTheChannelOnShow(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{})
	p.enter("user", chatdtest.Passwords["user"])
	p.write("#join-name", "ops"+kb.Enter)
	p.await("the channel", `document.querySelector("#view-title").textContent === "#ops"`)
	token := server.Token("admin")
	// Messages come all the while.
	ctx, stop := context.WithCancel(t.Context())
	var posting sync.WaitGroup
	posting.Go(func() {
		for ctx.Err() == nil {
			post(t, server, token, "ops", "to ops")
		}
	})
	p.awaitMessage("to ops")
	p.click(`[data-key="#ops"] .leave`)
	p.await("all that is left", `document.querySelector("#view-title").textContent === "All messages" && !document.querySelector('[data-key="#ops"]')`)
	stop()
	posting.Wait()
	post(t, server, token, "", "to all")
	p.awaitMessage("to all")
	if diff := cmp.Diff([]string{"to all"}, p.contents()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestComposingToAChannelAndToOnePerson(t *testing.T) {
	t.Parallel()
	server := serve(t, "-users", usersFile(t, "ana*", "eva", "luis"))
	eva, luis := openTab(t, server.URL+"/", look{}), openTab(t, server.URL+"/", look{})
	eva.enter("eva", "ave")
	luis.enter("luis", "siul")
	luis.write("#join-name", "ops"+kb.Enter)
	luis.await("the channel", `document.querySelector('[data-key="#ops"]')`)
	luis.click(`[data-key="all"] button`)
	ana := openTab(t, server.URL+"/", look{})
	ana.enter("ana", "ana")

	ana.await("eva in the list", `document.querySelector('.person[data-name="eva"]')`)
	ana.click(`.person[data-name="eva"] .write-to`)
	ana.await("the target", `document.querySelector("#to").value === "@eva" && document.activeElement.id === "content"`)
	ana.keys("for eva" + kb.Enter)
	eva.awaitMessage("for eva")
	ana.awaitMessage("for eva") // it does not come back, so the page itself shows what was sent
	ana.await("whom it went to", `document.querySelector("#feed .message .tag").textContent === "to eva"`)

	choose := func(option, name string) {
		t.Helper()
		ana.await("the composer to be free", `!document.querySelector("#to").disabled`)
		eval[bool](ana, `(() => { const to = document.querySelector("#to"); to.value = `+quote(option)+`; to.dispatchEvent(new Event("change", {bubbles: true})); return true; })()`)
		ana.await("the name's field", `document.activeElement.id === "to-name"`)
		ana.keys(name)
	}
	choose("+#", "ops")
	ana.write("#content", "for ops"+kb.Enter)
	luis.awaitMessage("for ops")
	choose("+@", "luis")
	ana.write("#content", "for luis"+kb.Enter)
	luis.awaitMessage("for luis")
	choose("+@", "")
	ana.write("#content", "for nobody"+kb.Enter)
	ana.await("what is missing", `document.querySelector("#composer-problem").textContent === "Enter a recipient."`)
	if content := eval[string](ana, `document.querySelector("#content").value`); content != "for nobody" {
		t.Errorf("the composer holds %q, not what was not sent", content)
	}
	eval[string](ana, `document.querySelector("#content").value = ""`)
	post(t, server, logIn(t, server, "ana"), "", "end")
	eva.awaitMessage("end")
	luis.awaitMessage("end")
	if diff := cmp.Diff([]string{"for eva", "end"}, eva.contents()); diff != "" {
		t.Errorf("eva sees (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"for ops", "for luis", "end"}, luis.contents()); diff != "" {
		t.Errorf("luis sees (-want +got):\n%s", diff)
	}
}

func TestTooLongMessageIsSaidAndKept(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{})
	p.enter("admin", chatdtest.Passwords["admin"])
	p.await("the composer", `!document.querySelector("#composer").hidden`)
	// Its JSON is past what a frame may be, so the socket is closed over it.
	for _, length := range []int{32<<10 + 1, 40 << 10} {
		eval[bool](p, fmt.Sprintf(`(() => { document.querySelector("#content").value = "é".repeat(%d); return true; })()`, length/2+1))
		p.click("#send")
		p.await("what is wrong", `document.querySelector("#composer-problem").textContent.startsWith("This is too long")`)
		if n := eval[int](p, `document.querySelector("#content").value.length`); n != length/2+1 {
			t.Errorf("%d characters are left of %d", n, length/2+1)
		}
		p.connected()
	}
	eval[string](p, `document.querySelector("#content").value = ""`)
}

func TestTwoTabsOfOneUser(t *testing.T) {
	t.Parallel()
	server := serve(t)
	one, two := openTab(t, server.URL+"/", look{}), openTab(t, server.URL+"/", look{})
	one.enter("admin", chatdtest.Passwords["admin"])
	two.enter("admin", chatdtest.Passwords["admin"])
	// Another socket of the same user is no news: the list is asked for every so
	// often, and when the page comes into sight.
	const looked = `document.dispatchEvent(new Event("visibilitychange")) && `
	one.await("both in the list", looked+`document.querySelector('.person[data-name="admin"] .detail')?.textContent.startsWith("2 sockets")`)
	one.write("#content", "from one"+kb.Enter)
	two.awaitMessage("from one")
	two.write("#content", "from two"+kb.Enter)
	one.awaitMessage("from two")
	two.click("#logout")
	two.await("the form", `document.activeElement.id === "username"`)
	if text := two.text("body"); strings.Contains(text, "from one") {
		t.Errorf("logged out, the page still shows:\n%s", text)
	}
	one.await("one in the list", looked+`document.querySelector('.person[data-name="admin"] .detail')?.textContent.startsWith("1 socket ")`)
	if diff := cmp.Diff([]string{"from one", "from two"}, one.contents()); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
}

func TestSpanish(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{language: "es-MX,es,en", forgiven: []string{"status of 401"}})
	p.logIn("admin", "wrong")
	p.await("what was wrong", `document.querySelector("#login-problem").textContent === "El usuario o la contraseña no son correctos."`)
	p.keys(chatdtest.Passwords["admin"] + kb.Enter)
	p.connected()
	p.await("the list", `document.querySelector(".person .detail")?.textContent.startsWith("1 conexión · desde ")`)
	if lang := eval[string](p, "document.documentElement.lang"); lang != "es" {
		t.Errorf("lang is %q", lang)
	}
	text := p.text("body")
	for _, part := range []string{"Todos los mensajes", "En línea", "Enviar", "Salir"} {
		if !strings.Contains(text, part) {
			t.Errorf("the page does not say %q:\n%s", part, text)
		}
	}
}

func TestOtherLanguagesGetEnglish(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{language: "eu-ES,eu"})
	p.await("the form", `document.querySelector("#login-button").textContent === "Log in" && document.documentElement.lang === "en"`)
}

func TestBothLanguagesSayEverything(t *testing.T) {
	t.Parallel()
	server := serve(t)
	keys := make(map[string]string)
	for _, language := range []string{"en", "es"} {
		p := openTab(t, server.URL+"/", look{language: language})
		p.await("the form", `document.activeElement.id === "username"`)
		keys[language] = eval[string](p, `import("./text.js").then((m) => m.keys().map(([key, names]) => key + names).join("\n"))`)
	}
	if diff := cmp.Diff(strings.Split(keys["en"], "\n"), strings.Split(keys["es"], "\n")); diff != "" {
		t.Errorf("texts (-English +Spanish):\n%s", diff)
	}
}

func TestPageCanBeTurnedOff(t *testing.T) {
	t.Parallel()
	server := serve(t, "-page=false")
	p := openTab(t, server.URL+"/", look{forgiven: []string{"status of 404"}})
	p.await("the answer", `document.body.innerText.includes("Not Found")`)
	for _, path := range []string{"/chat.js", "/page.js", "/page.css", "/index.html"} {
		if status, _ := server.Request("GET", path, "", ""); status != http.StatusNotFound {
			t.Errorf("%s: status %d", path, status)
		}
	}
}

func TestUnseenMessagesAreCountedInTheTitle(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{})
	p.enter("user", chatdtest.Passwords["user"])
	eval[bool](p, `(() => { Object.defineProperty(document, "hidden", {value: true, configurable: true}); return true; })()`)
	token := server.Token("admin")
	post(t, server, token, "", "one")
	post(t, server, token, "", "two")
	p.await("the count", `document.title === "(2) Chat"`)
	eval[bool](p, `(() => { delete document.hidden; return document.dispatchEvent(new Event("visibilitychange")); })()`)
	p.await("no count", `document.title === "Chat"`)
}

func TestPageWorksBelowAPrefix(t *testing.T) {
	t.Parallel()
	server := serve(t)
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(certificate, certificateKey)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/team/chat/", http.StripPrefix("/team/chat", &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		Transport: server.HTTP.Transport,
	}))
	front := httptest.NewUnstartedServer(mux)
	front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	front.StartTLS()
	t.Cleanup(front.Close)

	p := openTab(t, front.URL+"/team/chat/", look{})
	p.enter("admin", chatdtest.Passwords["admin"])
	p.await("the focus where one writes", `document.activeElement.id === "content"`)
	p.keys("from below" + kb.Enter)
	p.awaitMessage("from below")
	p.await("the list", `document.querySelector('.person[data-name="admin"]')`)
}

func TestNotificationsOfWhatIsNotSeen(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{})
	// What it shows is noted, and shown.
	eval[bool](p, `(() => {
		window.shown = [];
		window.Notification = class extends Notification {
			constructor(title, options) { super(title, options); shown.push(title + ": " + options.body); }
		};
		return true;
	})()`)
	p.enter("user", chatdtest.Passwords["user"])
	hide := func(hidden bool) {
		t.Helper()
		eval[bool](p, fmt.Sprintf(`Object.defineProperty(document, "hidden", {value: %v, configurable: true}) === document`, hidden))
	}
	token := server.Token("admin")
	p.click("#notify") // which nobody allows
	p.await("why not", `document.querySelector("#notify-state").textContent === "Blocked by the browser"`)
	hide(true)
	post(t, server, token, "", "not allowed")
	p.awaitMessage("not allowed")
	hide(false)

	if _, err := chromedp.CallBrowser(p.ctx, permissions.SetPermission, permissions.SetPermissionParams{
		Permission:       &permissions.PermissionDescriptor{Name: "notifications"},
		Setting:          permissions.PermissionSettingGranted,
		Origin:           server.URL,
		BrowserContextID: chromedp.FromContext(p.ctx).BrowserContextID,
	}); err != nil {
		t.Fatal(err)
	}
	p.click("#notify")
	p.await("that it is on", `document.querySelector("#notify").ariaPressed === "true"`)
	post(t, server, token, "", "seen")
	p.awaitMessage("seen")
	hide(true)
	post(t, server, token, "@user", "not seen")
	p.await("the notification", `shown.length > 0`)
	hide(false)
	p.click("#notify")
	p.await("that it is off", `document.querySelector("#notify").ariaPressed === "false"`)
	hide(true)
	post(t, server, token, "", "not wanted")
	p.awaitMessage("not wanted")
	if diff := cmp.Diff([]string{"admin: not seen"}, eval[[]string](p, "shown")); diff != "" {
		t.Errorf("notifications (-want +got):\n%s", diff)
	}
}
