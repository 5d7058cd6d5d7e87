package webtest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
)

// most is how many messages may be in the document at once.
const most = 300

// upward scrolls to the first message and returns the contents of all, up to the one that was
// the last in the document. It fails the test if the document skips one or holds too many.
func (p *tab) upward() []string {
	p.t.Helper()
	seen := eval[string](p, `(async () => {
		const feed = document.querySelector("#feed");
		const contents = () => [...feed.querySelectorAll(".content")].map((e) => e.textContent);
		let all = contents();
		const deadline = Date.now() + 50_000;
		while (document.querySelector("#feed-edge").textContent !== "There are no earlier messages.") {
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
		const deadline = Date.now() + 50_000;
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

	p.await("the beginning", `document.querySelector("#feed-edge").textContent === "There are no earlier messages." || (document.querySelector("#feed").scrollTop = 0, false)`)
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

// The messages in memory and in the document are bounded. Dropped ones are loaded again when
// they are needed.
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

// Pages of the history and live messages arrive in every possible order.
func TestHistoryMeetsLiveMessages(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := openTab(t, server.URL+"/", look{})
	p.await("the page", `document.activeElement.id === "username"`)
	eval[bool](p, `import("./timeline.js").then((timeline) => {
		Object.assign(window, timeline);
		window.m = (id, at = id, channel = undefined) => ({ id: String(id), at, channel, content: "" });
		window.page = (from, to, more = false) => ({ messages: Array.from({ length: to - from + 1 }, (_, i) => m(from + i)), more });
		window.ids = (entries) => entries.map((e) => e.id).join(" ");
		window.filled = (...steps) => { const c = new Channel(); for (const step of steps) step(c); return c; };
		window.live = (...all) => (c) => all.forEach((id) => c.append(m(id)));
		window.loaded = (page, before) => (c) => c.prepend(page, before);
		return true;
	})`)
	for _, tt := range []struct{ name, expression, want string }{
		{"the page comes first", `ids(filled(loaded(page(1, 3), ""), live(3, 4)).entries)`, "1 2 3 4"},
		{"live comes first", `ids(filled(live(4, 5), loaded(page(1, 3), "")).entries)`, "1 2 3 4 5"},
		{"they overlap", `ids(filled(live(3, 4), loaded(page(1, 4), ""), live(5)).entries)`, "1 2 3 4 5"},
		{"the page is ahead", `ids(filled(live(3), loaded(page(1, 5), ""), live(4, 5)).entries)`, "1 2 3 4 5"},
		{"a page within what is there", `ids(filled(live(1, 2, 3), loaded(page(2, 3, true), "")).entries)`, "1 2 3"},
		{"the same page twice", `ids(filled(live(5), loaded(page(3, 4, true), "5"), loaded(page(3, 4, true), "5"), loaded(page(1, 2), "3")).entries)`, "1 2 3 4 5"},
		{"a page for what was forgotten", `ids(filled(live(5, 6, 7), (c) => c.trim(1), loaded(page(3, 4, true), "5")).entries)`, "7"},
		{"forgotten and loaded again", `ids(filled(live(5, 6, 7), (c) => c.trim(1), loaded(page(5, 6), "7"), live(7, 8)).entries)`, "5 6 7 8"},
		{"channels by time", `ids(merge([filled(loaded(page(1, 3), "")), { more: false, entries: [m("a", 1), m("b", 2.5)] }], [m("note", 3)]))`, "1 a 2 b 3 note"},
		{"nothing from before where a channel begins", `ids(merge([filled(loaded(page(5, 6, true), "")), { more: false, entries: [m("a", 1), m("b", 5.5)] }], []))`, "5 b 6"},
		{"the one that goes back least is loaded next", `String(hindmost([{ name: "a", more: true, entries: [m(1)] }, { name: "b", more: true, entries: [m(3)] }, { name: "c", more: false, entries: [m(9)] }]).name)`, "b"},
		{"a live message that is late", `String(place([m(1), m(3, 3, "x"), m(5, 5, "x")], m("late", 2)))`, "1"},
		{"not before its own channel's", `String(place([m(1), m(3), m(5, 5, "x")], m("late", 2)))`, "2"},
		{"nor before a note", `String(place([m(1), { mark: "complete", at: 5 }], m("late", 2)))`, "2"},
	} {
		if diff := cmp.Diff(tt.want, eval[string](p, tt.expression)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
