package webtest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"

	"github.com/reto10/chat/test/chatdtest"
)

// axe is axe-core, by npm. It is put into the page by the debugger's protocol, to
// which the page's policy does not apply.
func axe(t testing.TB) string {
	t.Helper()
	const path = "axe/node_modules/axe-core/axe.min.js"
	source, err := os.ReadFile(path)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: make test installs it", err)
		}
		t.Skipf("%v: make test installs it", err)
	}
	return string(source)
}

// accessible fails the test for each violation of a rule in what the tab shows.
func (p *tab) accessible(state string) {
	p.t.Helper()
	eval[string](p, axe(p.t)+"; axe.version")
	found := eval[string](p, `axe.run(document, {
		resultTypes: ["violations", "incomplete"],
		runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
	}).then(({violations, incomplete}) => [...violations, ...incomplete.filter((i) => i.id !== "color-contrast")]
		.flatMap((v) => v.nodes.map((n) => v.id + ": " + v.help + ": " + n.html + "\n" + n.failureSummary))
		.concat(violations.length || document.querySelector("*") ? [] : ["nothing was looked at"]).join("\n\n"))`)
	if found != "" {
		p.t.Errorf("%s:\n%s", state, found)
	}
}

func TestPageIsAccessible(t *testing.T) {
	t.Parallel()
	axe(t)
	for _, l := range []look{
		{},
		{dark: true},
		{width: 390, height: 844, touch: true},
		{width: 390, height: 844, touch: true, dark: true, language: "es"},
	} {
		l.forgiven = append(outage[:len(outage):len(outage)], "status of 401")
		t.Run(fmt.Sprintf("%d wide, dark %v", l.width, l.dark), func(t *testing.T) {
			t.Parallel()
			addr := chatdtest.FreeAddr(t)
			server := serve(t, "-addr", addr, "-users", usersFile(t, "ana*", "bot*", "eva"))
			token := logIn(t, server, "bot")
			post(t, server, token, "", "to everyone")
			post(t, server, token, "ops", "to ops")
			post(t, server, token, "@eva", "to one")
			phone := l.width != 0
			user, admin := openTab(t, server.URL+"/", l), openTab(t, server.URL+"/", l)

			user.logIn("eva", "wrong")
			user.await("what was wrong", `!document.querySelector("#login-problem").hidden`)
			user.accessible("log in, refused")
			user.keys("ave" + kb.Enter)
			user.awaitMessage("to one")
			user.accessible("feed as a user")

			admin.enter("ana", "ana")
			admin.await("the list", `document.querySelectorAll(".person").length === 2`)
			if phone {
				admin.click("#side-open")
				admin.await("the drawer", `document.activeElement.id === "side-close"`)
				admin.accessible("channels in a drawer")
			}
			admin.write("#join-name", "no such channel"+kb.Enter)
			admin.await("what is wrong", `!document.querySelector("#join-problem").hidden`)
			admin.accessible("an invalid channel name")
			eval[string](admin, `document.querySelector("#join-name").value = ""`)
			admin.write("#join-name", "ops"+kb.Enter)
			admin.awaitMessage("to ops")
			post(t, server, token, "", "unread")
			admin.await("a count", `document.querySelector('[data-key="everyone"] .count:not([hidden])')`)
			admin.write("#content", "back to ops")
			admin.accessible("feed as an admin")
			eval[string](admin, `document.querySelector("#content").value = ""`)
			if phone {
				admin.click("#people-open")
				admin.await("the drawer", `document.activeElement.id === "people-close"`)
				admin.accessible("people in a drawer")
			}
			admin.click(`.person[data-name="eva"] .cut`)
			admin.await("the question", `document.querySelector("#confirm").open`)
			admin.accessible("a question")
			admin.click("#confirm-yes")
			user.await("the news", `!document.querySelector("#banner").hidden`)
			user.accessible("disconnected")
			user.click("#banner-action")
			user.connected()
			user.awaitMessage("unread")
			user.accessible("nothing missed")

			server.Kill()
			user.await("a wait", `document.querySelector("#state").dataset.state === "waiting"`)
			user.accessible("no connection")
			serve(t, "-addr", addr, "-users", usersFile(t, "ana*"), "-secret-file", chatdtest.WriteFile(t, "secret", strings.Repeat("x", 32)))
			user.await("the question", `document.querySelector("#again").open`)
			user.accessible("log in again")
			admin.await("what may be missing", `document.querySelector(".mark.gap")`)
			if phone {
				admin.keys(kb.Escape)
			}
			admin.accessible("something may be missing")
		})
	}
}
