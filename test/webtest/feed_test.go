package webtest

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
)

func TestAMessageShowsItsSenderTimeAndChannel(t *testing.T) {
	t.Parallel()
	server := serve(t)
	admin := server.Token("admin")
	for _, channel := range []string{"", "@user"} {
		post(t, server, admin, channel, "to "+channel)
	}
	p := openTab(t, server.URL+"/", look{})
	p.logIn("user", chatdtest.Passwords["user"])
	p.awaitMessage("to ")
	p.awaitMessage("to @user")

	// The time is that of the reader's clock, which need not be this one's.
	type shown struct{ Sender, Time string }
	got := eval[map[string]shown](p, `Object.fromEntries([...document.querySelectorAll("#feed .message")].map((e) => [
		e.querySelector(".tag").textContent,
		{ Sender: e.querySelector(".sender").textContent, Time: e.querySelector("time").dateTime + " " + e.querySelector("time").textContent },
	]))`)
	want := make(map[string]shown)
	for channel, label := range map[string]string{"": "everyone", "%40user": "just for you"} {
		status, answer := server.Request("GET", "/messages?channel="+channel, server.Token("user"), "")
		var page struct {
			Messages []struct{ Sender, Time string }
		}
		if err := json.Unmarshal([]byte(answer), &page); err != nil || len(page.Messages) != 1 {
			t.Fatalf("GET /messages: %d %s", status, answer)
		}
		m := page.Messages[0]
		clock := eval[string](p, `((at) => [at.getHours(), at.getMinutes()].map((n) => String(n).padStart(2, "0")).join(":"))(new Date(`+quote(m.Time)+`))`)
		want[label] = shown{m.Sender, m.Time + " " + clock}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the page shows (-want +got):\n%s", diff)
	}
}

// Where the server has dropped older messages, the feed says that they are gone.
func TestDroppedMessagesAreSaid(t *testing.T) {
	t.Parallel()
	server := serve(t, "-history-count", "70")
	admin := server.Token("admin")
	var want []string
	for i := range 100 {
		content := fmt.Sprint(i)
		post(t, server, admin, "", content)
		if i >= 30 {
			want = append(want, content)
		}
	}
	p := openTab(t, server.URL+"/", look{})
	p.logIn("user", chatdtest.Passwords["user"])
	p.awaitMessage("99")
	p.await("the end of what is kept", `((feed) => {
		feed.scrollTop = 0;
		return document.querySelector("#feed-edge").textContent === "Earlier messages are no longer kept.";
	})(document.querySelector("#feed"))`)
	if diff := cmp.Diff(want, p.contents()); diff != "" {
		t.Errorf("what is shown (-want +got):\n%s", diff)
	}
}
