// Signals, and what a Chat leaves behind: nothing.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { Chat, chatd, open, options, poll, proxy, rejection, scripted, token, welcome, within } from "./service.js";

/** A signal that knows how many listen. */
function counted() {
  const controller = new AbortController();
  const { signal } = controller;
  let listeners = 0;
  const { addEventListener: add, removeEventListener: remove } = signal;
  signal.addEventListener = (type, ...rest) => { listeners++; add.call(signal, type, ...rest); };
  signal.removeEventListener = (type, ...rest) => { listeners--; remove.call(signal, type, ...rest); };
  return { signal, abort: (reason) => controller.abort(reason), get listeners() { return listeners; } };
}

test("a signal ends what is waited for, and nobody listens to it afterwards", async (t) => {
  const service = await scripted(t, { upgrade: () => [503], answer() {} });
  const { chat } = open(t, service.url, { token: "t" });
  for (const [what, ask] of Object.entries({
    broadcast: (signal) => chat.broadcast("x", { signal }),
    join: (signal) => chat.join("ops", { signal }),
    leave: (signal) => chat.leave("ops", { signal }),
    messages: (signal) => chat.messages({ signal }),
    connected: (signal) => chat.connected({ signal }),
    disconnect: (signal) => chat.disconnect("ana", { signal }),
  })) {
    const stop = counted();
    const asked = ask(stop.signal);
    const why = new Error(`no ${what}`);
    setImmediate(() => stop.abort(why));
    assert.equal(await rejection(asked), why);
    assert.equal(stop.listeners, 0, what);
    assert.equal(await rejection(ask(stop.signal)), why, `${what}, aborted before`);
  }
});

test("a signal that never comes is not listened to either", async (t) => {
  const service = await chatd(t);
  const { chat } = open(t, service.url, { token: service.login("admin") });
  const stop = counted();
  const { signal } = stop;
  await chat.join("ops", { signal });
  await chat.broadcast("x", { channel: "ops", signal });
  await rejection(chat.broadcast("", { signal }));
  await chat.messages({ signal });
  await chat.connected({ signal });
  await chat.leave("ops", { signal });
  assert.equal(stop.listeners, 0);
});

test("many requests at a time are nothing to warn of", async (t) => {
  const service = await chatd(t);
  const ana = open(t, service.url, { token: service.login("admin") });
  const warned = t.mock.fn();
  process.on("warning", warned);
  t.after(() => process.off("warning", warned));
  await Promise.all(Array.from({ length: 30 }, () => ana.chat.messages()));
  await Promise.all(Array.from({ length: 30 }, (_, i) => ana.chat.broadcast(`${i}`)));
  assert.deepEqual(warned.mock.calls.map((call) => String(call.arguments[0])), []);
});

test("a source that is being asked hears of the end", async (t) => {
  let asked;
  const { chat } = open(t, "https://127.0.0.1:1/", { token: ({ signal }) => new Promise(() => { asked = signal; }) });
  const page = chat.messages();
  await poll("the question", () => asked);
  chat.close();
  assert.ok(asked.aborted);
  assert.equal((await rejection(page)).kind, "closed");
});

test("close() rejects what waits, and is told once", async (t) => {
  const service = await chatd(t);
  const between = await proxy(t, service.port);
  const ana = open(t, between.url, { token: service.login("admin") });
  await ana.nth("open");
  await ana.chat.join("ops");
  between.stall();
  const asked = [ana.chat.broadcast("sent"), ana.chat.join("dev"), ana.chat.messages()];
  ana.chat.close();
  ana.chat.close();
  assert.deepEqual((await Promise.all(asked.map(rejection))).map(({ kind }) => kind), ["unconfirmed", "closed", "closed"]);
  assert.deepEqual(ana.of("close"), [{ error: undefined }]);
  assert.equal(ana.chat.state, "closed");
  assert.deepEqual(ana.chat.channels, ["ops"]);
  assert.equal(ana.chat.since.length, 3);
});

test("close() stops a request that is on its way", async (t) => {
  let asked, gone;
  const service = await scripted(t, {
    socket(socket) { socket.send(welcome()); },
    answer(_, response) {
      asked = true;
      response.on("close", () => { gone = true; });
    },
  });
  const ana = open(t, service.url, { token: "t" });
  const page = ana.chat.messages();
  await poll("the request", () => asked);
  ana.chat.close();
  assert.equal((await rejection(page)).kind, "closed");
  await poll("the end of the request", () => gone);
});

test("nothing is told behind the end, though it was received", async (t) => {
  const message = (n) => JSON.stringify({ type: "message", id: `${n}-e`, sender: "", content: `${n}`, time: "2026-11-24T12:00:00.000Z" });
  const service = await scripted(t, {
    socket(socket) { socket.send(welcome()); for (let n = 1; n <= 50; n++) socket.send(message(n)); },
  });
  const ana = open(t, service.url, { token: "t" });
  ana.chat.addEventListener("message", ({ detail }) => { if (detail.content === "3") ana.chat.close(); });
  await ana.nth("close");
  for (const socket of service.sockets) await once(socket, "close");
  assert.deepEqual(ana.contents(), ["1", "2", "3"]);
  assert.equal(ana.chat.since[0], "3-e");
});

// In each of these states a program closes its Chat, and then has to end by itself.
const states = {
  "at once": "chat.close()",
  "while it connects": "setTimeout(() => chat.close(), 3)",
  "when it is open": "chat.addEventListener('open', () => chat.close())",
  "when a command waits": "chat.addEventListener('open', () => { chat.join('ops').catch(() => {}); chat.close(); })",
  "when a request waits": "chat.addEventListener('open', () => { chat.messages().catch(() => {}); setTimeout(() => chat.close(), 1); })",
  "when it waits": "chat.addEventListener('waiting', () => chat.close())",
};
for (const [when, code] of Object.entries(states)) {
  test(`closed ${when} it keeps no program from ending`, async (t) => {
    const service = await chatd(t);
    const url = when === "when it waits" ? "https://127.0.0.1:1/" : service.url;
    const script = `
      import { Chat } from ${JSON.stringify(new URL("../../../web/chat.js", import.meta.url))};
      import WebSocket from "ws";
      const chat = new Chat("${url}", { token: "${token("ana", { role: "admin" })}", WebSocket, minDelay: 60_000, maxDelay: 60_000 });
      chat.addEventListener("close", ({ detail }) => console.log("closed", detail.error));
      ${code};
    `;
    const program = spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: ["ignore", "pipe", "inherit"] });
    t.after(() => program.kill("SIGKILL"));
    let said = "";
    program.stdout.on("data", (data) => { said += data; });
    const begin = performance.now();
    const [code_] = await within(once(program, "close"), "its end");
    assert.deepEqual([said, code_], ["closed undefined\n", 0]);
    assert.ok(performance.now() - begin < 15_000, "it ended, but late");
  });
}

test("many that come and go leave no socket at the service", async (t) => {
  const service = await chatd(t);
  const ana = open(t, service.url, { token: service.login("admin") });
  await ana.nth("open");
  for (let i = 0; i < 20; i++) {
    const chat = new Chat(service.url, { ...options, token: token("eva") });
    if (i % 2) await within(once(chat, "open"), "a socket");
    chat.close();
  }
  let there = ["eva"];
  await poll("eva's going", () => !there.includes("eva"), async () => {
    there = (await ana.chat.connected()).map(({ username }) => username);
  });
});
