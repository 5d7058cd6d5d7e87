package webtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"golang.org/x/crypto/bcrypt"

	"github.com/reto10/chat/test/chatdtest"
)

// serve starts chatd over TLS.
func serve(t testing.TB, args ...string) *chatdtest.Process {
	t.Helper()
	return chatd.Start(t, nil, append([]string{"-tls-cert", certificate, "-tls-key", certificateKey}, args...)...)
}

// usersFile is a users file whose passwords are the names backwards (20 letters of
// them at most); names with a star are admins.
func usersFile(t testing.TB, names ...string) string {
	t.Helper()
	var file strings.Builder
	for _, name := range names {
		name, admin := strings.CutSuffix(name, "*")
		hash, err := bcrypt.GenerateFromPassword([]byte(backwards(name)), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&file, "%s:%s", name, hash)
		if admin {
			file.WriteString(":admin")
		}
		file.WriteString("\n")
	}
	return chatdtest.WriteFile(t, "users", file.String())
}

// backwards is a password for a name.
func backwards(name string) string {
	runes := []rune(name)
	slices.Reverse(runes)
	return string(runes[:min(len(runes), 20)])
}

// post publishes a message as a back end does.
func post(t testing.TB, server *chatdtest.Process, token, channel, content string) {
	t.Helper()
	body := map[string]string{"content": content}
	if channel != "" {
		body["channel"] = channel
	}
	b, _ := json.Marshal(body) // strings can be written
	if status, answer := server.Request("POST", "/messages", token, string(b)); status != http.StatusCreated {
		t.Fatalf("POST /messages: %d %s", status, answer)
	}
}

// What a person does.

// logIn fills the form in by the keyboard.
func (p *tab) logIn(user, password string) {
	p.t.Helper()
	p.await("the form", `document.activeElement.id === "username"`)
	p.keys(user + kb.Tab + password + kb.Enter)
}

// enter logs in and waits for the connection.
func (p *tab) enter(user, password string) {
	p.t.Helper()
	p.logIn(user, password)
	p.connected()
}

// connected waits for the connection and the first events.
func (p *tab) connected() {
	p.t.Helper()
	p.await("the connection", `document.querySelector("#state").dataset.state === "open"`)
}

// keys presses keys, wherever the focus is.
func (p *tab) keys(keys string, options ...chromedp.KeyOption) {
	p.t.Helper()
	for _, r := range keys {
		for _, key := range strokes(r, options) {
			p.do(command(input.DispatchKeyEvent, *key))
		}
	}
}

// strokes returns the browser's events for a key: down, with the character that it makes
// unless the page prevents that, and up. (chromedp.KeyEvent sends the character as a
// separate event, which a page cannot prevent.)
func strokes(r rune, options []chromedp.KeyOption) []*input.DispatchKeyEventParams {
	all := kb.Encode(r)
	if len(all) == 3 {
		all[0].Text, all[0].UnmodifiedText = all[1].Text, all[1].UnmodifiedText
		all = slices.Delete(all, 1, 2)
	}
	for _, key := range all {
		for _, option := range options {
			option(key)
		}
	}
	return all
}

// click clicks in the middle of the first element that a selector finds, once it is
// to be seen.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// write puts a text into an element, as an input method does, and presses Enter if it
// ends with that.
func (p *tab) write(selector, text string) {
	p.t.Helper()
	p.click(selector)
	text, enter := strings.CutSuffix(text, kb.Enter)
	p.do(command(input.InsertText, input.InsertTextParams{Text: text}))
	if enter {
		p.keys(kb.Enter)
	}
}

// contents are the messages in the document, in order.
func (p *tab) contents() []string {
	p.t.Helper()
	return eval[[]string](p, `[...document.querySelectorAll("#feed .content")].map((e) => e.textContent)`)
}

// awaitMessage waits until a message is in the feed.
func (p *tab) awaitMessage(content string) {
	p.t.Helper()
	p.await("the message "+content, `[...document.querySelectorAll("#feed .content")].some((e) => e.textContent === `+quote(content)+`)`)
}

// logIn gets a token for somebody in a file of usersFile.
func logIn(t testing.TB, server *chatdtest.Process, name string) (token string) {
	t.Helper()
	status, answer := server.Request("POST", "/login", "", fmt.Sprintf(`{"username":%q,"password":%q}`, name, backwards(name)))
	var fields struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(answer), &fields); err != nil || status != http.StatusOK {
		t.Fatalf("login as %s: %d %s", name, status, answer)
	}
	return fields.AccessToken
}
