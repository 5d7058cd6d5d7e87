package webtest

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// outage has parts of the browser's own messages while there is no server, and of those about
// the request by which chat.js finds the reason.
var outage = []string{"net::ERR_", "WebSocket connection to", "status of 426", "status of 401"}

// lost waits until the page has noticed that the connection is gone.
func (p *tab) lost() {
	p.t.Helper()
	p.await("the loss", `document.querySelector("#state").dataset.state !== "open"`)
}

// marks returns the notes in the feed about the time without a connection.
func (p *tab) marks() []string {
	p.t.Helper()
	return eval[[]string](p, `[...document.querySelectorAll("#feed .mark strong")].map((e) => e.textContent)`)
}

// byChannel sorts messages by their last word: messages of one millisecond may be in any order
// among channels.
func byChannel(contents []string) map[string][]string {
	by := make(map[string][]string)
	for _, content := range contents {
		channel := content[strings.LastIndex(content, " ")+1:]
		by[channel] = append(by[channel], content)
	}
	return by
}

func TestFeedResumesWithoutLossAfterACut(t *testing.T) {
	t.Parallel()
	server := serve(t)
	network := startProxy(t, server.URL)
	p := openTab(t, network.URL+"/", look{forgiven: outage})
	p.enter("admin", chatdtest.Passwords["admin"])
	p.write("#join-name", "ops"+kb.Enter)
	p.await("the channel", `document.querySelector("#view-title").textContent === "#ops"`)
	p.click(`[data-key="all"] button`)
	token := server.Token("admin")
	var want []string
	say := func(channel string) {
		content := fmt.Sprintf("%d to %s", len(want), channel)
		post(t, server, token, channel, content)
		want = append(want, content)
	}
	for range 3 {
		say("")
		say("ops")
		say("@admin")
	}
	p.awaitMessage(want[len(want)-1])
	network.cut()
	p.lost()
	p.await("a countdown", `/^No connection\. Trying again/.test(document.querySelector("#banner-text").textContent)`)
	for range 3 {
		say("ops")
		say("@admin")
		say("")
	}
	// What is written meanwhile waits for the connection.
	p.write("#content", "written without a connection"+kb.Enter)
	p.await("that it waits", `document.querySelector("#composer-hint").textContent === "Your message is sent as soon as there is a connection."`)
	network.mend()
	p.await("the button", `document.querySelector("#state").dataset.state !== "waiting" || (document.querySelector("#banner-action").click(), false)`)
	p.connected()
	want = append(want, "written without a connection")
	p.awaitMessage(want[len(want)-1])
	p.awaitMessage(want[len(want)-2])
	if diff := cmp.Diff(byChannel(want), byChannel(p.contents())); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Connected again: you missed nothing"}, p.marks()); diff != "" {
		t.Errorf("marks (-want +got):\n%s", diff)
	}
	if !eval[bool](p, `document.querySelector("#banner").hidden`) {
		t.Error("the banner stays")
	}
}

func TestRestartWithoutHistorySaysThatSomethingMayBeMissing(t *testing.T) {
	t.Parallel()
	addr := chatdtest.FreeAddr(t)
	server := serve(t, "-addr", addr)
	p := openTab(t, server.URL+"/", look{forgiven: outage})
	p.enter("user", chatdtest.Passwords["user"])
	post(t, server, server.Token("admin"), "", "before")
	p.awaitMessage("before")
	server.Kill()
	p.lost()
	server = serve(t, "-addr", addr)
	p.connected()
	p.await("what it says", `document.querySelector("#feed .mark.gap strong")?.textContent === "Connected again: some messages may be missing"`)
	post(t, server, server.Token("admin"), "", "after")
	p.awaitMessage("after")
	if diff := cmp.Diff([]string{"before", "after"}, p.contents()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if said := p.text("#feed .mark"); !strings.Contains(said, "Everyone") && !strings.Contains(said, "everyone") {
		t.Errorf("the mark does not name the channel: %q", said)
	}
}

func TestRestartWithHistoryMissesNothing(t *testing.T) {
	t.Parallel()
	addr, db := chatdtest.FreeAddr(t), t.TempDir()+"/history.db"
	start := func() *chatdtest.Process {
		return cluster.Start(t, nil, "-tls-cert", certificate, "-tls-key", certificateKey, "-addr", addr, "-history", "sqlite:"+db)
	}
	server := start()
	p := openTab(t, server.URL+"/", look{forgiven: outage})
	p.enter("user", chatdtest.Passwords["user"])
	post(t, server, server.Token("admin"), "", "before")
	p.awaitMessage("before")
	server.Kill()
	p.lost()
	server = start()
	token := server.Token("admin")
	post(t, server, token, "", "meanwhile")
	p.connected()
	post(t, server, token, "", "after")
	p.awaitMessage("after")
	if diff := cmp.Diff([]string{"before", "meanwhile", "after"}, p.contents()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Connected again: you missed nothing"}, p.marks()); diff != "" {
		t.Errorf("marks (-want +got):\n%s", diff)
	}
}

func TestTokenIsRenewedSilently(t *testing.T) {
	t.Parallel()
	server := serve(t, "-token-ttl", "3s", "-log-level", "debug")
	p := openTab(t, server.URL+"/", look{})
	p.enter("user", chatdtest.Passwords["user"])
	logins := func() int { return strings.Count(server.Logged(), "path=/login") }
	wstest.Eventually(t, "three tokens more", func() bool { return logins() >= 4 })
	post(t, server, server.Token("admin"), "", "still here")
	p.awaitMessage("still here")
	if marks := p.marks(); len(marks) != 0 {
		t.Errorf("the page was disconnected: %q", marks)
	}
	if n := strings.Count(server.Logged(), "path=/ws/chat"); n != 1 {
		t.Errorf("%d sockets were opened, not one", n)
	}
}

func TestUserWhoIsGoneIsAskedToLogInAgain(t *testing.T) {
	t.Parallel()
	users := chatdtest.WriteFile(t, "users", chatdtest.Users)
	server := serve(t, "-users", users, "-token-ttl", "3s")
	p := openTab(t, server.URL+"/", look{forgiven: outage})
	p.enter("user", chatdtest.Passwords["user"])
	p.write("#join-name", "ops"+kb.Enter)
	p.await("the channel", `document.querySelector("#view-title").textContent === "#ops"`)
	p.click(`[data-key="all"] button`)
	post(t, server, server.Token("admin"), "", "before")
	p.awaitMessage("before")

	admin, _, _ := strings.Cut(chatdtest.Users, "user:")
	reload := func(content string) {
		t.Helper()
		if err := os.WriteFile(users, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		server.Signal(syscall.SIGHUP)
	}
	reload(admin)
	p.await("the question", `document.querySelector("#again").open && document.activeElement.id === "again-password"`)
	p.keys(chatdtest.Passwords["user"] + kb.Enter)
	p.await("a refusal", `document.querySelector("#again-problem").textContent === "Username or password is wrong."`)
	p.keys(kb.Escape)
	p.await("no dialog", `!document.querySelector("#again").open`)
	if text := p.text("#banner"); !strings.Contains(text, "Your session has ended.") {
		t.Errorf("the banner says %q", text)
	}
	if diff := cmp.Diff([]string{"before"}, p.contents()); diff != "" {
		t.Errorf("without a session (-want +got):\n%s", diff)
	}
	post(t, server, server.Token("admin"), "", "meanwhile")
	post(t, server, server.Token("admin"), "ops", "meanwhile to ops")

	reload(chatdtest.Users)
	p.click("#banner-action")
	p.await("the question again", `document.querySelector("#again").open && document.activeElement.id === "again-password"`)
	wstest.Eventually(t, "the user to be back", func() bool {
		status, _ := server.Request("POST", "/login", "", `{"username":"user","password":"`+chatdtest.Passwords["user"]+`"}`)
		return status == 200
	})
	p.keys(chatdtest.Passwords["user"] + kb.Enter)
	p.connected()
	post(t, server, server.Token("admin"), "", "after")
	p.awaitMessage("after")
	p.awaitMessage("meanwhile to ops")
	if diff := cmp.Diff([]string{"before", "meanwhile", "meanwhile to ops", "after"}, p.contents()); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Connected again: you missed nothing"}, p.marks()); diff != "" {
		t.Errorf("marks (-want +got):\n%s", diff)
	}
}

func TestAdminDisconnectsAUser(t *testing.T) {
	t.Parallel()
	server := serve(t)
	user := openTab(t, server.URL+"/", look{forgiven: outage})
	user.enter("user", chatdtest.Passwords["user"])
	admin := openTab(t, server.URL+"/", look{})
	admin.enter("admin", chatdtest.Passwords["admin"])
	admin.click(`.person[data-name="user"] .cut`)
	admin.await("the question", `document.querySelector("#confirm").open`)
	admin.keys(kb.Escape)
	admin.await("no dialog", `!document.querySelector("#confirm").open`)
	if eval[string](user, `document.querySelector("#state").dataset.state`) != "open" {
		t.Error("the user was disconnected though the question was not answered")
	}
	admin.click(`.person[data-name="user"] .cut`)
	admin.click("#confirm-yes")
	user.await("the news", `document.querySelector("#banner-text").textContent === "An administrator disconnected you."`)
	admin.await("the user to leave the list", `!document.querySelector('.person[data-name="user"]')`)
	post(t, server, server.Token("admin"), "", "meanwhile")
	user.click("#banner-action")
	user.connected()
	user.awaitMessage("meanwhile")
	admin.await("the user in the list again", `document.querySelector('.person[data-name="user"]')`)
}

func TestMessageWithoutAnAnswerIsSaidAndSettled(t *testing.T) {
	t.Parallel()
	server := serve(t)
	network := startProxy(t, server.URL)
	p := openTab(t, network.URL+"/", look{forgiven: outage})
	p.enter("admin", chatdtest.Passwords["admin"])
	p.await("the composer", `document.activeElement.id === "content"`)
	watching := openTab(t, server.URL+"/", look{})
	watching.enter("user", chatdtest.Passwords["user"])

	network.silence()
	p.keys("did this arrive?" + kb.Enter)
	watching.awaitMessage("did this arrive?")
	p.await("that it is on its way", `document.querySelector("#send").textContent === "Sending…"`)
	network.cut()
	p.await("that it may have been sent", `document.querySelector("#composer-problem").textContent.startsWith("The connection broke before the server answered")`)
	if content := eval[string](p, `document.querySelector("#content").value`); content != "did this arrive?" {
		t.Errorf("the composer holds %q", content)
	}
	network.mend()
	p.awaitMessage("did this arrive?")
	p.await("that it is settled", `document.querySelector("#content").value === "" && document.querySelector("#composer-problem").hidden`)
	if diff := cmp.Diff([]string{"did this arrive?"}, watching.contents()); diff != "" {
		t.Errorf("the others see (-want +got):\n%s", diff)
	}
}
