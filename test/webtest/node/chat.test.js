// What a program can do with a Chat, with a chatd that works.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Chat, chatd, ChatError, login, open, options, rejection, token, within } from "./service.js";

describe("a chat", () => {
  let service;
  const ending = [];
  before(async () => { service = await chatd({ after: (fn) => ending.push(fn) }); });
  after(async () => { for (const fn of ending) await fn(); });

  const admin = (t, more) => open(t, service.url, { token: service.login("admin"), ...more });
  const user = (t, more) => open(t, service.url, { token: service.login("user"), ...more });

  test("tells whose it is once it is open", async (t) => {
    const ana = admin(t);
    assert.equal(ana.chat.state, "connecting");
    assert.equal(ana.chat.user, undefined);
    const { user, session, resumed } = await ana.nth("open");
    assert.deepEqual(user, { username: "admin", role: "admin" });
    assert.deepEqual(ana.chat.user, user);
    assert.match(session, /^[a-z2-7]{26}$/);
    assert.equal(resumed, undefined);
    assert.equal(ana.chat.state, "open");
  });

  test("broadcasts, and the ack is the message's id", async (t) => {
    const ana = admin(t), eva = user(t);
    await Promise.all([ana.nth("open"), eva.nth("open")]);
    const id = await ana.chat.broadcast("lunch");
    for (const who of [ana, eva]) {
      const { time, ...message } = await who.message("lunch");
      assert.deepEqual(message, { id, sender: "admin", content: "lunch" });
      assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000);
    }
    assert.equal(eva.chat.since[0], id);
  });

  test("hands content on to the letter", async (t) => {
    const ana = admin(t);
    for (const content of ["<script>alert(1)</script>", "\"\\\n\t\u2028", "😀 ñ", "__proto__", " "]) {
      await ana.chat.broadcast(content);
      await ana.message(content);
    }
  });

  test("is in channels from the start, joins and leaves", async (t) => {
    const ana = admin(t), eva = user(t, { channels: ["ops", "ops", ""] });
    await Promise.all([ana.nth("open"), eva.nth("open")]);
    assert.deepEqual(eva.chat.channels, ["ops"]);
    await eva.chat.join("dev");
    await eva.chat.join("dev");
    assert.deepEqual(eva.chat.channels, ["ops", "dev"]);
    for (const channel of ["ops", "dev", "@user"]) {
      const id = await ana.chat.broadcast(`to ${channel}`, { channel });
      assert.equal((await eva.message(`to ${channel}`)).channel, channel);
      assert.ok(eva.chat.since.includes(id));
    }
    await eva.chat.leave("ops");
    assert.deepEqual(eva.chat.channels, ["dev"]);
    await ana.chat.broadcast("not for eva", { channel: "ops" });
    await ana.chat.broadcast("the next", { channel: "dev" });
    await eva.message("the next");
    assert.deepEqual(eva.contents("ops"), ["to ops"]);
    assert.deepEqual(ana.contents("ops"), []);
  });

  test("resumes a channel that it joins with since", async (t) => {
    const ids = [];
    for (const content of ["one", "two", "three"]) ids.push(await service.publish(content, "later"));
    const eva = user(t);
    await eva.nth("open");
    await eva.chat.join("later", { since: ids[0] });
    assert.deepEqual(eva.contents("later"), ["two", "three"]);
    assert.deepEqual(eva.of("gap"), []);
    assert.equal(eva.chat.since[2], ids[2]);

    await eva.chat.join("sooner", { since: "7-elsewhere-sooner" });
    assert.deepEqual(eva.of("gap"), [{ channel: "sooner" }]);
  });

  test("goes on where another one was", async (t) => {
    const one = user(t, { channels: ["files"] });
    await one.nth("open");
    await service.publish("seen", "files");
    await one.message("seen");
    const { since, channels } = one.chat;
    one.chat.close();
    await service.publish("missed", "files");
    const two = user(t, { channels, since });
    assert.deepEqual(two.chat.since, since);
    assert.equal((await two.nth("open")).resumed, true);
    await two.message("missed");
    assert.deepEqual(two.contents("files"), ["missed"]);
  });

  test("says who comes and goes", async (t) => {
    const ana = admin(t, { channels: ["lobby"] });
    await ana.nth("open");
    const eva = open(t, service.url, { token: token("eva"), channels: ["lobby"] });
    for (const channel of [undefined, "lobby"]) {
      const { time, ...rest } = await ana.until("eva's coming", () => ana.of("joined").find((who) => who.username === "eva" && who.channel === channel));
      assert.deepEqual(rest, { username: "eva", role: "user", ...(channel && { channel }) });
    }
    eva.chat.close();
    await ana.until("eva's going", () => ana.of("left").find((who) => who.username === "eva" && !who.channel));
  });

  test("tells refusals apart", async (t) => {
    const ana = admin(t), eva = user(t);
    for (const [kind, ask] of [
      ["forbidden", () => eva.chat.broadcast("me too")],
      ["forbidden", () => eva.chat.join("@admin")],
      ["forbidden", () => eva.chat.connected()],
      ["forbidden", () => eva.chat.disconnect("admin")],
      ["invalid", () => ana.chat.broadcast("")],
      ["invalid", () => ana.chat.join("no spaces")],
      ["invalid", () => ana.chat.messages({ after: "no id" })],
      ["not_joined", () => ana.chat.leave("nowhere")],
    ]) {
      const error = await rejection(ask());
      assert.ok(error instanceof ChatError && error instanceof Error, String(error));
      assert.equal(error.kind, kind, error.message);
    }
    assert.deepEqual([...ana.of("waiting"), ...eva.of("waiting")], []);
  });

  test("reads the history forward and backward", async (t) => {
    const ids = [];
    for (let i = 1; i <= 5; i++) ids.push(await service.publish(`${i}`, "story"));
    const { chat } = user(t);
    const read = async (query) => {
      const { messages, more, gap } = await chat.messages({ channel: "story", ...query });
      return { read: messages.map(({ content }) => content).join(""), more, gap };
    };
    assert.deepEqual(await read({}), { read: "12345", more: false, gap: undefined });
    assert.deepEqual(await read({ after: ids[1], limit: 2 }), { read: "34", more: true, gap: undefined });
    assert.deepEqual(await read({ before: "", limit: 2 }), { read: "45", more: true, gap: undefined });
    assert.deepEqual(await read({ before: ids[3], limit: 9 }), { read: "123", more: false, gap: undefined });
    assert.equal((await read({ after: "3-elsewhere-story" })).gap, true);
  });

  test("lets an admin see who is there, and send them away", async (t) => {
    const ana = admin(t), bob = open(t, service.url, { token: token("bob/é") });
    await Promise.all([ana.nth("open"), bob.nth("open")]);
    const found = (await ana.chat.connected()).find(({ username }) => username === "bob/é");
    assert.equal(found.connections, 1);
    assert.equal(await ana.chat.disconnect("bob/é"), 1);
    assert.equal((await bob.nth("close")).error.kind, "disconnected");
    assert.equal(bob.chat.state, "closed");
    assert.equal(await ana.chat.disconnect("nobody"), 0);
  });

  test("is one too many after sixteen", async (t) => {
    const crowd = Array.from({ length: 16 }, () => open(t, service.url, { token: token("many") }));
    await Promise.all(crowd.map((one) => one.nth("open")));
    const late = open(t, service.url, { token: token("many") });
    const { error, delay } = await late.nth("waiting");
    assert.deepEqual([error.kind, error.code], ["rate_limited", 429]);
    assert.ok(delay >= error.retryAfter * 1000 && error.retryAfter >= 1, `${delay}`);
    crowd[0].chat.close();
    late.chat.reconnect();
    await late.until("a connection", () => late.chat.state === "open" || (late.chat.reconnect(), false));
  });

  test("does without CustomEvent, which Node 18 has not", async (t) => {
    const { CustomEvent } = globalThis;
    delete globalThis.CustomEvent;
    t.after(() => { globalThis.CustomEvent = CustomEvent; });
    const { Chat: Old } = await import("../../../web/chat.js?without=CustomEvent");
    const chat = new Old(service.url, { ...options, token: token("eva") });
    t.after(() => chat.close());
    const { detail } = await within(new Promise((resolve) => chat.addEventListener("open", resolve)));
    assert.equal(detail.user.username, "eva");
  });

  test("rejects invalid options", () => {
    const good = { ...options, token: "t" };
    for (const [url, given] of [
      ["ftp://localhost/", good],
      ["https://ana:secret@localhost/", good],
      ["not a URL", good],
      [service.url, { ...good, token: "" }],
      [service.url, { ...good, token: "two words" }],
      [service.url, { ...good, token: undefined }],
      [service.url, undefined],
      [service.url, { ...good, channels: "ops" }],
      [service.url, { ...good, minDelay: 0 }],
      [service.url, { ...good, maxDelay: 1 }],
      [service.url, { ...good, WebSocket: "ws" }],
    ]) {
      assert.throws(() => new Chat(url, given), TypeError, `${url} ${JSON.stringify(given)}`);
    }
    assert.throws(() => login("ftp://localhost/", "ana", "secret"), TypeError);
  });
});
