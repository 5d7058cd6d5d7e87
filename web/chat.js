/**
 * A client for the chat service: one socket that reconnects by itself.
 *
 *     const chat = new Chat("https://example.com/chat/", { token: login("https://example.com/chat/", "ana", password) });
 *     chat.addEventListener("message", ({ detail }) => console.log(detail.sender, detail.content));
 *     chat.addEventListener("gap", () => console.log("some messages are no longer kept"));
 *     await chat.broadcast("lunch is ready");
 *
 * After a lost connection the client reconnects and resumes. Each message comes once
 * and in the order of its channel; if messages are gone, a "gap" comes before the next
 * message. The client has no dependencies. It needs WebSocket, fetch and EventTarget:
 * browsers have them, and in Node missing ones are passed as options. chat.d.ts
 * documents the types and the contract; docs/protocol.md documents the wire protocol.
 *
 * @module
 */

const second = 1000;
/** The time limit from opening a socket to its welcome. */
const openWithin = 20 * second;
/** After a silence of quietFor the client sends a command. Without an answer within answerWithin the connection is dead. */
const quietFor = 60 * second;
const answerWithin = 20 * second;
/** The time limit of an HTTP request. */
const requestWithin = 30 * second;
/** After a connection that lasted this long, waits start small again. */
const goodAfter = 10 * second;
/** The least wait after close code 4005. */
const tooFastWait = 10 * second;
/** The longest delay of setTimeout, in ms. */
const longestTimer = 2 ** 31 - 1;
/** The size limits of a frame, in UTF-16 code units, and of an answer's body, in bytes. */
const frameLimit = 4 << 20;
const bodyLimit = 32 << 20;
/** The limits of messages that wait until earlier ones are fetched, in messages and UTF-16 code units. */
const heldMessages = 10_000;
const heldSize = 8 << 20;
/** The greatest length of a handshake's address with channels in it: nginx accepts request lines of 8 KiB, others less. */
const addressLimit = 2048;
/**
 * Channels that do not fit into the address are joined after the welcome: joinsAtOnce
 * at once, the others joinEvery ms apart. Services accept 20 commands a second after 40.
 * After a refusal the client waits until these 40 are available again, then longer.
 */
const joinsAtOnce = 16;
const joinEvery = second / 15;
const refusedWait = 2 * second;
const longestRefusedWait = 8 * second;
/** A token this new may be refused by a service whose clock is behind. */
const freshFor = 5 * second;
/** After these errors a token source is not called again. */
const hopeless = ["unauthenticated", "forbidden", "invalid", "not_found"];
/** The characters that a subprotocol may contain (RFC 9110, section 5.6.2). */
const sendable = /^[\w!#$%&'*+.^`|~-]+$/;

/** Node 18 has no CustomEvent. */
const CustomEvent = globalThis.CustomEvent ?? class extends Event {
  constructor(type, { detail }) {
    super(type);
    this.detail = detail;
  }
};

/** An error with a kind that a program can check. */
export class ChatError extends Error {
  constructor(kind, message, { code, retryAfter, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "ChatError";
    this.kind = kind;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** Returns a token source that logs in with a password. */
export function login(url, username, password, { fetch = globalThis.fetch } = {}) {
  const target = new URL("login", mountedAt(url));
  const body = JSON.stringify({ username, password });
  return async ({ signal } = {}) => {
    const answer = await request(fetch, "POST", target, { body, signal });
    return text(answer.access_token, "the answer to a login contains no token");
  };
}

/** A connection to the service that reconnects and resumes by itself. */
export class Chat extends EventTarget {
  #url;
  #source; // a token, or a function that returns one
  #fetch;
  #WebSocket;
  #minDelay;
  #maxDelay;

  #state = "connecting";
  #user;
  /** The channels and ids to ask for until the first welcome. */
  #first;
  /** By name, in the order of a welcome: "" (everyone's), the user channel, the joined channels. */
  #channels = new Map();
  /** By ref, oldest first: commands that wait to be sent or wait for their answer. */
  #commands = new Map();
  #ref = 0;

  #connection; // set after its welcome
  #held = { count: 0, size: 0 }; // messages that wait, in all channels
  #token; // the last token of the source, until it is refused or due
  #due = Infinity; // when to ask for the next token, on the clock of Date.now()
  #got = 0; // when #token came, on the same clock
  #asking; // the promise of the source's token, while there is one
  #refused = false; // the last token was refused
  #allowed = false; // all channels were checked since the last connection
  #refreshing; // timer
  #silence; // timer, restarted by each frame
  #wake = () => {}; // ends the wait for the next attempt
  #closing = new AbortController();
  #requests = new Set(); // AbortControllers

  constructor(url, options) {
    super();
    const { token, channels = [], since = [], minDelay = 500, maxDelay = 30 * second } = options ?? {};
    this.#url = mountedAt(url);
    this.#source = token;
    this.#first = { channels: list(channels, "channels").filter(Boolean), since: list(since, "since") };
    this.#minDelay = minDelay;
    this.#maxDelay = maxDelay;
    this.#WebSocket = options?.WebSocket ?? globalThis.WebSocket;
    this.#fetch = options?.fetch ?? globalThis.fetch;
    if (typeof token !== "function" && (typeof token !== "string" || !sendable.test(token))) {
      throw new TypeError("token: neither a function nor a string of token characters (RFC 9110)");
    }
    if (!(minDelay > 0 && maxDelay >= minDelay && maxDelay <= longestTimer)) {
      throw new TypeError("minDelay and maxDelay: not milliseconds with 0 < minDelay <= maxDelay");
    }
    for (const name of ["WebSocket", "fetch"]) {
      if (typeof (options?.[name] ?? globalThis[name]) !== "function") {
        throw new TypeError(`${name}: this platform has none, pass one as an option`);
      }
    }
    this.#watchNetwork();
    this.#run();
  }

  get state() { return this.#state; }

  get user() { return this.#user && { ...this.#user }; }

  get channels() {
    return this.#channels.size ? [...this.#channels.keys()].slice(2) : [...this.#first.channels];
  }

  get since() {
    if (!this.#channels.size) return [...this.#first.since];
    return [...this.#channels.values()].map(({ last, gap }) => gap?.after ?? last).filter(Boolean);
  }

  // Requests to the service.

  async broadcast(content, { channel, signal } = {}) {
    if (typeof content !== "string") throw new TypeError("content: not a string");
    const ack = await this.#command({ type: "broadcast", content, channel }, signal);
    return ack.id;
  }

  async join(channel, { since, signal } = {}) {
    if (typeof channel !== "string") throw new TypeError("channel: not a string");
    await this.#command({ type: "join", channel, since }, signal);
  }

  async leave(channel, { signal } = {}) {
    if (typeof channel !== "string") throw new TypeError("channel: not a string");
    await this.#command({ type: "leave", channel }, signal);
  }

  async messages({ channel, after, before, limit, signal } = {}) {
    const page = await this.#call("GET", "messages", { channel, after, before, limit }, signal);
    if (!Array.isArray(page.messages)) throw protocolError("a page without messages");
    return { messages: page.messages.map(toMessage), more: page.more === true, ...(page.gap === true && { gap: true }) };
  }

  async connected({ channel, signal } = {}) {
    const { users } = await this.#call("GET", "users/connected", { channel }, signal);
    if (!Array.isArray(users)) throw protocolError("a list without users");
    return users.map(toConnected);
  }

  async disconnect(username, { signal } = {}) {
    const { closed } = await this.#call("POST", `users/${encodeURIComponent(username)}/disconnect`, {}, signal);
    if (!Number.isInteger(closed)) throw protocolError("an answer without a number of sockets");
    return closed;
  }

  reconnect() { this.#wake(); }

  close() { this.#end(); }

  // The connection: connect, wait, reconnect.

  async #run() {
    for (let tries = 0; ;) {
      this.#state = "connecting";
      const { error, final, wait = 0, lived = 0 } = await this.#connect();
      if (this.#closing.signal.aborted) return;
      this.#lose(error);
      if (final) return this.#end(error);
      if (lived >= goodAfter) tries = 0;
      const delay = Math.round(Math.max(wait * (1 + Math.random() / 5), this.#backoff(tries++)));
      this.#state = "waiting";
      const waited = this.#pause(delay);
      this.#tell("waiting", { error, delay });
      await waited;
      if (this.#closing.signal.aborted) return;
    }
  }

  /** Full jitter below a ceiling that doubles with each attempt. */
  #backoff(tries) {
    return Math.random() * Math.min(this.#maxDelay, this.#minDelay * 2 ** tries);
  }

  /** Resolves after delay ms, or when reconnect() or close() is called. */
  #pause(delay) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.min(delay, longestTimer));
      this.#wake = () => { clearTimeout(timer); resolve(); };
    }).finally(() => { this.#wake = () => {}; });
  }

  /** Runs one connection, from the token to its end. Never rejects. */
  async #connect() {
    const { signal } = this.#closing;
    let token;
    try {
      token = await this.#credential();
      this.#notClosed();
    } catch (error) {
      return { error, final: hopeless.includes(error.kind), wait: seconds(error.retryAfter) };
    }
    const { asked, unjoined } = this.#address();
    const target = new URL(asked);
    target.protocol = target.protocol.replace("http", "ws");
    const connection = new Connection(this.#WebSocket, target, ["chat.v1", `bearer.${token}`],
      (event) => this.#receive(connection, event));
    connection.unjoined = unjoined;
    const close = () => connection.end(closedError());
    signal.addEventListener("abort", close);
    const error = await connection.ended;
    signal.removeEventListener("abort", close);
    if (this.#connection === connection) this.#connection = undefined;
    clearTimeout(this.#refreshing);
    clearTimeout(this.#silence);
    if (signal.aborted) return { error };
    return connection.opened ? { ...this.#whyEnded(error), lived: connection.lived } : this.#whyRefused(asked, token, error);
  }

  /**
   * Returns the address, with as many channels as fit, and the channels that do not fit.
   * Usually there is one id for each channel, in order. If not, it is not known which
   * channel an id belongs to, so all ids and channels go into the address.
   */
  #address() {
    const { channels } = this;
    const since = this.#last();
    const paired = since.length === channels.length + 2;
    const at = (n) => this.#route("ws/chat", { channel: channels.slice(0, n), since: paired ? since.slice(0, n + 2) : since });
    let n = channels.length;
    while (n > 0 && (paired || !since.length) && at(n).href.length > addressLimit) n--;
    return { asked: at(n), unjoined: channels.slice(n).map((channel, i) => ({ channel, since: paired ? since[n + 2 + i] : undefined })) };
  }

  #whyEnded(error) {
    switch (error.code) {
      case 4001:
        this.#token = undefined;
        return { error, final: typeof this.#source === "string" };
      case 4002:
      case 4004:
        return { error, final: true };
      case 4005:
        return { error, wait: tooFastWait };
    }
    return { error, final: error.kind === "unauthenticated" || error.refused === true };
  }

  /**
   * Finds out why a handshake was refused, as browsers hide its answer. A plain request
   * to the same address gets 426 if nothing is wrong with it; each channel is then
   * checked by reading it.
   */
  async #whyRefused(asked, token, error) {
    const ask = (url) => request(this.#fetch, "GET", url, { token, among: this.#requests }).catch((refusal) => refusal);
    const refusal = await ask(asked);
    switch (refusal.code) {
      case 401:
        return this.#whyUnauthenticated(token, refusal);
      case 400:
        if (!refusal.explained) return { error: refusal, final: true }; // refused by a proxy, not by the service
        break;
      case 426:
        break;
      case 408:
      case 425:
      case 429:
        return { error: refusal, wait: seconds(refusal.retryAfter) };
      default:
        if (refusal.code >= 500) return { error: refusal, wait: seconds(refusal.retryAfter) };
        if (refusal.code >= 400) return { error: refusal, final: true };
        return { error: refusal.kind === "network" ? refusal : error };
    }
    for (const channel of this.#allowed ? [] : this.channels) {
      const { kind, code, message } = await ask(this.#route("messages", { channel, limit: 1 }));
      if (code === 400 || code === 403) {
        return { error: new ChatError(kind, `channel ${channel}: ${message}`, { code }), final: true };
      }
    }
    this.#allowed = true;
    return { error };
  }

  /**
   * Handles a refused token. The next token is used a moment after it was issued,
   * because it may not be valid before if clocks differ.
   */
  async #whyUnauthenticated(token, error) {
    if (this.#token === token) this.#token = undefined;
    if (this.#refused || typeof this.#source === "string") return { error, final: true };
    this.#refused = true;
    try {
      await this.#credential();
    } catch (failure) {
      return { error: failure, final: hopeless.includes(failure.kind), wait: seconds(failure.retryAfter) };
    }
    return { error, wait: aMoment() };
  }

  /** Settles the commands that were sent on an ended connection and not answered. */
  #lose(error) {
    let blamed = [1002, 1003, 1007, 1009].includes(error.code); // the oldest command caused the close
    for (const command of [...this.#commands.values()].filter(({ sent }) => sent)) {
      command.rejoin = undefined;
      if (blamed || command.own) {
        command.fail(error);
      } else if (command.body.type === "broadcast") {
        command.fail(new ChatError("unconfirmed", "the connection ended before the answer came: the message may have been stored", { cause: error }));
      } else if (command.body.type === "refresh" || command.aborted) {
        command.fail(error);
      } else {
        command.sent = false; // join and leave can be repeated
      }
      blamed = false;
    }
  }

  #end(error) {
    if (this.#state === "closed") return;
    this.#state = "closed";
    const reason = error ?? closedError();
    this.#connection = undefined;
    this.#closing.abort(reason);
    for (const stop of this.#requests) stop.abort(reason);
    this.#wake();
    this.#lose(reason);
    for (const command of this.#commands.values()) command.fail(reason);
    this.#tell("close", { error });
  }

  #notClosed() {
    if (this.#state === "closed") throw closedError();
  }

  /** Checks the connection when the network or the page returns, if the platform has such events. */
  #watchNetwork() {
    const { signal } = this.#closing;
    globalThis.addEventListener?.("online", () => this.#check(), { signal });
    globalThis.document?.addEventListener?.("visibilitychange", () => {
      if (document.visibilityState === "visible") this.#check();
    }, { signal });
  }

  /**
   * Checks whether the socket is alive, as scripts do not see pings. Joining the user
   * channel has no effect and gets an answer.
   */
  #check() {
    this.#wake();
    if (this.#connection && !this.#commands.size) this.#command({ type: "join", channel: `@${this.#user.username}` }).catch(() => {});
  }

  // Tokens.

  /** Resolves to the current token, or to the next one. Concurrent callers share one request. */
  async #credential() {
    this.#notClosed();
    if (typeof this.#source === "string") return this.#source;
    if (this.#token && Date.now() < this.#due) return this.#token;
    this.#asking ??= abortable(this.#ask(), this.#closing.signal).finally(() => { this.#asking = undefined; });
    return this.#asking;
  }

  async #ask() {
    let token;
    try {
      token = await this.#source({ signal: this.#closing.signal });
    } catch (error) {
      throw error instanceof ChatError ? error : new ChatError("unavailable", `asking for a token: ${error?.message}`, { cause: error });
    }
    if (typeof token !== "string" || !sendable.test(token)) {
      throw new ChatError("unauthenticated", "the token source did not return a string of token characters (RFC 9110)");
    }
    this.#token = token;
    this.#got = Date.now();
    this.#due = Infinity; // until the service says when it expires
    return token;
  }

  /** Schedules the request for the next token well before this one expires. */
  #schedule(expiresIn) {
    if (!(expiresIn >= 0)) return;
    const left = expiresIn * second;
    const ahead = Math.max(left / 5, Math.min(5 * second, left / 2));
    const delay = Math.min(longestTimer, Math.max(second / 2, (left - ahead) * (1 - Math.random() / 10)));
    this.#due = Date.now() + delay;
    this.#refreshIn(delay, 0);
  }

  #refreshIn(delay, tries) {
    clearTimeout(this.#refreshing);
    if (typeof this.#source === "function") this.#refreshing = setTimeout(() => this.#refresh(tries), delay);
  }

  async #refresh(tries) {
    const connection = this.#connection;
    try {
      this.#token = undefined;
      const token = await this.#credential();
      if (this.#connection !== connection) return;
      const ack = await this.#command({ type: "refresh", token });
      this.#schedule(ack.expires_in);
    } catch (error) {
      if (this.#connection !== connection) return;
      if (hopeless.includes(error.kind)) this.#end(error);
      else this.#refreshIn(Math.max(this.#backoff(tries), seconds(error.retryAfter)), tries + 1);
    }
  }

  // Commands and their answers.

  #command(body, signal, own) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      this.#notClosed();
      const ref = ++this.#ref;
      const settled = () => {
        this.#commands.delete(ref);
        signal?.removeEventListener("abort", abort);
      };
      const command = {
        body: { ...body, ref },
        sent: false,
        aborted: false,
        own, // of #joinRest: called when the answer comes, before it is processed
        rejoin: undefined, // the earlier channel that this command joins again
        done: (ack) => { settled(); resolve(ack); },
        fail: (error) => { settled(); reject(error); },
      };
      const abort = () => {
        command.aborted = true; // the service may still execute a sent command
        if (!command.sent) settled();
        reject(signal.reason);
      };
      signal?.addEventListener("abort", abort);
      this.#commands.set(ref, command);
      this.#send(command);
    });
  }

  #send(command) {
    if (!this.#connection || this.#connection.signal.aborted || command.sent) return;
    const { type, channel } = command.body;
    const late = type === "join" || type === "leave" ? this.#connection.take(channel) : undefined;
    if (late && type === "leave") return this.#leaveUnjoined(command);
    const again = type === "join" && this.#willBeIn(channel); // then no replay, which would repeat messages
    if (late) this.#connection.send({ ...command.body, since: late.since });
    else this.#connection.send(again ? { ...command.body, since: undefined } : command.body);
    command.rejoin = late;
    command.sent = true;
    this.#listen();
  }

  /** Leaves a channel that this connection has not joined yet. */
  #leaveUnjoined(command) {
    const connection = this.#connection;
    this.#release(connection, command.body.channel);
    this.#channels.delete(command.body.channel);
    command.done({});
    connection.unanswered--;
    if (connection.greeting && !connection.unanswered) this.#greet(connection);
  }

  /** Joins the channels that did not fit into the address. */
  async #joinRest(connection) {
    let burst = joinsAtOnce, most = joinsAtOnce, every = joinEvery, wait = refusedWait;
    while (this.#connection === connection && connection.unanswered) {
      const answers = [];
      while (this.#connection === connection && connection.unjoined.length && answers.length < most) {
        if (burst > 0) burst--;
        else await sleep(every, connection.signal);
        const [next] = connection.unjoined;
        if (this.#connection !== connection || !next) break;
        answers.push(new Promise((resolve) => {
          this.#command({ type: "join", channel: next.channel }, undefined, resolve).catch(resolve);
        }));
      }
      const refused = (await Promise.all(answers)).some(({ code }) => code === "rate_limited");
      if (!refused && answers.length) continue;
      // Without a refusal, a join of the caller is under way.
      await sleep(refused ? wait * (1 + Math.random() / 5) : every, connection.signal);
      if (refused) [burst, most, every, wait] = [0, Math.ceil(most / 2), Math.min(2 * every, second), Math.min(2 * wait, longestRefusedWait)];
    }
  }

  /** Whether a channel will be joined after all sent commands are executed. */
  #willBeIn(channel) {
    let joined = this.#channels.has(channel);
    for (const { sent, body } of this.#commands.values()) {
      if (sent && body.channel === channel && body.type !== "broadcast") joined = body.type === "join";
    }
    return joined;
  }

  /** Restarts the timer that checks a silent connection, or ends it if an answer is overdue. */
  #listen() {
    clearTimeout(this.#silence);
    const connection = this.#connection;
    if (!connection) return;
    const dead = () => connection.end(new ChatError("network", "no answer came"));
    this.#silence = this.#owed() ? setTimeout(dead, answerWithin) : setTimeout(() => this.#check(), quietFor);
  }

  /** Whether an answer is due. */
  #owed() {
    for (const { sent } of this.#commands.values()) {
      if (sent) return true;
    }
    return false;
  }

  #answered(event) {
    const command = this.#commands.get(event.ref);
    if (!command?.sent) return;
    if (event.type === "error") {
      if (command.rejoin) this.#notRejoined(command.rejoin, event);
      command.fail(new ChatError(text(event.code, "an error without a code"), String(event.message)));
      return;
    }
    const { type, channel, since } = command.body;
    if (type === "broadcast") text(event.id, "an answer without an id");
    if (command.rejoin) {
      this.#rejoined(command.rejoin, event);
    } else if (type === "join" && !this.#channels.has(channel)) {
      this.#channels.set(channel, { last: text(event.since, "an answer without the id it starts from") });
      if (since !== undefined && event.recovered !== true) this.#gaps(this.#connection, [{ channel, after: since, until: event.since }]);
    }
    if (type === "leave") {
      this.#release(this.#connection, channel);
      this.#channels.delete(channel);
    }
    command.done(event);
  }

  /** Handles the ack of a channel that was joined again, whose messages before it continue from the given id. */
  #rejoined({ channel, since }, event) {
    const known = this.#channels.get(channel);
    const until = text(event.since, "an answer without the id it starts from");
    if (!known) return;
    if (since === undefined) {
      known.last ??= until;
    } else if (unrecovered(since, event)) {
      this.#release(this.#connection, channel);
      const after = known.last;
      known.last = until;
      this.#gaps(this.#connection, [{ channel, after, until }]);
    }
  }

  /** Ends the connection as if the handshake had been refused for the channel. */
  #notRejoined(late, { code, message }) {
    if (code === "rate_limited") {
      this.#connection.unjoined.push(late);
      return;
    }
    const error = new ChatError(text(code, "an error without a code"), `channel ${late.channel}: ${message}`);
    error.refused = code !== "unavailable";
    this.#connection.end(error);
  }

  // Events.

  #receive(connection, event) {
    if (this.#connection !== connection && event.type !== "welcome") {
      if (event.type === "message") throw protocolError("a message before the welcome");
      return;
    }
    if (event.type === "welcome") this.#welcome(connection, event);
    else this.#receiveBehindWelcome(connection, event);
    this.#listen();
  }

  /**
   * Holds events back until the channels that did not fit into the address are joined.
   * Before that, it is not known whether all missed messages follow. The wait is bounded.
   */
  #receiveBehindWelcome(connection, event) {
    const command = event.type === "ack" || event.type === "error" ? this.#commands.get(event.ref) : undefined;
    command?.own?.(event);
    if (command?.rejoin && event.type === "ack") {
      connection.unanswered--;
      connection.missed ||= command.rejoin.since !== undefined && unrecovered(command.rejoin.since, event);
    }
    const { greeting } = connection;
    if (greeting && event.type !== "error" && (event.type !== "ack" || ["join", "leave"].includes(command?.body.type))) {
      greeting.held.push(event);
      greeting.size += event.content?.length ?? 0;
    } else {
      this.#take(event);
    }
    if (greeting && (!connection.unanswered || greeting.held.length > heldMessages || greeting.size > heldSize)) this.#greet(connection);
  }

  #take(event) {
    switch (event.type) {
      case "message":
        this.#message(toMessage(event));
        break;
      case "user_joined":
        this.#tell("joined", toPresence(event));
        break;
      case "user_left":
        this.#tell("left", toPresence(event));
        break;
      case "ack":
      case "error":
        this.#answered(event);
        break;
    }
  }

  #welcome(connection, { user, role, session, expires_in: expiresIn, since, recovered }) {
    const own = `@${text(user, "a welcome without a user")}`;
    text(role, "a welcome without a role");
    const late = connection.unjoined = connection.unjoined.filter(({ channel }) => channel !== own);
    const joined = this.channels.slice(0, this.channels.length - late.length);
    const names = ["", own, ...joined.filter((name) => name !== own)];
    if (this.#connection || !Array.isArray(since) || since.length !== names.length) throw protocolError("an invalid welcome");
    since.forEach((id) => text(id, "a welcome without ids"));
    if (this.#user && this.#user.username !== user) throw new ChatError("unauthenticated", "the token is another user's");

    const asked = this.#last();
    const lost = [];
    names.forEach((channel, i) => {
      const gap = this.#channels.get(channel)?.gap; // not filled by the last connection
      if (asked.length && recovered !== true && !asked.includes(since[i])) {
        lost.push({ channel, after: gap?.after ?? (asked.length === names.length + late.length ? asked[i] : undefined), until: since[i] });
      } else if (gap) {
        lost.push({ channel, ...gap, announced: true });
      }
    });
    for (const { channel } of late) {
      const gap = this.#channels.get(channel)?.gap;
      if (gap) lost.push({ channel, ...gap, announced: true });
    }
    this.#channels = new Map([
      ...names.map((name, i) => [name, { last: since[i] }]),
      ...late.map(({ channel, since }) => [channel, { last: since }]),
    ]);
    this.#held = { count: 0, size: 0 };
    this.#user = { username: user, role };
    this.#connection = connection;
    this.#refused = this.#allowed = false;
    connection.welcomed();
    connection.unanswered = late.length;
    connection.greeting = { session, lost, resuming: asked.length > 0, held: [], size: 0 };
    this.#schedule(expiresIn);
    for (const command of this.#commands.values()) this.#send(command);
    if (connection.unanswered) this.#joinRest(connection);
    else if (connection.greeting) this.#greet(connection);
  }

  /** Announces that the chat is open, then the events that were held back. */
  #greet(connection) {
    const { session, lost, resuming, held } = connection.greeting;
    connection.greeting = undefined;
    this.#state = "open";
    const resumed = resuming ? !connection.missed && lost.every(({ announced }) => announced) : undefined;
    this.#tell("open", { user: this.user, session, resumed });
    this.#gaps(connection, lost);
    for (const event of held) {
      if (this.#connection !== connection) return;
      this.#take(event);
    }
  }

  #message(message) {
    const name = message.channel ?? "";
    const channel = this.#channels.get(name);
    if (channel?.held) {
      this.#hold(name, channel, message);
    } else if (channel) {
      this.#deliver(channel, message);
    } else {
      // A replayed message, before the ack of a join with since.
      const join = [...this.#commands.values()].find(({ sent, body }) => sent && body.type === "join" && body.channel === name);
      if (join) join.body.since = message.id; // for a repetition of the join
      this.#tell("message", message);
    }
  }

  #deliver(channel, message) {
    if (channel.last === message.id) return;
    channel.last = message.id;
    this.#tell("message", message);
  }

  #tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  /** The ids to resume from. Messages of a gap are before them and are fetched separately. */
  #last() {
    return this.#channels.size ? [...this.#channels.values()].map(({ last }) => last) : [...this.#first.since];
  }

  // Gaps: a gap is announced first. Then the messages that are still kept are fetched;
  // new messages of the channel wait meanwhile.

  #gaps(connection, lost) {
    for (const { channel, after, until } of lost) {
      const known = this.#channels.get(channel);
      if (known) Object.assign(known, { held: [], gap: after && { after, until } });
    }
    for (const { channel, announced } of lost) {
      if (!announced && this.#connection === connection) this.#tell("gap", channel === "" ? {} : { channel });
    }
    this.#fill(connection, lost);
  }

  async #fill(connection, lost) {
    let failed = false;
    for (const { channel, after, until } of lost) {
      if (this.#connection !== connection) return;
      const known = this.#channels.get(channel);
      const waiting = () => this.#connection === connection && known?.held;
      try {
        const kept = after && waiting() && !failed ? await this.#kept(connection, channel, after, until) : [];
        for (const message of kept) {
          if (!waiting()) break;
          known.gap.after = message.id;
          this.#tell("message", message);
        }
      } catch {
        failed = true; // the gaps are announced already
      }
      this.#release(connection, channel);
    }
  }

  /** Fetches the messages after the id last up to the id until; none if until is not among them. */
  async #kept(connection, channel, last, until) {
    const found = [];
    let size = 0;
    for (let after = last; ; after = found.at(-1).id) {
      const { messages, more } = await this.#page({ channel, after, limit: 1000, signal: connection.signal });
      for (const message of messages) {
        size += message.content.length;
        found.push(message);
        if (message.id === last) found.length = 0;
        if (message.id === until) return found;
      }
      if (!more || !found.length || found.length > heldMessages || size > heldSize) return [];
    }
  }

  /** Fetches a page of the history in up to three attempts. */
  async #page(query) {
    for (let tries = 1; ; tries++) {
      try {
        return await this.messages(query);
      } catch (error) {
        if (tries === 3 || !["network", "unavailable", "rate_limited"].includes(error.kind)) throw error;
        await sleep(this.#backoff(tries), query.signal);
      }
    }
  }

  #hold(name, channel, message) {
    channel.held.push(message);
    this.#held.count++;
    this.#held.size += message.content.length;
    if (this.#held.count > heldMessages || this.#held.size > heldSize) this.#release(this.#connection, name);
  }

  #release(connection, name) {
    if (this.#connection !== connection) return;
    const channel = this.#channels.get(name);
    const held = channel?.held ?? [];
    if (channel) channel.held = channel.gap = undefined;
    for (const message of held) {
      this.#held.count--;
      this.#held.size -= message.content.length;
      if (this.#connection === connection) this.#deliver(channel, message);
    }
  }

  // HTTP.

  async #call(method, path, query, signal) {
    for (let pause = 0, again = typeof this.#source === "function"; ;) {
      signal?.throwIfAborted();
      const token = await abortable(this.#credential(), signal);
      if (pause) await abortable(sleep(pause, this.#closing.signal), signal);
      signal?.throwIfAborted();
      this.#notClosed();
      const fresh = Date.now() - this.#got < freshFor;
      try {
        return await request(this.#fetch, method, this.#route(path, query), { token, signal, among: this.#requests });
      } catch (error) {
        if (!again || error.kind !== "unauthenticated") throw error;
        if (this.#token === token) this.#token = undefined;
        if (fresh) [pause, again] = [aMoment(), false]; // as in #whyUnauthenticated, and once
      }
    }
  }

  #route(path, query = {}) {
    const url = new URL(path, this.#url);
    for (const [name, value] of Object.entries(query)) {
      for (const one of [value].flat()) {
        if (one !== undefined) url.searchParams.append(name, one);
      }
    }
    return url;
  }
}

/** One WebSocket from its opening to its end. */
class Connection {
  opened = false; // the handshake was answered with 101
  // Set by the Chat, for channels that did not fit into the address.
  unjoined = []; // channels whose join is not sent yet, with the ids to resume from
  unanswered = 0; // channels that are neither joined nor left yet
  missed = false; // a channel could not resume
  greeting; // the events held back until all are joined
  ended; // promise, resolves once to a ChatError
  #socket;
  #timer;
  #since;
  #resolve;
  #gone = new AbortController();

  constructor(WebSocket, url, protocols, receive) {
    this.ended = new Promise((resolve) => { this.#resolve = resolve; });
    try {
      this.#socket = new WebSocket(url, protocols);
    } catch (error) {
      // The browser's message may contain the token.
      this.end(new ChatError("network", `a socket cannot be opened: ${error.name}`));
      return;
    }
    this.#timer = setTimeout(() => this.end(new ChatError("network", "no connection in time")), openWithin);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => { this.opened = true; };
    this.#socket.onerror = () => { // Node 20 and 21 send no close event after a refusal
      if (!this.opened) this.end(ending(1006));
    };
    this.#socket.onclose = ({ code }) => this.end(ending(code));
    this.#socket.onmessage = ({ data }) => {
      try {
        receive(parse(data));
      } catch (error) {
        this.end(error instanceof ChatError ? error : protocolError(`an invalid event (${error})`));
      }
    };
  }

  /** Aborted when the connection ends. */
  get signal() { return this.#gone.signal; }

  welcomed() {
    clearTimeout(this.#timer);
    this.#since = Date.now();
  }

  /** The time since the welcome, in ms. */
  get lived() { return this.#since ? Date.now() - this.#since : 0; }

  send(command) { this.#socket.send(JSON.stringify(command)); }

  /** Removes a channel from unjoined and returns its entry. */
  take(channel) {
    const i = this.unjoined.findIndex((late) => late.channel === channel);
    return i < 0 ? undefined : this.unjoined.splice(i, 1)[0];
  }

  end(error) {
    if (this.#gone.signal.aborted) return;
    this.#gone.abort(error);
    clearTimeout(this.#timer);
    if (this.#socket) {
      this.#socket.onopen = this.#socket.onclose = this.#socket.onmessage = null;
      this.#socket.close();
    }
    this.#resolve(error);
  }
}

/** Returns the error of a close code. */
function ending(code) {
  const [kind, message] = {
    1001: ["unavailable", "the server is going away"],
    1002: ["invalid", "the server reports a protocol error"],
    1003: ["invalid", "the server accepts no binary frames"],
    1007: ["invalid", "the server accepts only UTF-8"],
    1009: ["too_large", "a command was too large"],
    1011: ["unavailable", "the server failed"],
    1012: ["unavailable", "the server restarts"],
    1013: ["unavailable", "the server asks to reconnect later"],
    4001: ["unauthenticated", "the token has expired or is invalid"],
    4002: ["disconnected", "disconnected by an admin"],
    4003: ["unavailable", "too slow, or messages are gone"],
    4004: ["replaced", "replaced by a newer socket of this user"],
    4005: ["rate_limited", "commands came too fast"],
  }[code] ?? ["network", "the connection was lost"];
  return new ChatError(kind, message, { code });
}

/** Sends an HTTP request; resolves to the JSON of its answer. The signal stops it, and so does its controller in among. */
async function request(fetch, method, url, { token, body, signal, among }) {
  signal?.throwIfAborted();
  const stop = new AbortController();
  const forward = () => stop.abort(signal.reason);
  signal?.addEventListener("abort", forward);
  among?.add(stop);
  const timer = setTimeout(() => stop.abort(new ChatError("network", "no answer came in time")), requestWithin);
  const what = `${method} ${url.pathname}`;
  try {
    const headers = {};
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body) headers["Content-Type"] = "application/json";
    const response = await fetch(url, {
      method, headers, body, signal: stop.signal,
      credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
    });
    const answer = await readJSON(response);
    if (!response.ok) throw refusal(what, response, answer);
    if (typeof answer !== "object" || answer === null) throw protocolError(`the answer to ${what} is not a JSON object`);
    return answer;
  } catch (error) {
    if (stop.signal.aborted) throw stop.signal.reason;
    if (error instanceof ChatError) throw error;
    throw new ChatError("network", `${what}: ${error.message}`, { cause: error });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", forward);
    among?.delete(stop);
  }
}

/** Reads a body; resolves to its JSON, or to undefined if it is not JSON. */
async function readJSON(response) {
  const decoder = new TextDecoder();
  let body = "";
  let size = 0;
  const reader = response.body?.getReader();
  for (let read = await reader?.read(); read && !read.done; read = await reader.read()) {
    size += read.value.length;
    if (size > bodyLimit) {
      reader.cancel().catch(() => {});
      throw protocolError(`an answer of more than ${bodyLimit} bytes`);
    }
    body += decoder.decode(read.value, { stream: true });
  }
  try {
    return JSON.parse(body + decoder.decode());
  } catch {
    return undefined;
  }
}

/** Makes a ChatError of an error answer (RFC 9457). */
function refusal(what, response, problem) {
  const { status } = response;
  const kinds = {
    401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "not_found", 408: "unavailable", 425: "unavailable",
    413: "too_large", 414: "too_large", 431: "too_large", 429: "rate_limited",
  };
  const kind = kinds[status] ?? (status < 500 ? "invalid" : "unavailable");
  const explained = typeof problem?.detail === "string";
  const why = status === 414 || status === 431 ? ": the address or the token is longer than a proxy accepts" : "";
  const detail = explained ? problem.detail.slice(0, 500) : `${what} was answered with ${status}${why}`;
  const retryAfter = Number.parseInt(response.headers.get("Retry-After"), 10);
  const error = new ChatError(kind, detail, { code: status, retryAfter: retryAfter >= 0 ? retryAfter : undefined });
  Object.defineProperty(error, "explained", { value: explained }); // by the service, not by a proxy
  return error;
}

/** Parses the event in a frame. */
function parse(frame) {
  if (typeof frame !== "string" || frame.length > frameLimit) throw protocolError("a frame that is not text or too long");
  let event;
  try {
    event = JSON.parse(frame);
  } catch {
    throw protocolError("a frame that is not JSON");
  }
  if (typeof event !== "object" || event === null || typeof event.type !== "string") throw protocolError("a frame that is not an event");
  return event;
}

function toMessage(value) {
  const { id, channel, sender, content, time } = Object(value);
  for (const part of [id, sender, content]) text(part, "an invalid message", "");
  moment(time);
  return { id, ...inChannel(channel), sender, content, time };
}

function toConnected(value) {
  const { username, role, connections, since } = Object(value);
  for (const part of [username, role, since]) text(part, "an invalid user");
  if (!Number.isInteger(connections)) throw protocolError("a user without a number of sockets");
  return { username, role, connections, since };
}

function toPresence(value) {
  const { username, role, channel, time } = value;
  for (const part of [username, role]) text(part, "an invalid join or leave");
  moment(time);
  return { username, role, ...inChannel(channel), time };
}

const inChannel = (channel) => (channel === undefined ? {} : { channel: text(channel, "an invalid channel") });

/** Checks a time. */
function moment(value) {
  if (typeof value !== "string" || Number.isNaN(Date.parse(value))) throw protocolError("an invalid time");
}

/** Checks a string and returns it; an empty one is allowed if empty is given. */
function text(value, otherwise, empty) {
  if (typeof value !== "string" || (value === "" && empty === undefined)) throw protocolError(otherwise);
  return value;
}

const protocolError = (what) => new ChatError("protocol", what);
const closedError = () => new ChatError("closed", "this chat was closed");
/** Converts a Retry-After in seconds to ms; at most an hour. */
const seconds = (n = 0) => Math.min(n, 3600) * second;

/** Whether an ack of a join says that messages after the id since are missing. */
const unrecovered = (since, event) => event.recovered !== true && event.since !== since;
/** 1 to 2 s. */
const aMoment = () => second * (1 + Math.random());

/** Returns the distinct strings of an option. */
function list(values, option) {
  if (typeof values === "string") throw new TypeError(`${option}: a string, not several`);
  return [...new Set(values)].map(String);
}

/** Returns the service's address, which routes are relative to. */
function mountedAt(url) {
  const base = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  if (!/^https?:$/.test(base.protocol) || base.username || base.password) {
    throw new TypeError("url: not an http or https URL, or one with a user name");
  }
  base.search = base.hash = "";
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}

/** Resolves after delay ms or when the signal aborts. */
function sleep(delay, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, delay);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}

/** Settles as the promise does, or rejects when the signal aborts. */
function abortable(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
  });
}
