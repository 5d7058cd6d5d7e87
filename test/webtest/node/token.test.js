// Where tokens come from, and what happens when they end.
import assert from "node:assert/strict";
import { test } from "node:test";
import { chatd, ChatError, clock, login, open, poll, proxy, rejection, scripted, token, welcome } from "./service.js";

/** A source that counts how often it was asked, and may fail. */
function counting(next) {
  const source = async (options) => {
    source.asked++;
    source.signal = options.signal;
    return next(source.asked);
  };
  source.asked = 0;
  return source;
}

test("a socket outlives its first token", async (t) => {
  const service = await chatd(t, { args: ["-token-ttl", "5s"] });
  const source = counting(() => service.login("user")());
  const begin = performance.now();
  const eva = open(t, service.url, { token: source });
  await eva.nth("open");
  await poll("two tokens more", () => source.asked >= 3 && performance.now() - begin > 6000);
  await service.publish("still there");
  await eva.message("still there");
  assert.deepEqual(eva.of("waiting"), []);
  assert.equal(eva.of("open").length, 1);
});

/** Lets so many ms pass, in which the service says something now and then. */
async function pass(time, { chat }, ms) {
  for (let passed = 0; passed < ms; passed += 10_000) {
    time(Math.min(10_000, ms - passed));
    await chat.join("now-and-then");
  }
}

const renewable = () => token("eva", { ttl: 1000, role: "admin" });

test("the next token is asked for well ahead of the end", async (t) => {
  const service = await chatd(t);
  const source = counting(() => renewable());
  const time = clock(t);
  const eva = open(t, service.url, { token: source });
  await eva.nth("open");
  await pass(time, eva, 700_000);
  assert.equal(source.asked, 1);
  await pass(time, eva, 100_000);
  assert.equal(source.asked, 2);
  await eva.chat.messages(); // with the second one
  await pass(time, eva, 630_000);
  assert.equal(source.asked, 2);
  await pass(time, eva, 170_000);
  assert.equal(source.asked, 3);
  assert.deepEqual(eva.of("waiting"), []);
});

test("a token is used again for as long as it holds", async (t) => {
  const service = await chatd(t);
  const between = await proxy(t, service.port);
  const source = counting(() => renewable());
  const eva = open(t, between.url, { token: source });
  await eva.nth("open");
  between.cut();
  await eva.nth("open", 2);
  await eva.chat.messages();
  assert.equal(source.asked, 1);

  const time = clock(t);
  between.refuse();
  await eva.nth("waiting", 2);
  between.refuse(false);
  time(800_000); // when it would have been refreshed
  await poll("the next connection", () => eva.of("open").length === 3, () => time(100));
  assert.equal(source.asked, 2);
});

test("a source that fails is asked again", async (t) => {
  const service = await chatd(t);
  const source = counting((n) => {
    if (n <= 2) throw new Error("the identity provider is away");
    return token("eva");
  });
  const eva = open(t, service.url, { token: source });
  await eva.nth("open");
  assert.equal(source.asked, 3);
  const { kind, message } = eva.of("waiting")[0].error;
  assert.deepEqual([kind, message], ["unavailable", "asking for a token: the identity provider is away"]);
});

test("a source that fails while the socket is open is asked again, one that is refused is not", async (t) => {
  const service = await chatd(t);
  const source = counting((n) => {
    if (n === 2) throw new Error("the identity provider is away");
    if (n === 4) throw new ChatError("unauthenticated", "the session is over");
    return renewable();
  });
  const time = clock(t);
  const eva = open(t, service.url, { token: source });
  await eva.nth("open");
  await pass(time, eva, 800_000);
  await poll("another try", () => source.asked === 3, () => time(100));
  await eva.chat.join("behind-the-refresh");
  assert.deepEqual(eva.of("waiting"), []);
  pass(time, eva, 800_000).catch(() => {}); // it is closed on the way
  const { error } = await eva.nth("close");
  assert.deepEqual([error.kind, error.message], ["unauthenticated", "the session is over"]);
});

test("with a token alone the end of it is the end", async (t) => {
  const service = await chatd(t);
  const eva = open(t, service.url, { token: token("eva", { ttl: 1 }) });
  await eva.nth("open");
  const { error } = await eva.nth("close");
  assert.deepEqual([error.kind, error.code], ["unauthenticated", 4001]);
  assert.equal(eva.chat.state, "closed");
});

test("a token that does not hold is the end; of a source, after another one", async (t) => {
  const service = await chatd(t);
  const bad = () => token("eva", { ttl: -10 });
  const { error } = await open(t, service.url, { token: bad() }).nth("close");
  assert.deepEqual([error.kind, error.code], ["unauthenticated", 401]);

  const source = counting(bad);
  const eva = open(t, service.url, { token: source });
  assert.equal((await eva.nth("close")).error.code, 401);
  assert.equal(source.asked, 2);
});

test("an invalid token is an error that does not show it", async (t) => {
  for (const given of ["two words", "", 7, undefined, "line\nbreak"]) {
    const { error } = await open(t, "https://127.0.0.1:1/", { token: () => given }).nth("close");
    assert.equal(error.kind, "unauthenticated");
    assert.equal(error.message, "the token source did not return a string of token characters (RFC 9110)");
  }
});

test("a service that comes back with another key gets another token", async (t) => {
  const service = await chatd(t, { secretFile: "" });
  const source = counting(() => service.login("user")());
  const eva = open(t, service.url, { token: source });
  await eva.nth("open");
  await service.kill();
  await service.start();
  assert.equal((await eva.nth("open", 2)).resumed, false);
  assert.equal(source.asked, 2);
  await service.kill();
  await service.start();
  await eva.nth("open", 3); // also with a second key
});

test("a request whose token is refused is made again with another", async (t) => {
  const service = await chatd(t);
  const tokens = [token("eva", { ttl: -10 }), token("eva")];
  const source = counting((n) => tokens[n - 1]);
  const eva = open(t, service.url, { token: source });
  assert.deepEqual((await eva.chat.messages()).messages, []);
  await eva.nth("open");
});

test("a token of somebody else ends it", async (t) => {
  const service = await chatd(t);
  const time = clock(t);
  const source = counting((n) => (n === 1 ? renewable() : token("bob")));
  const eva = open(t, service.url, { token: source });
  await eva.nth("open");
  pass(time, eva, 800_000).catch(() => {}); // it is refreshed with bob's, closed with 4001, and would be bob's
  await poll("the end", () => eva.of("close").length, () => time(100));
  const { error } = await eva.nth("close");
  assert.deepEqual([error.kind, error.message], ["unauthenticated", "the token is another user's"]);
  assert.deepEqual(eva.chat.user, { username: "eva", role: "admin" });
});

test("a login that is refused is the end, one that cannot be had is tried again", async (t) => {
  const service = await chatd(t);
  const wrong = open(t, service.url, { token: login(service.url, "user", "guess") });
  const { error } = await wrong.nth("close");
  assert.deepEqual([error.kind, error.code], ["unauthenticated", 401]);
  assert.ok(!error.stack.includes("guess"));

  await service.kill();
  const eva = open(t, service.url, { token: service.login("user") });
  assert.equal((await eva.nth("waiting")).error.kind, "network");
  await service.start();
  await eva.nth("open");
  await service.kill();
  const outside = await rejection(service.login("user")());
  assert.equal(outside.kind, "network");
});

test("a login that is not there is the end", async (t) => {
  const service = await chatd(t);
  const { error } = await open(t, service.url, { token: login(new URL("elsewhere/", service.url), "user", "secret") }).nth("close");
  assert.deepEqual([error.kind, error.code], ["not_found", 404]);
});

test("a login that is tried too often waits for as long as it is told", async (t) => {
  const service = await scripted(t, {
    answer(request, response) {
      if (!request.url.startsWith("/login")) return false;
      response.writeHead(429, { "Retry-After": "17" }).end();
    },
  });
  const { error, delay } = await open(t, service.url, { token: login(service.url, "ana", "secret") }).nth("waiting");
  assert.deepEqual([error.kind, error.retryAfter], ["rate_limited", 17]);
  assert.ok(delay >= 17_000 && delay <= 17_000 * 1.2, `${delay}`);
});

for (const mounted of ["a/chat", "a/chat/", "a/chat?x=1#y", "a/b/../chat"]) {
  test(`the routes are below where the service is mounted: ${mounted}`, async (t) => {
    const asked = [];
    const service = await scripted(t, {
      upgrade(request) { asked.push(request.url); },
      socket(socket) { socket.send(welcome()); },
      answer(request, response) {
        asked.push(request.url);
        response.end(JSON.stringify({ access_token: "t", messages: [], more: false, closed: 1 }));
      },
    });
    const url = service.url + mounted;
    const ana = open(t, url, { token: login(url, "ana", "secret") });
    await ana.nth("open");
    await ana.chat.messages({ before: "" });
    await ana.chat.disconnect("a/b ?");
    assert.deepEqual(asked, ["/a/chat/login", "/a/chat/ws/chat", "/a/chat/messages?before=", "/a/chat/users/a%2Fb%20%3F/disconnect"]);
  });
}

test("the token is in no address, and the password in the body alone", async (t) => {
  const asked = [];
  const service = await scripted(t, {
    upgrade(request) { asked.push(request.url); return [503]; },
    answer(request, response) {
      asked.push(request.url);
      if (request.url === "/login") response.end(JSON.stringify({ access_token: "sesame", token_type: "bearer", expires_in: 60 }));
      else if (request.headers.authorization !== "Bearer sesame") response.writeHead(401).end();
      else response.writeHead(503).end();
    },
  });
  const ana = open(t, service.url, { token: login(service.url, "ana", "hunter2") });
  await ana.nth("waiting", 2);
  assert.equal((await rejection(ana.chat.messages())).code, 503);
  assert.ok(asked.length >= 5 && !asked.some((url) => /sesame|hunter2/.test(url)), `${asked}`);
});

test("a fresh token that is refused has another chance a moment later, once", async (t) => {
  // The provider's clock is ahead of the service's: a token is valid a second later.
  const made = new Map();
  const service = await scripted(t, {
    upgrade(request) {
      const name = request.headers["sec-websocket-protocol"].match(/bearer\.(\w+)/)[1];
      return Date.now() - made.get(name) < 800 ? [401] : undefined;
    },
    answer(request, response) {
      response.writeHead(Date.now() - made.get(request.headers.authorization.slice("Bearer ".length)) < 800 ? 401 : 426).end();
    },
    socket(socket) { socket.send(welcome()); },
  });
  const source = counting((n) => { made.set(`t${n}`, Date.now()); return `t${n}`; });
  const ana = open(t, service.url, { token: source });
  await ana.nth("open");
  assert.equal(source.asked, 2);
  assert.deepEqual(ana.of("waiting").map(({ error, delay }) => [error.code, delay >= 1000 && delay <= 2500]), [[401, true]]);

  const never = await scripted(t, { upgrade: () => [401], answer(request, response) { response.writeHead(401).end(); } });
  const other = counting((n) => `t${n}`);
  const { error } = await open(t, never.url, { token: other }).nth("close");
  assert.deepEqual([error.kind, error.code, other.asked], ["unauthenticated", 401, 2]);
});

test("a request whose fresh token is refused is made again a moment later, once", async (t) => {
  const made = [];
  const refuse = { always: false };
  const service = await scripted(t, {
    socket(socket) { socket.send(welcome()); },
    answer(request, response) {
      const n = Number(request.headers.authorization.slice("Bearer t".length));
      if (refuse.always || Date.now() - made[n] < 800) response.writeHead(401).end();
      else response.end(JSON.stringify({ messages: [], more: false }));
    },
  });
  const source = counting((n) => { made[n] = Date.now(); return `t${n}`; });
  const ana = open(t, service.url, { token: source });
  await ana.nth("open");
  assert.deepEqual((await ana.chat.messages()).messages, []);
  assert.equal(source.asked, 2);
  refuse.always = true;
  const { code } = await rejection(ana.chat.messages());
  assert.deepEqual([code, source.asked], [401, 3]);
});
