package webtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

// Tests of chat.js in Chromium, under the page's policy. They repeat tests of node/ whose
// results may differ in a browser.

// client defines start, which starts a chat and records its events.
const client = `(async () => {
	const { Chat, login } = await import("/chat.js");
	window.login = (user, password) => login("/", user, password);
	window.start = (options) => {
		window.chat = new Chat("/", { minDelay: 5, maxDelay: 100, ...options });
		window.seen = [];
		for (const type of ["open", "message", "joined", "left", "gap", "waiting", "close"]) {
			chat.addEventListener(type, ({ detail }) => seen.push({ type, detail }));
		}
		window.of = (type) => seen.filter((event) => event.type === type).map(({ detail }) => detail);
		window.contents = (channel) => of("message").filter((message) => message.channel === channel).map(({ content }) => content);
	};
	window.kind = (promise) => promise.then(() => "none", (error) => error.kind);
})()`

// startChat opens a tab with a Chat in it.
func startChat(t testing.TB, url, options string) *tab {
	t.Helper()
	p := openTab(t, url+"/", look{forgiven: append(outage, "status of 40", "status of 503")})
	eval[any](p, client)
	eval[any](p, "void start("+options+")")
	return p
}

// as is the options of a Chat of one of chatdtest.Users.
func as(user string) string {
	return fmt.Sprintf(`{ token: login(%q, %q), channels: ["ops"] }`, user, chatdtest.Passwords[user])
}

func TestChatJSInChromiumDoesWhatItIsFor(t *testing.T) {
	t.Parallel()
	server := serve(t)
	p := startChat(t, server.URL, as("admin"))
	p.await("the connection", `of("open").length === 1 && chat.state === "open"`)
	const content = "<img src=x onerror=alert(1)> ñ 😀"
	id := eval[string](p, `chat.broadcast(`+quote(content)+`, { channel: "ops" })`)
	p.await("the message", `of("message").some((message) => message.id === `+quote(id)+`)`)
	for _, test := range []struct{ expression, want string }{
		{`chat.join("dev").then(() => chat.channels.join())`, "ops,dev"},
		{`chat.leave("dev").then(() => chat.channels.join())`, "ops"},
		{`contents("ops")[0]`, content},
		{`chat.since[2]`, id},
		{`chat.messages({ channel: "ops", before: "" }).then(({ messages }) => messages[0].content)`, content},
		{`chat.connected().then((users) => users.map(({ username }) => username).join())`, "admin"},
		{`kind(chat.broadcast(""))`, "invalid"},
		{`kind(chat.leave("nowhere"))`, "not_joined"},
		{`kind(chat.broadcast("x".repeat(40000)))`, "too_large"},
		{`chat.broadcast("later", { signal: AbortSignal.abort() }).catch(({ name }) => name)`, "AbortError"},
		{`kind(login("admin", "guess")({}))`, "unauthenticated"},
		{`String(performance.getEntriesByType("resource").some(({ name }) => name.includes("eyJ")))`, "false"},
	} {
		if got := eval[string](p, test.expression); got != test.want {
			t.Errorf("%s: %q, want %q", test.expression, got, test.want)
		}
	}
}

func TestChatJSInChromiumResumesAfterCuts(t *testing.T) {
	t.Parallel()
	server := serve(t)
	network := startProxy(t, server.URL)
	p := startChat(t, network.URL, as("user"))
	p.await("the connection", `of("open").length === 1`)
	token := server.Token("admin")
	var want []string
	say := func() {
		t.Helper()
		content := fmt.Sprint(len(want))
		post(t, server, token, "", content)
		post(t, server, token, "ops", content)
		want = append(want, content)
	}
	for round := range 5 {
		for range 5 {
			say()
		}
		network.cut()
		p.await("the loss", fmt.Sprintf(`of("open").length === %d && chat.state !== "open"`, round+1))
		say()
		network.mend()
		p.await("the next connection", fmt.Sprintf(`of("open").length === %d`, round+2))
	}
	last := quote(want[len(want)-1])
	p.await("all messages", `contents().at(-1) === `+last+` && contents("ops").at(-1) === `+last)
	for _, channel := range []string{"", `"ops"`} {
		if diff := cmp.Diff(want, eval[[]string](p, "contents("+channel+")")); diff != "" {
			t.Errorf("messages to %q (-want +got):\n%s", channel, diff)
		}
	}
	if !eval[bool](p, `of("gap").length === 0 && of("open").slice(1).every(({ resumed }) => resumed === true)`) {
		t.Error("something is said to be missing")
	}
}

func TestChatJSInChromiumOutlivesTheService(t *testing.T) {
	t.Parallel()
	addr, db := chatdtest.FreeAddr(t), t.TempDir()+"/history.db"
	start := func(history string) *chatdtest.Process {
		return cluster.Start(t, nil, "-tls-cert", certificate, "-tls-key", certificateKey, "-addr", addr, "-history", history)
	}
	server := start("sqlite:" + db)
	p := startChat(t, server.URL, as("admin"))
	// Sends one message after the other, and repeats none.
	eval[any](p, `void (async () => {
		window.acked = [], window.failed = [];
		for (let i = 1; !window.over; i++) {
			await chat.broadcast(String(i), { channel: "ops" }).then(() => acked.push(String(i)), ({ kind }) => failed.push(kind));
		}
		window.done = true;
	})()`)
	for round := range 3 {
		p.await("acks", fmt.Sprintf(`acked.length >= %d`, 20*(round+1)))
		server.Kill()
		server = start("sqlite:" + db)
		p.await("the connection", fmt.Sprintf(`of("open").length === %d`, round+2))
	}
	eval[any](p, `void (window.over = true)`)
	p.await("the end", `window.done`)
	last := eval[string](p, `chat.broadcast("last", { channel: "ops" })`)
	p.await("the last message", `of("message").at(-1)?.id === `+quote(last))
	got, acked := eval[[]string](p, `contents("ops").slice(0, -1)`), eval[[]string](p, `acked`)
	confirmed := make(map[string]bool)
	for _, content := range acked {
		confirmed[content] = true
	}
	seen := slices.DeleteFunc(slices.Clone(got), func(content string) bool { return !confirmed[content] })
	if diff := cmp.Diff(acked, seen); diff != "" {
		t.Errorf("what was acked (-want +got):\n%s", diff)
	}
	if once := slices.Compact(slices.Clone(got)); len(once) != len(got) {
		t.Errorf("something came twice: %q", got)
	}
	if failed := eval[[]string](p, `failed.filter((kind) => kind !== "unconfirmed")`); len(failed) > 0 {
		t.Errorf("broadcasts failed: %q", failed)
	}
	if gaps := eval[int](p, `of("gap").length`); gaps != 0 {
		t.Errorf("%d gaps", gaps)
	}

	// The next one starts with an empty history.
	server.Kill()
	server = start("memory")
	post(t, server, server.Token("admin"), "", "new")
	p.await("the gap, and the message behind it", `of("gap").length >= 3 && contents().includes("new")`)
	types := eval[string](p, `seen.filter(({ type, detail }) => (type === "gap" || type === "message") && detail.channel === undefined).map(({ type }) => type).join()`)
	if types != "gap,message" {
		t.Errorf("events of everyone's channel: %s", types)
	}
}

// A browser does not tell how a handshake was refused.
func TestChatJSInChromiumKnowsWhenItIsTheEnd(t *testing.T) {
	t.Parallel()
	server := serve(t, "-token-ttl", "2s")
	tests := map[string]struct{ options, want string }{
		"a token that does not hold":     {`{ token: "nonsense" }`, "unauthenticated 401"},
		"a source of these":              {`{ token: () => "nonsense" }`, "unauthenticated 401"},
		"a channel of somebody else's":   {fmt.Sprintf(`{ token: login("user", %q), channels: ["ops", "@admin"] }`, chatdtest.Passwords["user"]), "forbidden 403"},
		"a channel that is none":         {fmt.Sprintf(`{ token: login("user", %q), channels: ["no spaces"] }`, chatdtest.Passwords["user"]), "invalid 400"},
		"a wrong password":               {`{ token: login("user", "guess") }`, "unauthenticated 401"},
		"a token that ends":              {`{ token: ` + quote(server.Token("user")) + ` }`, "unauthenticated"},
		"what is no token":               {`{ token: () => "two words" }`, "unauthenticated undefined"},
		"being disconnected by an admin": {fmt.Sprintf(`{ token: login("admin", %q) }`, chatdtest.Passwords["admin"]), "disconnected 4002"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startChat(t, server.URL, test.options)
			if strings.HasPrefix(test.want, "disconnected") {
				p.await("the connection", `chat.state === "open"`)
				eval[any](p, `void chat.disconnect("admin").catch(() => {})`)
			}
			p.await("the end", `chat.state === "closed"`)
			if got := eval[string](p, `of("close").map(({ error: { kind, code } }) => kind + " " + code).join()`); !strings.HasPrefix(got, test.want) {
				t.Errorf("it ended with %q, want %q", got, test.want)
			}
		})
	}
}

func TestChatJSInChromiumTriesAtOnceWhenTheNetworkIsBack(t *testing.T) {
	t.Parallel()
	server := serve(t, "-token-ttl", "1h")
	network := startProxy(t, server.URL)
	p := startChat(t, network.URL, fmt.Sprintf(`{ token: login("user", %q), minDelay: 3_600_000, maxDelay: 3_600_000 }`, chatdtest.Passwords["user"]))
	p.await("the connection", `chat.state === "open"`)
	for i, event := range []string{`window.dispatchEvent(new Event("online"))`, `document.dispatchEvent(new Event("visibilitychange"))`, `chat.reconnect()`} {
		network.cut()
		p.await("the loss", `chat.state === "waiting"`)
		network.mend()
		eval[any](p, "void "+event)
		p.await("the next connection", fmt.Sprintf(`of("open").length === %d && chat.state === "open"`, i+2))
	}
	eval[any](p, `void chat.close()`)
	wstest.Eventually(t, "the socket to end", func() bool {
		_, users := server.Request("GET", "/users/connected", server.Token("admin"), "")
		return strings.Contains(users, `"count":0`)
	})
	eval[any](p, `void window.dispatchEvent(new Event("online"))`)
	if state := eval[string](p, `chat.state`); state != "closed" {
		t.Errorf("after close() it is %s", state)
	}
}

// The policy lets a page connect to its own origin, and to nothing else.
func TestPolicyHoldsChatJSToItsOrigin(t *testing.T) {
	t.Parallel()
	server, other := serve(t), serve(t)
	p := openTab(t, server.URL+"/", look{forgiven: append(outage, "Content Security Policy", "content security policy", "Fetch API cannot load", "Refused to connect")})
	eval[any](p, client)
	got := eval[string](p, `(async () => {
		const { Chat } = await import("/chat.js");
		const chat = new Chat(`+quote(other.URL)+`, { token: "t", minDelay: 3_600_000, maxDelay: 3_600_000 });
		const { detail: { error } } = await new Promise((resolve) => chat.addEventListener("waiting", resolve));
		chat.close();
		return error.kind;
	})()`)
	if got != "network" {
		t.Errorf("a chat elsewhere: %q", got)
	}
}

func TestPagesOfOtherOriginsUseChatJSWhereTheyAreLetIn(t *testing.T) {
	t.Parallel()
	page := serve(t)
	allowing, refusing := serve(t, "-origins", page.URL), serve(t)
	for name, test := range map[string]struct {
		server *chatdtest.Process
		want   string
	}{
		"allowed":     {allowing, "sent and got"},
		"not allowed": {refusing, "network"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A document without a policy of its own.
			p := openTab(t, page.URL+"/healthz", look{forgiven: append(outage, "CORS policy", "status of 403", "favicon.ico")})
			got := eval[string](p, `(async () => {
				const url = `+quote(test.server.URL)+`;
				const { Chat } = await import(url + "/chat.js");
				const chat = new Chat(url, { token: `+quote(test.server.Token("admin"))+` });
				const seen = await new Promise((resolve) => {
					chat.addEventListener("message", ({ detail }) => resolve("sent and " + detail.content));
					chat.addEventListener("waiting", ({ detail }) => resolve(detail.error.kind));
					chat.broadcast("got").catch(() => {});
				});
				chat.close();
				return seen;
			})()`)
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
