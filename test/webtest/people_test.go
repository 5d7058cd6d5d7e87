package webtest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/reto10/chat"
	chatclient "github.com/reto10/chat/client"
	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/web"
)

// A service may announce joins and leaves at short intervals. They do not delay the
// list, even if they never stop.
func TestPeopleAreListedWhileOthersComeAndGo(t *testing.T) {
	t.Parallel()
	file, err := os.Open(usersFile(t, "admin*", "restless", "late"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	users, err := chat.ParseUsers(file)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := chat.NewHS256([]byte(chatdtest.Secret))
	if err != nil {
		t.Fatal(err)
	}
	service, err := chat.New(chat.NewPasswordLogin(users, signer),
		chat.WithPresenceWindow(50*time.Millisecond), chat.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(web.Handler(service))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), chatdtest.Patience)
		defer cancel()
		_ = service.Shutdown(ctx)
		server.Close()
	})
	admin := openTab(t, server.URL+"/", look{forgiven: outage})
	admin.enter("admin", backwards("admin"))
	admin.write("#join-name", "ops\r")
	admin.await("the channel", `document.querySelector("#view-title").textContent === "#ops"`)
	restless := startChat(t, server.URL, `{ token: login("restless", "sseltser") }`)
	restless.await("the connection", `chat.state === "open"`)
	eval[any](restless, `void (async () => {
		while (chat.state === "open") {
			await (chat.channels.length ? chat.leave("ops") : chat.join("ops"));
			await new Promise((resolve) => setTimeout(resolve, 150));
		}
	})().catch(() => {})`)
	late := startChat(t, server.URL, `{ token: login("late", "etal") }`)
	late.await("the connection", `chat.state === "open"`)
	admin.await("the one who came late", `document.querySelector('#people-list [data-name="late"]')`)
}

// However many users are connected, few are in the document, and the filter finds the others.
func TestManyPeopleStayAShortList(t *testing.T) {
	t.Parallel()
	server := serve(t)
	signer, err := chat.NewHS256([]byte(chatdtest.Secret))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 230 {
		token, err := signer.Issue(chat.User{Name: fmt.Sprintf("person-%03d", i)})
		if err != nil {
			t.Fatal(err)
		}
		c, err := chatclient.Dial(t.Context(), server.URL, chatclient.WithToken(token.AccessToken), chatclient.WithHTTPClient(server.HTTP))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	p := openTab(t, server.URL+"/", look{})
	p.logIn("admin", chatdtest.Passwords["admin"])
	p.await("all to be counted", `document.querySelector("#people-count").textContent === "231"`)
	p.await("a short list", `document.querySelectorAll(".person").length === 200`)
	if got := p.text("#people-more"); !strings.Contains(got, "31 more") {
		t.Errorf("of the others it says %q", got)
	}
	p.accessible("many people")
	p.write("#people-find", "SON-229")
	p.await("the one that is looked for", `document.querySelectorAll(".person").length === 1 && document.querySelector('.person[data-name="person-229"]')`)
	p.write("#people-find", "x")
	p.await("that there is none", `!document.querySelector(".person") && document.querySelector("#people-more").textContent.startsWith("No connected user")`)
}
