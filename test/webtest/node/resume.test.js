// How a Chat resumes after the connection or the service was gone for a while.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { chatd, open, proxy, rejection, scripted, token, welcome } from "./service.js";

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => `${from + i}`);

test("a connection that is cut is made again, and nothing is lost or repeated", async (t) => {
  const service = await chatd(t);
  const between = await proxy(t, service.port);
  const eva = open(t, between.url, { token: token("eva"), channels: ["ops"] });
  await eva.nth("open");
  for (let i = 1; i <= 200; i++) {
    await service.publish(`${i}`, i % 2 ? undefined : "ops");
    if (i % 20 === 0) between.cut();
  }
  await eva.message("199");
  await eva.message("200");
  assert.deepEqual(eva.contents(), numbers(1, 200).filter((n) => n % 2));
  assert.deepEqual(eva.contents("ops"), numbers(1, 200).filter((n) => n % 2 === 0));
  assert.deepEqual(eva.of("gap"), []);
  const [first, ...later] = eva.of("open").map(({ resumed }) => resumed);
  assert.equal(first, undefined);
  assert.ok(later.length > 0 && later.every(Boolean), `${later}`);
  assert.equal(eva.of("waiting")[0].error.kind, "network");
});

test("what is asked for meanwhile waits", async (t) => {
  const service = await chatd(t);
  const between = await proxy(t, service.port);
  const ana = open(t, between.url, { token: token("ana", { role: "admin" }), channels: ["old"] });
  await ana.nth("open");
  between.refuse();
  await ana.nth("waiting");
  const stop = new AbortController();
  const never = ana.chat.broadcast("never", { signal: stop.signal });
  const asked = [ana.chat.broadcast("one"), ana.chat.join("ops"), ana.chat.leave("old"), ana.chat.broadcast("two")];
  stop.abort(new Error("changed my mind"));
  assert.equal((await rejection(never)).message, "changed my mind");
  between.refuse(false);
  const [one, , , two] = await Promise.all(asked);
  await ana.message("two");
  assert.deepEqual(ana.contents(), ["one", "two"]);
  assert.deepEqual(ana.of("message").map(({ id }) => id), [one, two]);
  assert.deepEqual(ana.chat.channels, ["ops"]);
  await service.publish("to ops", "ops");
  await ana.message("to ops");
});

test("a broadcast without an answer is unconfirmed; joining and leaving are repeated", async (t) => {
  const service = await chatd(t);
  const between = await proxy(t, service.port);
  const ana = open(t, between.url, { token: token("ana", { role: "admin" }), channels: ["old"] });
  await ana.nth("open");
  between.stall();
  const sent = ana.chat.broadcast("who knows");
  const joined = ana.chat.join("ops"), left = ana.chat.leave("old");
  const stop = new AbortController();
  const aborted = ana.chat.join("other", { signal: stop.signal });
  stop.abort();
  assert.equal((await rejection(aborted)).name, "AbortError");
  between.cut();
  assert.equal((await rejection(sent)).kind, "unconfirmed");
  await Promise.all([joined, left]);
  assert.deepEqual(ana.chat.channels, ["ops"]);
  await ana.chat.broadcast("done");
  await ana.message("done");
  assert.ok(ana.contents().filter((content) => content === "who knows").length <= 1);
});

test("what came of a channel that is being joined does not come again", async (t) => {
  const asked = [];
  const message = (n) => JSON.stringify({ type: "message", id: `${n}-e-ops`, channel: "ops", sender: "", content: `${n}`, time: "2026-11-24T12:00:00.000Z" });
  const service = await scripted(t, {
    socket(socket, n) {
      socket.send(welcome());
      socket.on("message", (frame) => {
        const command = JSON.parse(frame);
        asked.push(command.since);
        socket.send(message(1 + n));
        if (n === 1) socket.terminate();
        else socket.send(JSON.stringify({ type: "ack", ref: command.ref, since: "3-e-ops", recovered: true }));
      });
    },
  });
  const ana = open(t, service.url, { token: "t" });
  await ana.chat.join("ops", { since: "1-e-ops" });
  assert.deepEqual(asked, ["1-e-ops", "2-e-ops"]);
  assert.deepEqual(ana.contents("ops"), ["2", "3"]);
});

test("a service that is killed again and again loses and repeats nothing that it keeps", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "webtest-"));
  const service = await chatd(t, { program: "CHATD_CLUSTER", args: ["-history", `sqlite:${join(dir, "history.db")}`] });
  t.after(() => rm(dir, { recursive: true }));
  const ana = open(t, service.url, { token: service.login("admin"), channels: ["ops"] });
  const eva = open(t, service.url, { token: service.login("user"), channels: ["ops"] });
  await Promise.all([ana.nth("open"), eva.nth("open")]);

  const acked = [], unconfirmed = [];
  let over = false;
  const sending = (async () => {
    for (let i = 1; !over; i++) {
      const content = `${i}`;
      await ana.chat.broadcast(content, { channel: "ops" }).then(
        () => acked.push(content),
        (error) => unconfirmed.push(`${content} ${error.kind}`));
    }
  })();
  for (let round = 1; round <= 5; round++) {
    const before = acked.length;
    await ana.until("acks", () => acked.length > before + 20);
    await service.kill();
    await service.start();
    await eva.nth("open", round + 1);
  }
  over = true;
  await sending;
  const last = await ana.chat.broadcast("the last one", { channel: "ops" });

  for (const who of [ana, eva]) {
    assert.equal((await who.message("the last one")).id, last);
    const got = who.contents("ops").slice(0, -1);
    assert.deepEqual(got.filter((content) => acked.includes(content)), acked);
    assert.deepEqual(got, [...new Set(got)].sort((a, b) => a - b));
    assert.deepEqual(who.of("gap"), []);
    assert.ok(who.of("open").slice(1).every(({ resumed }) => resumed));
  }
  assert.deepEqual(unconfirmed.filter((text) => !text.endsWith(" unconfirmed")), []);
  t.diagnostic(`${acked.length} acked, ${unconfirmed.length} unconfirmed`);
});

test("lost messages are a gap; later messages are delivered after it", async (t) => {
  const service = await chatd(t);
  const between = await proxy(t, service.port);
  const eva = open(t, between.url, { token: token("eva"), channels: ["ops"] });
  await eva.nth("open");
  for (const channel of [undefined, "ops", "@eva"]) await service.publish("before", channel);
  await eva.until("three messages", () => eva.of("message").length === 3);
  between.refuse();
  await service.kill();
  await service.start();
  for (const content of ["1", "2", "3"]) {
    await service.publish(content);
    await service.publish(content, "ops");
  }
  between.refuse(false);
  assert.equal((await eva.nth("open", 2)).resumed, false);
  await service.publish("4");
  await service.publish("4", "ops");
  await eva.until("all of it", () => eva.contents("ops").at(-1) === "4" && eva.contents().at(-1) === "4");
  for (const channel of [undefined, "ops"]) {
    assert.deepEqual(eva.contents(channel), ["before", "1", "2", "3", "4"]);
    const of = eva.told.filter(({ type, detail }) => (type === "message" || type === "gap") && detail.channel === channel);
    assert.deepEqual(of.map(({ type }) => type), ["message", "gap", "message", "message", "message", "message"]);
  }
  assert.deepEqual(eva.of("gap"), [{}, { channel: "@eva" }, { channel: "ops" }]);
});

test("the missed messages that are kept are delivered after the gap", async (t) => {
  const service = await chatd(t, { args: ["-history-count", "3"] });
  const between = await proxy(t, service.port);
  const eva = open(t, between.url, { token: token("eva") });
  await eva.nth("open");
  await service.publish("0");
  await eva.message("0");
  between.refuse();
  await eva.nth("waiting");
  for (const content of numbers(1, 10)) await service.publish(content);
  between.refuse(false);
  await eva.message("10");
  await service.publish("11");
  await eva.message("11");
  assert.deepEqual(eva.contents(), ["0", "8", "9", "10", "11"]);
  assert.deepEqual(eva.of("gap"), [{}]);
  assert.deepEqual(eva.of("open").map(({ resumed }) => resumed), [undefined, false]);
});

// A scripted service after a gap: everyone's channel continues at the id
// of message 5; the test sets the answer of GET /messages.
async function behindAGap(t, { answer, live = [6, 7], more = {} }) {
  const message = (n) => ({ id: `${n}-f`, sender: "", content: `${n}`, time: "2026-11-24T12:00:00.000Z" });
  const sockets = [];
  const queries = [];
  const service = await scripted(t, {
    socket(socket, n) {
      sockets.push(socket);
      if (n === 1) {
        socket.send(welcome({ since: ["0-e", "0-e-@ana"] }));
        socket.close(1001);
        return;
      }
      socket.send(welcome({ since: ["5-f", "0-e-@ana"], recovered: n !== 2 }));
      for (const n of live) socket.send(JSON.stringify({ type: "message", ...message(n) }));
    },
    answer(request, response) {
      if (!request.url.startsWith("/messages")) return false;
      const query = new URL(request.url, "https://localhost").searchParams;
      queries.push(Object.fromEntries(query));
      answer({ query, response, sockets, page: (ns, more = false) => response.end(JSON.stringify({ messages: ns.map(message), more, gap: true })) }, queries.length);
    },
  });
  const ana = open(t, service.url, { token: "t", ...more });
  return { ana, queries, sockets };
}

test("new messages wait for the kept ones before them", async (t) => {
  const { ana, queries } = await behindAGap(t, {
    async answer({ page, sockets }, n) {
      if (n === 1) return page([2, 3], true);
      sockets[1].ping(); // behind the live ones
      await once(sockets[1], "pong");
      assert.deepEqual(ana.contents(), []);
      assert.equal(ana.chat.since[0], "0-e");
      page([4, 5, 6], true);
    },
  });
  await ana.message("7");
  assert.deepEqual(ana.contents(), ["2", "3", "4", "5", "6", "7"]);
  assert.deepEqual(queries, [{ channel: "", after: "0-e", limit: "1000" }, { channel: "", after: "3-f", limit: "1000" }]);
  assert.equal(ana.chat.since[0], "7-f");
});

// A service whose data went back in time may still have them.
test("kept messages that were delivered before are not delivered again", async (t) => {
  const { ana } = await behindAGap(t, {
    answer: ({ response }) => response.end(JSON.stringify({
      messages: ["-1-e", "0-e", "4-f", "5-f"].map((id) => ({ id, sender: "", content: id, time: "2026-11-24T12:00:00.000Z" })),
      more: false,
      gap: true,
    })),
  });
  await ana.message("7");
  assert.deepEqual(ana.contents(), ["4-f", "5-f", "6", "7"]);
});

for (const [why, answer] of Object.entries({
  "that do not reach to the new ones": ({ page }) => page([6, 7]),
  "that have none": ({ page }) => page([]),
  "that may not be read": ({ response }) => response.writeHead(403).end(),
  "that cannot be had": ({ response }) => response.writeHead(500).end(),
  "that are invalid": ({ response }) => response.end("{\"messages\":[null]}"),
  "that are too many": ({ page }, n) => page(numbers(1, 1000).map((i) => `${n}x${i}`), true),
})) {
  test(`nothing waits for kept messages ${why}`, async (t) => {
    const { ana } = await behindAGap(t, { answer });
    await ana.message("7");
    assert.deepEqual(ana.contents(), ["6", "7"]);
    assert.deepEqual(ana.of("gap"), [{}]);
  });
}

test("what waits is bounded", async (t) => {
  const live = numbers(6, 10_100);
  const { ana } = await behindAGap(t, { live, answer() {} });
  await ana.message("10100");
  assert.deepEqual(ana.contents(), live);
});

test("a gap is told once, and what it holds comes with the next connection", async (t) => {
  const { ana, queries } = await behindAGap(t, {
    answer({ sockets, page }, n) {
      if (n === 1) page([2], true);
      else if (n === 2) sockets[1].terminate();
      else page([2, 3, 5]);
    },
    live: [8],
  });
  await ana.message("8");
  assert.deepEqual(ana.contents(), ["2", "3", "5", "8"]);
  assert.deepEqual(queries.map(({ after }) => after), ["0-e", "2-f", "0-e"]);
  assert.deepEqual(ana.of("gap"), [{}]);
  assert.deepEqual(ana.of("open").map(({ resumed }) => resumed), [undefined, false, true]);
});

test("a channel that is joined twice, or again, comes once", async (t) => {
  const service = await chatd(t);
  const since = await service.publish("0", "ops");
  for (const content of numbers(1, 3)) await service.publish(content, "ops");
  const eva = open(t, service.url, { token: token("eva") });
  await Promise.all([eva.chat.join("ops", { since }), eva.chat.join("ops", { since })]);
  await eva.chat.join("ops", { since });
  assert.deepEqual(eva.contents("ops"), ["1", "2", "3"]);
  const left = eva.chat.leave("ops");
  await eva.chat.join("ops", { since }); // left in between, it is asked for from there
  await left;
  assert.deepEqual(eva.chat.channels, ["ops"]);
  assert.deepEqual(eva.contents("ops"), ["1", "2", "3", "1", "2", "3"]);
  await service.publish("4", "ops");
  await eva.message("4");
  assert.deepEqual(eva.of("gap"), []);
});
