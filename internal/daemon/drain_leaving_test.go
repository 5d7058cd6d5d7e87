package daemon

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/wstest"
)

func TestTheDrainDelayIsAwaitedUnlessTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		awaitDrainDelay(t.Context(), 3*time.Second)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		awaitDrainDelay(t.Context(), 0)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		awaitDrainDelay(ctx, 3*time.Second)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("without a delay, or after the context ended, it took %v", took)
		}
	})
}

func TestLeavingEndsConnectionsWithTheirNextAnswer(t *testing.T) {
	srv := newDrainServer(&http.Server{Handler: http.NotFoundHandler()})
	ask := func() string {
		answer := httptest.NewRecorder()
		srv.Handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/", nil))
		return answer.Header().Get("Connection")
	}
	if got := ask(); got != "" {
		t.Errorf("before: Connection: %s", got)
	}
	srv.leave()
	if got := ask(); got != "close" {
		t.Errorf("after: Connection: %s", got)
	}
}

// A proxy also keeps the connections of refused handshakes.
func TestLeavingEndsTheConnectionsOfRefusedHandshakes(t *testing.T) {
	signer, err := chat.NewHS256([]byte(strings.Repeat("s", chat.MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	token, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleUser})
	if err != nil {
		t.Fatal(err)
	}
	const socket = wstest.UpgradeHeaders
	authorized := "Authorization: Bearer " + token.AccessToken + "\r\n"
	tests := map[string]struct {
		path, header string
		status       int
		closes       bool
		upgrades     bool
	}{
		"without a token":   {"/ws/chat", socket, http.StatusUnauthorized, true, false},
		"no WebSocket":      {"/ws/chat", "Connection: Upgrade\r\nUpgrade: x\r\n" + authorized, http.StatusUpgradeRequired, true, false},
		"elsewhere":         {"/messages", "Connection: Upgrade\r\nUpgrade: x\r\n" + authorized, http.StatusOK, true, false},
		"one that is taken": {"/ws/chat", socket + authorized, http.StatusSwitchingProtocols, false, true},
	}
	for level, log := range map[string]*slog.Logger{
		"quiet": slog.New(slog.DiscardHandler),
		"debug": slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})),
	} {
		service, err := chat.New(signer, chat.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		leaving := newDrainServer(&http.Server{Handler: accessLog(service, log, func(*http.Request) string { return "" })})
		leaving.leave()
		srv := httptest.NewServer(leaving.Handler)
		t.Cleanup(func() {
			_ = service.Shutdown(context.Background())
			srv.Close()
		})
		for name, tt := range tests {
			t.Run(name+", "+level, func(t *testing.T) {
				conn, err := net.Dial("tcp", srv.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, "GET "+tt.path+" HTTP/1.1\r\nHost: x\r\n"+tt.header+"\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				connection := strings.ToLower(strings.Join(resp.Header.Values("Connection"), ", "))
				closes, upgrades := strings.Contains(connection, "close") || resp.Close, strings.Contains(connection, "upgrade")
				if resp.StatusCode != tt.status || closes != tt.closes || upgrades != tt.upgrades {
					t.Errorf("status %d, Connection %q, want %d, closing %t, upgrade %t",
						resp.StatusCode, connection, tt.status, tt.closes, tt.upgrades)
				}
				if !tt.closes {
					return
				}
				_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := io.Copy(io.Discard, conn); err != nil {
					t.Errorf("the connection is kept: %v", err)
				}
			})
		}
	}
}
