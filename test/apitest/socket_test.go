package apitest

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"nhooyr.io/websocket"

	"github.com/reto10/chat"
	"github.com/reto10/chat/test/chatdtest"
)

// TestSocket causes every documented message, error and close code.
func TestSocket(t *testing.T) {
	e := newEvents(t)
	t.Run("commands", func(t *testing.T) { command(t, e) })
	t.Run("text", func(t *testing.T) { talk(t, e) })
	t.Run("coming back", func(t *testing.T) { comeBack(t, e) })
	t.Run("too large", func(t *testing.T) { sendTooMuch(t, e) })
	t.Run("ends", func(t *testing.T) { end(t, e) })
	t.Run("too slow", func(t *testing.T) { readNothing(t, e) })
	t.Run("without Redis", func(t *testing.T) { commandWithoutRedis(t, e) })
	for _, missing := range e.unseen(t) {
		t.Errorf("documented and never seen: %s", missing)
	}
}

// asks sends a command with a ref and returns its answer.
func (p *peer) asks(frame string, ref any) object {
	p.t.Helper()
	return p.answer(p.send(frame), isAnswer(ref))
}

func wantCode(t *testing.T, answer object, code string) {
	t.Helper()
	if answer["code"] != code {
		t.Errorf("answer %v, want the error %s", answer, code)
	}
}

func wantAck(t *testing.T, answer object) {
	t.Helper()
	if answer["type"] != "ack" {
		t.Errorf("answer %v, want an ack", answer)
	}
}

func command(t *testing.T, e *events) {
	d := chatd.Start(t, nil)
	tokens := map[string]string{"admin": d.Token("admin"), "user": d.Token("user")}
	admin := e.connect(t, d, "commands", tokens["admin"], "?channel=ops")
	user := e.connect(t, d, "commands", tokens["user"], "")
	admin.hears("user_joined", "user", nil)

	wantAck(t, admin.asks(`{"type":"broadcast","content":"to everyone","ref":1}`, 1.0))
	first := admin.asks(`{"type":"broadcast","content":"é \"<b>\"\n","channel":"ops","ref":"two"}`, "two")["id"]
	wantAck(t, admin.asks(`{"type":"broadcast","content":"to one","channel":"@user","ref":-3.5e1}`, -35.0))
	wantAck(t, admin.asks(`{"type":"broadcast","content":"without a ref"}`, nil))
	if got := user.until("message"); got["content"] != "to everyone" || got["channel"] != nil {
		t.Errorf("message %v", got)
	}
	if got := user.until("message"); got["channel"] != "@user" {
		t.Errorf("message %v", got)
	}

	wantAck(t, user.asks(`{"type":"join","channel":"ops","ref":1}`, 1.0))
	admin.hears("user_joined", "user", "ops")
	admin.asks(`{"type":"broadcast","content":"more","channel":"ops","ref":2}`, 2.0)
	wantAck(t, user.asks(fmt.Sprintf(`{"type":"join","channel":"ops","since":%q,"ref":2}`, first), 2.0))
	wantAck(t, user.asks(`{"type":"join","channel":"ops","since":"1-lost-ops","ref":3}`, 3.0))
	wantAck(t, user.asks(`{"type":"leave","channel":"ops","ref":4}`, 4.0))
	admin.hears("user_left", "user", "ops")
	wantCode(t, user.asks(`{"type":"leave","channel":"ops","ref":5}`, 5.0), "not_joined")
	wantAck(t, user.asks(`{"type":"refresh","token":"`+d.Token("user")+`","ref":6}`, 6.0))
	wantCode(t, user.asks(`{"type":"broadcast","content":"x","ref":7}`, 7.0), "forbidden")
	wantCode(t, user.asks(`{"type":"join","channel":"@admin","ref":8}`, 8.0), "forbidden")
	for i, wrong := range []string{
		`{"type":"broadcast"REF}`, `{"type":"broadcast","content":""REF}`, `{"type":"broadcast","content":"a\u0000b"REF}`,
		`{"type":"broadcast","content":"x","channel":"no/name"REF}`, `{"type":"broadcast","content":"x","more":1REF}`,
		`{"type":"broadcast","content":"x","channel":nullREF}`, `{"type":"broadcast","content":"x","token":"y"REF}`,
		`{"type":"join"REF}`, `{"type":"join","channel":""REF}`, `{"type":"leave"REF}`, `{"type":"refresh"REF}`,
		`{"type":"shout","content":"x"REF}`, `{"content":"x"REF}`,
	} {
		admin.sendWrong(strings.Replace(wrong, "REF", fmt.Sprintf(`,"ref":%d`, i), 1))
		wantCode(t, admin.answer("broadcast", isAnswer(float64(i))), "invalid")
	}
	for _, wrong := range []string{`[]`, `text`, `{"type":"broadcast","content":"x","ref":{}}`, `{"type":"broadcast","content":"x","ref":"` + strings.Repeat("r", 127) + `"}`} {
		admin.sendWrong(wrong)
		wantCode(t, admin.answer("broadcast", isError), "invalid")
	}

	user.conn.CloseNow()
	admin.hears("user_left", "user", nil)
}

func talk(t *testing.T, e *events) {
	d := chatd.Start(t, nil)
	admin := e.connect(t, d, "text", d.Token("admin"), "")
	user := e.connect(t, d, "text", d.Token("user"), "?channel=ops")
	admin.hears("user_joined", "user", nil)
	isMessage := func(event object) bool { return event["type"] == "message" }
	if got := admin.answer(admin.send(`{"not":"a command"}`), isMessage); got["content"] != `{"not":"a command"}` {
		t.Errorf("message %v", got)
	}
	user.until("message")
	wantCode(t, user.answer(user.send("me too"), isError), "forbidden")
	admin.sendWrong("")
	wantCode(t, admin.answer("text", isError), "invalid")
	admin.sendWrong("a\x00b")
	wantCode(t, admin.answer("text", isError), "invalid")
	user.conn.CloseNow()
	admin.hears("user_left", "user", nil)
}

func comeBack(t *testing.T, e *events) {
	d := chatd.Start(t, nil)
	admin, user := d.Token("admin"), d.Token("user")
	publisher := e.connect(t, d, "commands", admin, "")
	var ids []string
	for range 3 {
		ids = append(ids, publisher.asks(`{"type":"broadcast","content":"x","ref":1}`, 1.0)["id"].(string))
	}
	for _, channel := range []string{"commands", "text"} {
		p := e.connect(t, d, channel, user, "?since="+url.QueryEscape(ids[0]))
		for _, want := range ids[1:] {
			if got := p.until("message")["id"]; got != want {
				t.Errorf("came back to %v, want %s", got, want)
			}
		}
		e.connect(t, d, channel, user, "?since=1-lost")
	}
}

// sendTooMuch asks a service whose limit of the content is not that of the frame,
// as chatd's is.
func sendTooMuch(t *testing.T, e *events) {
	d, signer := embedded(t, chat.WithContentLimit(8))
	token, err := signer.Issue(chat.User{Name: "ana", Role: chat.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	admin := e.connect(t, d, "commands", token.AccessToken, "")
	wantCode(t, admin.asks(`{"type":"broadcast","content":"123456789","ref":1}`, 1.0), "too_large")
	wantAck(t, admin.asks(`{"type":"broadcast","content":"12345678","ref":2}`, 2.0))
}

func end(t *testing.T, e *events) {
	d := chatd.Start(t, nil)
	admin, user := d.Token("admin"), d.Token("user")
	connect := func() *peer { return e.connect(t, d, "commands", user, "") }

	p := connect()
	p.write(websocket.MessageBinary, "binary")
	p.closed(1003)
	p = connect()
	p.write(websocket.MessageText, "\xff")
	p.closed(1007)
	p = connect()
	p.sendWrong(`{"type":"broadcast","content":"` + strings.Repeat("x", 32<<10+1) + `"}`)
	p.closed(1009)
	p = connect()
	p.send(`{"type":"refresh","token":"forged"}`)
	p.closed(4001)
	p = connect()
	d.Request("POST", "/users/user/disconnect", admin, "")
	p.closed(4002)

	p = connect()
	for i := range 10 * 40 { // far more than are let pass meanwhile
		if err := p.conn.Write(p.within(), websocket.MessageText, fmt.Appendf(nil, `{"type":"join","channel":"ops","ref":%d}`, i)); err != nil {
			break // closed already
		}
	}
	wantCode(t, p.answer("join", isError), "rate_limited")
	p.closed(4005)

	for range 16 {
		p = e.connect(t, d, "text", admin, "")
	}
	if status, answer := d.Request("GET", "/ws/chat", admin, ""); status != http.StatusTooManyRequests {
		t.Errorf("one socket too many: %d %s, want 429", status, answer)
	}

	replacing, signer := embedded(t, chat.WithSocketsPerUser(1), chat.WithReplaceOldest())
	token, err := signer.Issue(chat.User{Name: "ana"})
	if err != nil {
		t.Fatal(err)
	}
	oldest := e.connect(t, replacing, "text", token.AccessToken, "")
	e.connect(t, replacing, "text", token.AccessToken, "")
	oldest.closed(4004)

	breakRules(t, e, d, user)
	d.Signal(syscall.SIGTERM)
	p.closed(1001)
}

// breakRules sends a frame that is not masked, as no library does.
func breakRules(t *testing.T, e *events, d *chatdtest.Process, token string) {
	client := http.Client{Transport: d.HTTP.Transport} // with a timeout one cannot write
	resp, err := client.Do(request{method: "GET", path: "/ws/chat", token: token, header: handshake()}.build(t, d.URL))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	conn := resp.Body.(io.ReadWriter)
	if _, err := conn.Write([]byte{0x81, 2, 'h', 'i'}); err != nil {
		t.Fatal(err)
	}
	var all []byte
	for buf := make([]byte, 4096); ; {
		n, err := conn.Read(buf)
		all = append(all, buf[:n]...)
		if i := strings.Index(string(all), "\x03\xea"); i >= 2 && all[i-2] == 0x88 { // a close frame with 1002
			e.closes["1002"] = true
			return
		}
		if err != nil {
			t.Fatalf("%q and %v, want a close with 1002", all, err)
		}
	}
}

func readNothing(t *testing.T, e *events) {
	d := chatd.Start(t, nil, "-debug-addr", "127.0.0.1:0")
	slow := e.connect(t, d, "commands", d.Token("user"), "")
	admin := d.Token("admin")
	body := `{"content":"` + strings.Repeat("x", 32<<10) + `"}`
	for range 4096 { // 128 MiB, far more than kernels buffer
		d.Request("POST", "/messages", admin, body)
		if _, stats := d.Request("GET", d.Debug+"/debug/vars", "", ""); strings.Contains(stats, `"slow_closed":1`) {
			slow.closed(4003)
			return
		}
	}
	t.Error("a client that reads nothing stays connected")
}

func commandWithoutRedis(t *testing.T, e *events) {
	redis := chatdtest.StartRedis(t)
	d := cluster.Start(t, []string{"CHATD_REGISTRY=" + redis.RedisURL()})
	admin := e.connect(t, d, "commands", d.Token("admin"), "")
	text := e.connect(t, d, "text", d.Token("admin"), "")
	wantAck(t, admin.asks(`{"type":"broadcast","content":"x","ref":1}`, 1.0))
	redis.End()
	wantCode(t, admin.asks(`{"type":"broadcast","content":"x","ref":2}`, 2.0), "unavailable")
	wantCode(t, admin.asks(`{"type":"join","channel":"ops","ref":3}`, 3.0), "unavailable")
	wantCode(t, text.answer(text.send("x"), isError), "unavailable")
}
