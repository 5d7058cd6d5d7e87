package webtest

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/internal/chatdtest"
	"github.com/reto10/chat/web"
)

// A service may tell of comings and goings at short intervals. The list is not put
// off by those that come on end.
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
