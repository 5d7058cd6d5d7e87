// What the tests of chat.js talk to: chatd and chatd-cluster as processes over TLS,
// a proxy to cut connections with, and scripted servers for what those never do.
// Paths come from node_test.go; the certificate is trusted by NODE_EXTRA_CA_CERTS.
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import https from "node:https";
import net from "node:net";
import readline from "node:readline";
import FakeTimers from "@sinonjs/fake-timers";
import ws, { WebSocketServer } from "ws";
import { Chat, ChatError, login } from "../../../web/chat.js";

export { Chat, ChatError, login };

const env = (name) => process.env[name] ?? (() => { throw new Error(`${name} is not set: run go test`); })();
const secret = readFileSync(env("SECRET"));
const passwords = JSON.parse(env("PASSWORDS"));

/** Node's own, or that of npm. */
export const WebSocket = process.env.WEBSOCKET === "node" ? globalThis.WebSocket : ws;

/** Short waits. */
export const options = { WebSocket, minDelay: 5, maxDelay: 100 };

const patience = 30_000;
const { setTimeout, clearTimeout, Date } = globalThis; // whatever a test makes of them later

/** A promise of what has to come. */
export async function within(promise, what = "what has to come") {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), patience); });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Looks, and does what is to be done meanwhile, until something holds. */
export async function poll(what, holds, meanwhile = () => {}) {
  const deadline = performance.now() + patience;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await meanwhile();
    await new Promise((resolve) => { setTimeout(resolve, 5); });
  }
}

/**
 * For chat.js time stands still from now on; the function that is returned lets so
 * many ms pass. Timers of others, such as fetch's, go on.
 */
export function clock(t) {
  const still = FakeTimers.createClock(Date.now());
  const { Date: real, setTimeout: set, clearTimeout: clear } = globalThis;
  const pending = new Set();
  globalThis.Date = still.Date;
  globalThis.setTimeout = (fn, delay, ...args) => {
    if (!new Error().stack.split("\n")[2].includes("/web/chat.js")) return set(fn, delay, ...args);
    const timer = still.setTimeout(() => { pending.delete(timer); fn(); }, delay);
    pending.add(timer);
    return timer;
  };
  globalThis.clearTimeout = (timer) => {
    if (pending.delete(timer)) still.clearTimeout(timer);
    else clear(timer);
  };
  t.after(() => Object.assign(globalThis, { Date: real, setTimeout: set, clearTimeout: clear }));
  return (ms) => still.tick(ms);
}

export async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

/** Runs chatd, or another program like it, until the test ends. */
export async function chatd(t, { program = "CHATD", args = [], port, secretFile = env("SECRET") } = {}) {
  const service = new Service(env(program), port ?? await freePort(), [...(secretFile ? ["-secret-file", secretFile] : []), ...args]);
  t.after(() => service.kill());
  await service.start();
  return service;
}

class Service {
  #path;
  #args;
  #process;

  constructor(path, port, args) {
    this.port = port;
    this.url = `https://127.0.0.1:${port}/`;
    this.#path = path;
    this.#args = ["-addr", `127.0.0.1:${port}`, "-tls-cert", env("TLS_CERT"), "-tls-key", env("TLS_KEY"), "-users", env("USERS"), ...args];
  }

  /** Starts it, at first or again. */
  async start() {
    this.#process = spawn(this.#path, this.#args, { stdio: ["ignore", "ignore", "pipe"] });
    const lines = [];
    for await (const line of readline.createInterface({ input: this.#process.stderr })) {
      lines.push(line);
      if (line.startsWith("listening on ")) {
        this.#process.stderr.resume();
        return;
      }
    }
    throw new Error(`${this.#path} did not start:\n${lines.join("\n")}`);
  }

  async kill(signal = "SIGKILL") {
    const { exitCode, signalCode } = this.#process;
    if (exitCode !== null || signalCode !== null) return;
    this.#process.kill(signal);
    await once(this.#process, "exit");
  }

  /** A source of tokens by password. */
  login(user, url = this.url) { return login(url, user, passwords[user]); }

  /** Publishes without a socket, and returns the id. */
  async publish(content, channel) {
    const response = await fetch(new URL("messages", this.url), {
      method: "POST",
      headers: { Authorization: `Bearer ${token("ci", { role: "admin" })}` },
      body: JSON.stringify({ content, channel }),
    });
    if (response.status !== 201) throw new Error(`publishing: ${response.status}`);
    return (await response.json()).id;
  }
}

/** A token as the services of these tests take it; ttl in seconds. */
export function token(sub, { ttl = 600, role } = {}) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, role, exp: Math.ceil(Date.now() / 1000) + ttl })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** A chat that is closed with the test, with all that it told so far. */
export function open(t, url, more) {
  const chat = new Chat(url, { ...options, ...more });
  t.after(() => chat.close());
  return watch(chat);
}

export function watch(chat) {
  const told = [];
  const waiting = new Set();
  for (const type of ["open", "message", "joined", "left", "gap", "waiting", "close"]) {
    chat.addEventListener(type, ({ detail }) => {
      told.push({ type, detail });
      for (const check of [...waiting]) check();
    });
  }
  /** Waits until a function of this object returns something, and returns that. */
  const until = (what, fn) => within(new Promise((resolve) => {
    const check = () => {
      const found = fn();
      if (!found) return;
      waiting.delete(check);
      resolve(found);
    };
    waiting.add(check);
    check();
  }), what);
  return {
    chat,
    told,
    until,
    of: (type) => told.filter((event) => event.type === type).map(({ detail }) => detail),
    contents: (channel) => told.filter(({ type, detail }) => type === "message" && detail.channel === channel).map(({ detail }) => detail.content),
    /** The nth event of a type, counting from 1, when it comes. */
    nth: (type, n = 1) => until(`${type} ${n}`, () => told.filter((event) => event.type === type)[n - 1]?.detail),
    /** A message with that content, when it comes. */
    message: (content) => until(`message ${content}`, () => told.find(({ type, detail }) => type === "message" && detail.content === content)?.detail),
  };
}

/** What a promise is rejected with. */
export async function rejection(promise) {
  try {
    await within(promise, "a rejection");
  } catch (error) {
    return error;
  }
  throw new Error("it was not rejected");
}

/** A TCP proxy that can be cut, and refuse what comes. */
export async function proxy(t, port) {
  const ends = new Set();
  const server = net.createServer((from) => {
    if (server.refusing) return from.destroy();
    const to = net.connect(port, "127.0.0.1");
    for (const end of [from, to]) {
      ends.add(end);
      end.on("error", () => {}).on("close", () => { ends.delete(end); from.destroy(); to.destroy(); });
    }
    from.pipe(to).pipe(from);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => { for (const end of ends) end.destroy(); };
  t.after(() => { server.close(); cut(); });
  return {
    url: `https://127.0.0.1:${server.address().port}/`,
    cut,
    refuse(refusing = true) { server.refusing = refusing; if (refusing) cut(); },
    /** Bytes go nowhere, and nobody says so. */
    stall() { for (const end of ends) { end.unpipe(); end.pause(); } },
  };
}

/**
 * A server over TLS that does what the test says: upgrade(request) returns the
 * status of a refusal, with headers, or nothing; socket(socket, n) is called for each
 * that is opened; answer(request, response) is for everything else.
 */
export async function scripted(t, { upgrade = () => {}, socket = () => {}, answer }) {
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "chat.v1" });
  let opened = 0;
  const server = https.createServer({ cert: readFileSync(env("TLS_CERT")), key: readFileSync(env("TLS_KEY")) }, (request, response) => {
    if (answer && answer(request, response) !== false) return;
    response.writeHead(request.url.startsWith("/ws/chat") ? 426 : 404).end();
  });
  server.on("upgrade", (request, connection, head) => {
    const [status, headers = {}] = upgrade(request) ?? [];
    if (status) {
      const lines = Object.entries({ Connection: "close", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`).join("");
      connection.end(`HTTP/1.1 ${status} No\r\n${lines}\r\n`);
      return;
    }
    sockets.handleUpgrade(request, connection, head, (ws) => {
      ws.on("error", () => {});
      socket(ws, ++opened, request);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const ws of sockets.clients) ws.terminate();
    server.close();
    server.closeAllConnections();
  });
  return { url: `https://127.0.0.1:${server.address().port}/`, sockets: sockets.clients };
}

/** A welcome as chatd sends it, in JSON. */
export const welcome = (more) => JSON.stringify({
  type: "welcome", session: "s", user: "ana", role: "admin", expires_in: 600, since: ["0-e", "0-e-@ana"], ...more,
});
