// How connections end, and how a Chat reacts. The servers here are scripted:
// a chatd does most of this seldom, or never.
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { chatd, clock, open, poll, rejection, scripted, token, welcome } from "./service.js";

for (const [code, kind] of [[1001, "unavailable"], [1011, "unavailable"], [1012, "unavailable"], [1013, "unavailable"], [4003, "unavailable"], [1000, "network"], [4999, "network"]]) {
  test(`closed with ${code} it connects again and resumes`, async (t) => {
    const asked = [];
    const service = await scripted(t, {
      socket(socket, n, request) {
        asked.push(new URL(request.url, "https://localhost").search);
        socket.send(welcome({ since: n === 1 ? ["7-e", "0-e-@ana", "3-e-a:b"] : ["8-e", "0-e-@ana", "3-e-a:b"], recovered: n === 1 ? undefined : true }));
        if (n > 1) return;
        socket.send(JSON.stringify({ type: "message", id: "8-e", sender: "", content: "x", time: "2026-11-24T12:00:00.000Z" }));
        socket.close(code);
      },
    });
    const ana = open(t, service.url, { token: "t", channels: ["a:b"] });
    assert.equal((await ana.nth("open", 2)).resumed, true);
    const { error } = ana.of("waiting")[0];
    assert.deepEqual([error.kind, error.code], [kind, code]);
    assert.deepEqual(asked, ["?channel=a%3Ab", "?channel=a%3Ab&since=8-e&since=0-e-%40ana&since=3-e-a%3Ab"]);
  });
}

for (const [code, kind] of [[4002, "disconnected"], [4004, "replaced"], [4001, "unauthenticated"]]) {
  test(`closed with ${code} it has ended`, async (t) => {
    const service = await scripted(t, { socket(socket) { socket.send(welcome()); socket.close(code); } });
    const ana = open(t, service.url, { token: "t" });
    const waits = ana.chat.join("ops");
    const { error } = await ana.nth("close");
    assert.deepEqual([error.kind, error.code], [kind, code]);
    assert.equal(await rejection(waits), error);
    for (const ask of [() => ana.chat.broadcast("x"), () => ana.chat.join("x"), () => ana.chat.messages()]) {
      assert.equal((await rejection(ask())).kind, "closed");
    }
    ana.chat.reconnect();
    assert.deepEqual([ana.chat.state, ana.of("close").length, ana.of("open").length], ["closed", 1, 1]);
  });
}

test("closed with 4001 it connects again with the next token of a source", async (t) => {
  const tokens = [];
  const service = await scripted(t, {
    socket(socket, n, request) {
      tokens.push(request.headers["sec-websocket-protocol"].replace(" ", ""));
      socket.send(welcome({ recovered: true }));
      if (n === 1) socket.close(4001);
    },
  });
  let n = 0;
  const ana = open(t, service.url, { token: () => `t${++n}` });
  await ana.nth("open", 2);
  assert.deepEqual(tokens, ["chat.v1,bearer.t1", "chat.v1,bearer.t2"]);
});

test("closed with 4005 it waits", async (t) => {
  const service = await scripted(t, { socket(socket) { socket.send(welcome()); socket.close(4005); } });
  const { error, delay } = await open(t, service.url, { token: "t" }).nth("waiting");
  assert.equal(error.kind, "rate_limited");
  assert.ok(delay >= 10_000 && delay <= 12_000, `${delay}`);
});

test("waits double up to the most, and start anew after a connection that was good", async (t) => {
  t.mock.method(Math, "random", () => 0.5);
  const time = clock(t);
  let lasts = false;
  const service = await scripted(t, {
    socket(socket) {
      socket.send(welcome({ recovered: true }));
      if (!lasts) socket.close(1001);
    },
  });
  const ana = open(t, service.url, { token: "t", minDelay: undefined, maxDelay: undefined });
  const wait = async (n) => {
    const { delay } = await ana.nth("waiting", n);
    time(delay);
    return delay;
  };
  const delays = [];
  for (let n = 1; n <= 9; n++) delays.push(await wait(n));
  assert.deepEqual(delays, [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);

  lasts = true;
  await poll("a connection that stays", () => ana.chat.state === "open");
  time(9_999);
  for (const socket of service.sockets) socket.close(1001);
  assert.equal(await wait(10), 15_000);
  await poll("a connection that stays", () => ana.chat.state === "open");
  time(10_000);
  for (const socket of service.sockets) socket.close(1001);
  assert.equal(await wait(11), 250);
});

test("waits differ from one to the next", async (t) => {
  const service = await scripted(t, { upgrade: () => [503] });
  const ana = open(t, service.url, { token: "t", minDelay: 20, maxDelay: 20 });
  await ana.nth("waiting", 12);
  const delays = ana.of("waiting").map(({ delay }) => delay);
  assert.ok(delays.every((delay) => delay >= 0 && delay <= 20), `${delays}`);
  assert.ok(new Set(delays).size > 3, `${delays}`);
});

/** Stands in for a browser's window, whose listeners it returns. */
function window(t) {
  const listeners = new Map();
  globalThis.addEventListener = (type, listener, { signal }) => {
    listeners.set(type, listener);
    signal.addEventListener("abort", () => listeners.delete(type));
  };
  t.after(() => delete globalThis.addEventListener);
  return listeners;
}

test("a connection that is silent for long is asked whether it is alive", async (t) => {
  const time = clock(t);
  const asked = [];
  const service = await scripted(t, {
    socket(socket) {
      socket.send(welcome({ recovered: true }));
      socket.on("message", (frame) => {
        const command = JSON.parse(frame);
        asked.push([command.type, command.channel]);
        if (asked.length === 1) socket.send(JSON.stringify({ type: "ack", ref: command.ref, since: "0-e-@ana" }), () => socket.send(frameOf("heard")));
      });
    },
  });
  const frameOf = (content) => JSON.stringify({ ...message, content });
  const ana = open(t, service.url, { token: "t" });
  await ana.nth("open");
  time(59_999);
  assert.deepEqual(asked, []);
  time(1);
  await ana.message("heard");
  time(59_999);
  assert.equal(asked.length, 1);
  time(1);
  await poll("the second question", () => asked.length === 2);
  time(20_000);
  assert.equal((await ana.nth("waiting")).error.message, "no answer came");
  assert.deepEqual(asked, [["join", "@ana"], ["join", "@ana"]]);
});

test("a socket that died while nobody looked is found out when the network is back", async (t) => {
  const listeners = window(t);
  const time = clock(t);
  const asked = [];
  const service = await scripted(t, {
    socket(socket) {
      socket.send(welcome({ recovered: true }));
      socket.on("message", (frame) => asked.push(JSON.parse(frame)));
    },
  });
  const ana = open(t, service.url, { token: "t" });
  await ana.nth("open");
  listeners.get("online")();
  listeners.get("online")();
  await poll("a question", () => asked.length);
  assert.deepEqual(asked.map(({ type, channel }) => [type, channel]), [["join", "@ana"]]);
  time(20_000);
  assert.equal((await ana.nth("waiting")).error.kind, "network");
});

test("reconnect() and what comes back online do not wait", async (t) => {
  const listeners = window(t);
  const service = await scripted(t, { upgrade: () => [503], answer: (_, response) => response.writeHead(503, { "Retry-After": "3600" }).end() });
  const ana = open(t, service.url, { token: "t" });
  const { delay } = await ana.nth("waiting");
  assert.ok(delay >= 3_600_000);
  ana.chat.reconnect();
  await ana.nth("waiting", 2);
  listeners.get("online")();
  await ana.nth("waiting", 3);
  ana.chat.close();
  assert.equal(listeners.size, 0);
});

test("a connection that is silent while an answer is due is given up", async (t) => {
  const time = clock(t);
  let asked;
  const service = await scripted(t, {
    socket(socket, n) {
      socket.send(welcome({ recovered: true }));
      if (n === 1) socket.once("message", (frame) => { asked = JSON.parse(frame); });
    },
  });
  const ana = open(t, service.url, { token: "t" });
  await ana.nth("open");
  const sent = ana.chat.broadcast("hello?");
  await poll("the command", () => asked);
  time(19_999);
  assert.equal(ana.chat.state, "open");
  time(1);
  assert.equal((await rejection(sent)).kind, "unconfirmed");
  assert.deepEqual((await ana.nth("waiting")).error.message, "no answer came");
  time(10_000);
  await ana.nth("open", 2);
});

test("a server that does not say welcome is given up", async (t) => {
  const time = clock(t);
  let opened = 0;
  const service = await scripted(t, { socket() { opened++; } });
  const ana = open(t, service.url, { token: "t" });
  await poll("a socket", () => opened);
  time(20_000);
  assert.equal((await ana.nth("waiting")).error.kind, "network");
});

for (const [status, kind] of [[403, "forbidden"], [404, "not_found"], [401, "unauthenticated"]]) {
  test(`refused with ${status} it has ended`, async (t) => {
    const service = await scripted(t, {
      upgrade: () => [status],
      answer: (_, response) => response.writeHead(status, { "Content-Type": "application/problem+json" }).end(JSON.stringify({ detail: "and this is why" })),
    });
    const { error } = await open(t, service.url, { token: "t" }).nth("close");
    assert.deepEqual([error.kind, error.code, error.message], [kind, status, "and this is why"]);
  });
}

for (const [status, kind] of [[503, "unavailable"], [429, "rate_limited"], [502, "unavailable"]]) {
  test(`refused with ${status} it waits for as long as it is told`, async (t) => {
    const service = await scripted(t, { upgrade: () => [status], answer: (_, response) => response.writeHead(status, { "Retry-After": "7" }).end() });
    const { error, delay } = await open(t, service.url, { token: "t" }).nth("waiting");
    assert.deepEqual([error.kind, error.code, error.retryAfter], [kind, status, 7]);
    assert.ok(delay >= 7_000 && delay <= 8_400, `${delay}`);
  });
}

test("a channel that is refused is named", async (t) => {
  const service = await chatd(t);
  for (const [channel, kind, code] of [["@admin", "forbidden", 403], ["no spaces", "invalid", 400]]) {
    const eva = open(t, service.url, { token: token("eva"), channels: ["ops", channel] });
    const { error } = await eva.nth("close");
    assert.deepEqual([error.kind, error.code], [kind, code]);
    assert.ok(error.message.startsWith(`channel ${channel}: `), error.message);
  }
});

test("a command that is too large for the service fails, the others are unconfirmed or repeated", async (t) => {
  const service = await chatd(t);
  const ana = open(t, service.url, { token: token("ana", { role: "admin" }) });
  await ana.nth("open");
  const asked = [ana.chat.broadcast("x".repeat(40_000)), ana.chat.broadcast("next"), ana.chat.join("ops")];
  assert.equal((await rejection(asked[0])).kind, "too_large");
  assert.equal((await rejection(asked[1])).kind, "unconfirmed");
  await asked[2];
  assert.equal(ana.of("open").length, 2);
  assert.equal(ana.of("waiting")[0].error.code, 1009);
});

const message = { type: "message", id: "1-e", sender: "", content: "x", time: "2026-11-24T12:00:00.000Z" };
for (const [what, ...frames] of [
  ["no JSON", "hello"],
  ["no object", "null"],
  ["a list", "[]"],
  ["an object that is no event", "{}"],
  ["a type that is no string", "{\"type\":7}"],
  ["binary", Buffer.from(welcome())],
  ["a welcome without since", welcome({ since: undefined })],
  ["a welcome whose since is text", welcome({ since: "0-e" })],
  ["a welcome with too few ids", welcome({ since: ["0-e"] })],
  ["a welcome with numbers for ids", welcome({ since: [0, 0] })],
  ["a welcome without a user", welcome({ user: undefined })],
  ["a welcome without a role", welcome({ role: null })],
  ["two welcomes", welcome(), welcome()],
  ["a message before the welcome", JSON.stringify(message)],
  ["a message without an id", welcome(), JSON.stringify({ ...message, id: undefined })],
  ["a message with a number for its text", welcome(), JSON.stringify({ ...message, content: 7 })],
  ["a message to a channel that is a list", welcome(), JSON.stringify({ ...message, channel: ["ops"] })],
  ["a message at no time", welcome(), JSON.stringify({ ...message, time: "noon" })],
  ["presence of nobody", welcome(), "{\"type\":\"user_joined\"}"],
  ["presence at no time", welcome(), JSON.stringify({ type: "user_left", username: "eva", role: "user", time: "" })],
  ["a frame too long", welcome(), JSON.stringify({ ...message, content: "x".repeat(5 << 20) })],
]) {
  test(`a server that sends ${what} is left and tried again`, async (t) => {
    const service = await scripted(t, {
      socket(socket, n) {
        for (const frame of n === 1 ? frames : [welcome({ recovered: true })]) socket.send(frame);
      },
    });
    const ana = open(t, service.url, { token: "t" });
    assert.equal((await ana.nth("waiting")).error.kind, "protocol");
    await ana.until("a connection", () => ana.chat.state === "open");
    assert.deepEqual(ana.of("message"), []);
  });
}

for (const [what, answer] of [["a broadcast without an id", {}], ["an error without a code", { type: "error" }]]) {
  test(`a server that answers with ${what} is left and tried again`, async (t) => {
    const service = await scripted(t, {
      socket(socket) {
        socket.send(welcome({ recovered: true }));
        socket.on("message", (frame) => socket.send(JSON.stringify({ type: "ack", ref: JSON.parse(frame).ref, ...answer })));
      },
    });
    const ana = open(t, service.url, { token: "t" });
    assert.equal((await rejection(ana.chat.broadcast("x"))).kind, "unconfirmed");
    await ana.nth("open", 2);
  });
}

test("what is not known is passed over", async (t) => {
  const service = await scripted(t, {
    socket(socket) {
      socket.send("{\"type\":\"before\"}");
      socket.send(welcome({ more: { than: ["is", "known"] } }));
      socket.send("{\"type\":\"typing\",\"user\":\"eva\"}");
      socket.send("{\"type\":\"ack\",\"ref\":99}");
      socket.send("{\"type\":\"ack\"}");
      socket.send("{\"type\":\"error\",\"code\":\"invalid\",\"message\":\"no\"}");
      socket.send(JSON.stringify({ ...message, __proto__: null, edited: true }));
      socket.send(JSON.stringify(message)); // again
    },
  });
  const ana = open(t, service.url, { token: "t" });
  await ana.nth("message");
  const { type, ...rest } = message;
  assert.deepEqual(ana.of("message"), [rest]);
  assert.deepEqual(ana.told.map((event) => event.type), ["open", "message"]);
});

for (const [what, respond, kind] of [
  ["is no JSON", (response) => response.end("<html>"), "protocol"],
  ["is null", (response) => response.end("null"), "protocol"],
  ["has no messages", (response) => response.end("{}"), "protocol"],
  ["has messages that are none", (response) => response.end("{\"messages\":[{}]}"), "protocol"],
  ["breaks off", (response) => { response.writeHead(200, { "Content-Length": 100 }).write("{"); setImmediate(() => response.destroy()); }, "network"],
  ["leads elsewhere", (response) => response.writeHead(302, { Location: "/login" }).end(), "network"],
  ["does not end", (response) => {
    const more = () => { while (response.writable && response.write(" ".repeat(1 << 20))); };
    response.on("drain", more);
    more();
  }, "protocol"],
]) {
  test(`an answer that ${what} is an error`, async (t) => {
    const service = await scripted(t, {
      socket(socket) { socket.send(welcome()); },
      answer: (_, response) => respond(response),
    });
    const ana = open(t, service.url, { token: "t" });
    assert.equal((await rejection(ana.chat.messages())).kind, kind);
  });
}

test("an answer that does not come is not waited for", async (t) => {
  const time = clock(t);
  let asked = false;
  const service = await scripted(t, { socket(socket) { socket.send(welcome()); }, answer() { asked = true; } });
  const ana = open(t, service.url, { token: "t" });
  const page = ana.chat.messages();
  await poll("the request", () => asked);
  time(30_000);
  assert.equal((await rejection(page)).kind, "network");
});
