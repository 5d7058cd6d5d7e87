package clienttest

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestForeignClients(t *testing.T) {
	t.Parallel()
	for _, i := range implementations {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			i.require(t)
			for _, w := range ways {
				t.Run(w.name, func(t *testing.T) {
					t.Parallel()
					converse(t, &i, w)
				})
			}
			t.Run("server with a stranger's certificate", func(t *testing.T) {
				t.Parallel()
				server := startChatd(t)
				a := i.start(t, newAuthority(t))
				a.do(command{Do: "connect", URL: "wss://" + server.address + "/ws/chat"})
				if e := a.next(); e.Event != "failed" || !strings.Contains(e.Text, "certificate") {
					t.Errorf("event %+v, want a failure because of the certificate", e)
				}
			})
		})
	}
}

// converse uses everything that the protocol has for clients, from the login to the end of
// the server.
func converse(t *testing.T, i *implementation, w way) {
	server := startChatd(t)
	admin := logIn(t, i, w, server, "admin")
	user := logIn(t, i, w, server, "user")

	user.dial(user.token[:len(user.token)-8]+"AAAAAAAA", "")
	user.expect("connecting with a forged token", event{Event: "refused", Status: http.StatusUnauthorized})
	wantWelcome(t, "admin", admin, message{Role: "admin"})
	wantWelcome(t, "user", user, message{Role: "user"})

	const text = "to everyone: “zażółć gęślą jaźń” 🔔"
	admin.broadcast(text)
	user.hear(text)

	refused := message{Type: "error", Ref: user.say("me too"), Code: "forbidden"}
	if diff := cmp.Diff(refused, user.want("error")); diff != "" {
		t.Fatalf("a user broadcasting (-want +got):\n%s", diff)
	}
	admin.broadcast("nobody got that")
	user.hear("nobody got that")

	user.do(command{Do: "ping", Text: "are you there?"})
	user.expect("pinging", event{Event: "pong", Text: "are you there?"})

	recovered := true
	for _, end := range []struct {
		how string
		end func()
	}{
		{"disconnected by the admin", func() {
			admin.post("/users/user/disconnect", "")
			admin.expect("disconnecting", event{Event: "response", Status: http.StatusOK, Text: `{"closed":1}` + "\n"})
			user.closed(4002)
		}},
		{"closed by the user", func() {
			user.do(command{Do: "close", Code: 1000})
			user.closed(1000)
		}},
		{"dropped", func() {
			user.do(command{Do: "drop"})
			user.closed(1006)
		}},
	} {
		end.end()
		for _, text := range []string{"missed", "missed too", "and missed"} {
			admin.broadcast(text)
		}
		wantWelcome(t, end.how, user, message{Role: "user", Recovered: &recovered})
		user.hear("missed", "missed too", "and missed")
		admin.broadcast("live again")
		user.hear("live again")
	}

	server.Signal(syscall.SIGTERM)
	admin.closed(1001)
	user.closed(1001)
	server.wait(t)
}

// wantWelcome connects and compares the welcome, where the user has the name of
// the role.
func wantWelcome(t *testing.T, when string, c *client, want message) {
	t.Helper()
	want.Type, want.User = "welcome", want.Role
	if diff := cmp.Diff(want, c.connect()); diff != "" {
		t.Fatalf("%s: welcome (-want +got):\n%s", when, diff)
	}
}
