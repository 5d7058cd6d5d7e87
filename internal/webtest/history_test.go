package webtest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/internal/chatdtest"
)

// most is how many messages may be in the document at once.
const most = 300

// upward scrolls to the very first message, and returns the contents of all, from
// that to the last one in the document before. It fails the test when the document
// jumps over one, or holds many.
func (p *tab) upward() []string {
	p.t.Helper()
	seen := eval[string](p, `(async () => {
		const feed = document.querySelector("#feed");
		const contents = () => [...feed.querySelectorAll(".content")].map((e) => e.textContent);
		let all = contents();
		const deadline = Date.now() + 25_000;
		while (document.querySelector("#feed-edge").textContent !== "This is where it begins.") {
			if (Date.now() > deadline) return "too late: " + all.length + " from " + all[0];
			feed.scrollTop = 0;
			await new Promise(requestAnimationFrame);
			const now = contents();
			if (now.length > `+fmt.Sprint(most)+`) return now.length + " messages are in the document";
			const i = now.indexOf(all[0]);
			if (i < 0) return "a jump: " + all[0] + " is not among what begins with " + now[0];
			all = [...now.slice(0, i), ...all];
		}
		return all.join("\n");
	})()`)
	return strings.Split(seen, "\n")
}

func TestHistoryLoadsUpwardWithoutRepeatsOrGaps(t *testing.T) {
	t.Parallel()
	const each = 350
	server := serve(t)
	token := server.Token("admin")
	var want []string
	for i := range each { // two channels whose messages alternate, a third with few
		content := fmt.Sprintf("%d in all", i)
		post(t, server, token, "", content)
		want = append(want, content)
		if i%100 == 50 {
			content = fmt.Sprintf("%d to one", i)
			post(t, server, token, "@user", content)
			want = append(want, content)
		}
		content = fmt.Sprintf("%d in ops", i)
		post(t, server, token, "ops", content)
		want = append(want, content)
	}
	p := openTab(t, server.URL+"/", look{})
	p.enter("user", chatdtest.Passwords["user"])
	p.write("#join-name", "ops"+kb.Enter)
	p.await("the channel", `document.querySelector("#view-title").textContent === "#ops"`)
	p.awaitMessage(fmt.Sprintf("%d in ops", each-1))
	p.click(`[data-key="all"] button`)
	p.awaitMessage(want[len(want)-1])
	atEnd := `(() => { const f = document.querySelector("#feed"); return f.scrollHeight - f.scrollTop - f.clientHeight < 2; })()`
	p.await("the bottom", atEnd)

	seen := p.upward()
	if diff := cmp.Diff(byChannel(want), byChannel(seen)); diff != "" {
		t.Errorf("upward (-want +got):\n%s", diff)
	}

	// Downward again.
	down := eval[string](p, `(async () => {
		const feed = document.querySelector("#feed");
		const contents = () => [...feed.querySelectorAll(".content")].map((e) => e.textContent);
		let all = contents();
		const deadline = Date.now() + 25_000;
		while (!all.includes(`+quote(want[len(want)-1])+`)) {
			if (Date.now() > deadline) return "too late";
			feed.scrollTop = feed.scrollHeight;
			await new Promise(requestAnimationFrame);
			const now = contents();
			const i = now.indexOf(all.at(-1));
			if (i < 0) return "a jump";
			all = [...all, ...now.slice(i + 1)];
		}
		return all.join("\n");
	})()`)
	if diff := cmp.Diff(byChannel(want), byChannel(strings.Split(down, "\n"))); diff != "" {
		t.Errorf("downward (-want +got):\n%s", diff)
	}
}

func TestReaderStaysInPlaceWhileMessagesCome(t *testing.T) {
	t.Parallel()
	server := serve(t)
	token := server.Token("admin")
	for i := range 120 {
		post(t, server, token, "", fmt.Sprintf("old %d", i))
	}
	p := openTab(t, server.URL+"/", look{})
	p.enter("user", chatdtest.Passwords["user"])
	p.awaitMessage("old 119")
	post(t, server, token, "", "while at the bottom")
	p.await("the newest to be seen", `(() => { const f = document.querySelector("#feed"), e = [...f.querySelectorAll(".content")].at(-1);
		return e.textContent === "while at the bottom" && e.getBoundingClientRect().bottom <= f.getBoundingClientRect().bottom; })()`)

	p.await("the beginning", `document.querySelector("#feed-edge").textContent === "This is where it begins." || (document.querySelector("#feed").scrollTop = 0, false)`)
	eval[int](p, `document.querySelector("#feed").scrollTop = 700`)
	// What is at the middle of the feed stays there.
	middle := `(() => { const b = document.querySelector("#feed").getBoundingClientRect();
		const e = document.elementsFromPoint(b.x + b.width / 2, b.y + b.height / 2).find((e) => e.closest(".message")).closest(".message");
		return e.dataset.id + " at " + Math.round(e.getBoundingClientRect().top); })()`
	p.await("rest", `document.querySelector("#feed").scrollTop > 0 && !document.querySelector("#newer").hidden`)
	before := eval[string](p, middle)
	for i := range 30 {
		post(t, server, token, "", fmt.Sprintf("new %d", i))
	}
	p.await("the count", `document.querySelector("#newer").textContent === "30 new messages"`)
	if after := eval[string](p, middle); after != before {
		t.Errorf("the reader was at %s and is at %s", before, after)
	}
	p.click("#newer")
	p.await("the newest to be seen", `(() => { const f = document.querySelector("#feed"), e = [...f.querySelectorAll(".content")].at(-1);
		return e.textContent === "new 29" && e.getBoundingClientRect().bottom <= f.getBoundingClientRect().bottom; })()`)
	p.await("no button", `document.querySelector("#newer").hidden`)
}

// What is kept in memory and in the document is bounded; what was dropped from there
// comes back when it is wanted.
func TestManyLiveMessagesLeaveThePageSmall(t *testing.T) {
	t.Parallel()
	server := serve(t, "-history-count", "10000")
	p := openTab(t, server.URL+"/", look{})
	p.enter("user", chatdtest.Passwords["user"])
	want := make([]string, 5200)
	for i := range want {
		want[i] = fmt.Sprintf("message %d", i)
	}
	admin := startChat(t, server.URL, as("admin"))
	eval[int](admin, fmt.Sprintf("Promise.all(Array.from({ length: %d }, (_, i) => chat.broadcast(`message ${i}`))).then((ids) => ids.length)", len(want)))
	p.awaitMessage(want[len(want)-1])
	if n := len(p.contents()); n > most {
		t.Errorf("%d messages are in the document", n)
	}
	if n := eval[int](p, `performance.getEntriesByType("resource").filter((e) => e.name.includes("/messages?")).length`); n > 10 {
		t.Fatalf("%d requests for earlier messages before anybody wanted them", n)
	}
	if diff := cmp.Diff(want, p.upward()); diff != "" {
		t.Errorf("upward (-want +got):\n%s", diff)
	}
	// Of 5,200 at most 5,000 are kept while they come: the first ones were loaded.
	if n := eval[int](p, `performance.getEntriesByType("resource").filter((e) => e.name.includes("before=") && !e.name.endsWith("before=&limit=50")).length`); n == 0 {
		t.Error("nothing had been dropped from memory")
	}
}
