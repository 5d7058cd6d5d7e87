/**
 * A client for the chat service: one socket that heals itself.
 *
 *     const chat = new Chat("https://example.com/chat/", { token: login("https://example.com/chat/", "ana", password) });
 *     chat.addEventListener("message", ({ detail }) => console.log(detail.sender, detail.content));
 *     chat.addEventListener("gap", () => console.log("some messages are no longer kept"));
 *     await chat.broadcast("lunch is ready");
 *
 * When the connection is lost it connects again and resumes: each message comes
 * once and in the order of its channel, or a "gap" says beforehand that some are
 * gone. It depends on nothing, and runs where there are WebSocket, fetch and
 * EventTarget: in browsers, and in Node with those it lacks as options. What it
 * promises is written beside the types, in chat.d.ts; what goes over the wire, in
 * docs/protocol.md.
 *
 * @module
 */

const second = 1000;
/** How long a socket may take to be open and welcomed. */
const openWithin = 20 * second;
/** How long it may be silent before it is asked whether it is alive, and while an answer is due. */
const quietFor = 60 * second;
const answerWithin = 20 * second;
/** How long an HTTP request may take. */
const requestWithin = 30 * second;
/** A connection that lived for this long was a good one: waits start small again. */
const goodAfter = 10 * second;
/** The least wait after commands that came too fast. */
const tooFastWait = 10 * second;
/** Timers count in 31 bits. */
const longestTimer = 2 ** 31 - 1;
/** What a frame, and the body of an answer, may hold; in characters and bytes. */
const frameLimit = 4 << 20;
const bodyLimit = 32 << 20;
/** What may wait, in messages and characters, for those before it to be fetched. */
const heldMessages = 10_000;
const heldSize = 8 << 20;
/** How long the address of a handshake may be with channels in it: nginx takes 8 KiB of a request line, others less. */
const addressLimit = 2048;
/**
 * The channels that it has no room for are joined behind the welcome, so many at once
 * and the others so many ms apart: services take 20 commands a second after 40.
 * After a refusal it waits until all of these 40 are there again, then longer.
 */
const joinsAtOnce = 16;
const joinEvery = second / 15;
const refusedWait = 2 * second;
const longestRefusedWait = 8 * second;
/** A token is fresh for so long: a service whose clock is behind may refuse it. */
const freshFor = 5 * second;
/** What a source of tokens is not asked again after. */
const hopeless = ["unauthenticated", "forbidden", "invalid", "not_found"];
/** What a token needs to be to go by subprotocol (RFC 9110, section 5.6.2). */
const sendable = /^[\w!#$%&'*+.^`|~-]+$/;

/** Node 18 has none. */
const CustomEvent = globalThis.CustomEvent ?? class extends Event {
  constructor(type, { detail }) {
    super(type);
    this.detail = detail;
  }
};

/** What went wrong, of a kind that a program can tell apart. */
export class ChatError extends Error {
  constructor(kind, message, { code, retryAfter, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "ChatError";
    this.kind = kind;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** Logs in with a password whenever a token is needed. */
export function login(url, username, password, { fetch = globalThis.fetch } = {}) {
  const target = new URL("login", mountedAt(url));
  const body = JSON.stringify({ username, password });
  return async ({ signal } = {}) => {
    const answer = await request(fetch, "POST", target, { body, signal });
    return text(answer.access_token, "the answer to a login holds no token");
  };
}

/** A connection to the service that heals itself. */
export class Chat extends EventTarget {
  #url;
  #source; // of tokens: a function, or a token
  #fetch;
  #WebSocket;
  #minDelay;
  #maxDelay;

  #state = "connecting";
  #user;
  /** What to ask for until the first welcome has said where things are. */
  #first;
  /** By name, in the order of a welcome: "" (everyone's), the user's own, those joined. */
  #channels = new Map();
  /** By ref, oldest first: what waits to be sent, and what was and waits for its answer. */
  #commands = new Map();
  #ref = 0;

  #connection; // once it was welcomed
  #held = { count: 0, size: 0 }; // of all channels
  #token; // the last one from the source, until it was refused or is due
  #due = Infinity; // when the next one has to be asked for, as Date.now() has it
  #got = 0; // when it came, likewise
  #asking; // the promise of the source's answer
  #refused = false; // with the token before
  #allowed = false; // channels were looked at since the last connection
  #refreshing; // timer
  #silence; // timer, of what is received
  #wake = () => {}; // ends the wait for the next try
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
      throw new TypeError("token: neither a function nor a string that can be sent as a token");
    }
    if (!(minDelay > 0 && maxDelay >= minDelay && maxDelay <= longestTimer)) {
      throw new TypeError("minDelay and maxDelay: not milliseconds, the one up to the other");
    }
    for (const name of ["WebSocket", "fetch"]) {
      if (typeof (options?.[name] ?? globalThis[name]) !== "function") {
        throw new TypeError(`${name}: there is none here, pass one as an option`);
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

  // What can be asked of the service.

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
    if (!Array.isArray(page.messages)) throw nonsense("a page without messages");
    return { messages: page.messages.map(toMessage), more: page.more === true, ...(page.gap === true && { gap: true }) };
  }

  async connected({ channel, signal } = {}) {
    const { users } = await this.#call("GET", "users/connected", { channel }, signal);
    if (!Array.isArray(users)) throw nonsense("a list without users");
    return users.map(toConnected);
  }

  async disconnect(username, { signal } = {}) {
    const { closed } = await this.#call("POST", `users/${encodeURIComponent(username)}/disconnect`, {}, signal);
    if (!Number.isInteger(closed)) throw nonsense("an answer without a number of sockets");
    return closed;
  }

  reconnect() { this.#wake(); }

  close() { this.#end(); }

  // Life: connect, wait, connect again.

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

  /** Full jitter below a ceiling that doubles. */
  #backoff(tries) {
    return Math.random() * Math.min(this.#maxDelay, this.#minDelay * 2 ** tries);
  }

  /** Until the time is over, or reconnect() or close() is called. */
  #pause(delay) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.min(delay, longestTimer));
      this.#wake = () => { clearTimeout(timer); resolve(); };
    }).finally(() => { this.#wake = () => {}; });
  }

  /** One connection, from the token to the end. It never rejects. */
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
   * Where to connect to, with as many channels as there is room for, and the others.
   * Ids are one for each channel, in order; of others nobody knows whose they are,
   * and these go there all.
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
   * A browser does not tell how the handshake was answered. The same address asked
   * without one is 426 when all is well, and channels can be asked for one by one.
   */
  async #whyRefused(asked, token, error) {
    const ask = (url) => request(this.#fetch, "GET", url, { token, among: this.#requests }).catch((refusal) => refusal);
    const refusal = await ask(asked);
    switch (refusal.code) {
      case 401:
        return this.#whyUnauthenticated(token, refusal);
      case 400:
        if (!refusal.explained) return { error: refusal, final: true }; // by something on the way
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
   * A token is refused. The next one has its chance a moment after it was made: where
   * clocks differ it may hold only then.
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

  /** Commands that were sent and not answered on a connection that has ended. */
  #lose(error) {
    let blamed = [1002, 1003, 1007, 1009].includes(error.code); // the oldest of them
    for (const command of [...this.#commands.values()].filter(({ sent }) => sent)) {
      command.rejoin = undefined;
      if (blamed || command.own) {
        command.fail(error);
      } else if (command.body.type === "broadcast") {
        command.fail(new ChatError("unconfirmed", "the connection ended before the answer came: the message may have been stored", { cause: error }));
      } else if (command.body.type === "refresh" || command.aborted) {
        command.fail(error);
      } else {
        command.sent = false; // to join and to leave can be repeated
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

  /** What says that it may be worth a try, where there is such a thing. */
  #watchNetwork() {
    const { signal } = this.#closing;
    globalThis.addEventListener?.("online", () => this.#check(), { signal });
    globalThis.document?.addEventListener?.("visibilitychange", () => {
      if (document.visibilityState === "visible") this.#check();
    }, { signal });
  }

  /**
   * A socket may have died without a word, and a script sees nothing of the pings
   * that would show it. Joining one's own channel does nothing, and is answered.
   */
  #check() {
    this.#wake();
    if (this.#connection && !this.#commands.size) this.#command({ type: "join", channel: `@${this.#user.username}` }).catch(() => {});
  }

  // Tokens.

  /** The token there is, or the next one. All who want one at a time get the same. */
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
      throw new ChatError("unauthenticated", "what the token source gave cannot be sent as a token");
    }
    this.#token = token;
    this.#got = Date.now();
    this.#due = Infinity; // until the service says how long it holds
    return token;
  }

  /** Has the next token asked for well before the end of this one. */
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
        own, // of joinRest: called when the answer comes, which may be told later
        rejoin: undefined, // the channel of before that it joins
        done: (ack) => { settled(); resolve(ack); },
        fail: (error) => { settled(); reject(error); },
      };
      const abort = () => {
        command.aborted = true; // one that was sent may be carried out all the same
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
    const again = type === "join" && this.#willBeIn(channel); // what came already is not to come again
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

  /** Joins the channels that the address had no room for. */
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
      // Or a caller's own join is under way.
      await sleep(refused ? wait * (1 + Math.random() / 5) : every, connection.signal);
      if (refused) [burst, most, every, wait] = [0, Math.ceil(most / 2), Math.min(2 * every, second), Math.min(2 * wait, longestRefusedWait)];
    }
  }

  /** Whether a channel is joined once all that was sent is carried out. */
  #willBeIn(channel) {
    let joined = this.#channels.has(channel);
    for (const { sent, body } of this.#commands.values()) {
      if (sent && body.channel === channel && body.type !== "broadcast") joined = body.type === "join";
    }
    return joined;
  }

  /** A connection that is silent is asked for an answer; without one it is taken for dead. */
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

  /** What came of the channel before follows the id that was given. */
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

  /** As a handshake would be refused that had room for the channel. */
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
      if (event.type === "message") throw nonsense("a message before the welcome");
      return;
    }
    if (event.type === "welcome") this.#welcome(connection, event);
    else this.#receiveBehindWelcome(connection, event);
    this.#listen();
  }

  /**
   * Until the channels are joined that the address had no room for, it is not known
   * whether all that was missed follows: what is to be told waits for that, within bounds.
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
    if (this.#connection || !Array.isArray(since) || since.length !== names.length) throw nonsense("a welcome that makes no sense");
    since.forEach((id) => text(id, "a welcome without ids"));
    if (this.#user && this.#user.username !== user) throw new ChatError("unauthenticated", "the token is another user's");

    const asked = this.#last();
    const lost = [];
    names.forEach((channel, i) => {
      const gap = this.#channels.get(channel)?.gap; // that the connection before did not fill
      if (asked.length && recovered !== true && !asked.includes(since[i])) {
        lost.push({ channel, after: gap?.after ?? (asked.length === names.length + late.length ? asked[i] : undefined), until: since[i] });
      } else if (gap) {
        lost.push({ channel, ...gap, told: true });
      }
    });
    for (const { channel } of late) {
      const gap = this.#channels.get(channel)?.gap;
      if (gap) lost.push({ channel, ...gap, told: true });
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

  /** Tells that the chat is open, and what came meanwhile. */
  #greet(connection) {
    const { session, lost, resuming, held } = connection.greeting;
    connection.greeting = undefined;
    this.#state = "open";
    const resumed = resuming ? !connection.missed && lost.every(({ told }) => told) : undefined;
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
      this.#handOn(channel, message);
    } else {
      // What comes before the answer to a join with since.
      const join = [...this.#commands.values()].find(({ sent, body }) => sent && body.type === "join" && body.channel === name);
      if (join) join.body.since = message.id; // should it have to be repeated
      this.#tell("message", message);
    }
  }

  #handOn(channel, message) {
    if (channel.last === message.id) return;
    channel.last = message.id;
    this.#tell("message", message);
  }

  #tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }

  /** Where a connection goes on: what it sends is behind what is to be fetched of a gap. */
  #last() {
    return this.#channels.size ? [...this.#channels.values()].map(({ last }) => last) : [...this.#first.since];
  }

  // Gaps: told first. Then comes what is still kept of them, and meanwhile new
  // messages of the channel wait.

  #gaps(connection, lost) {
    for (const { channel, after, until } of lost) {
      const known = this.#channels.get(channel);
      if (known) Object.assign(known, { held: [], gap: after && { after, until } });
    }
    for (const { channel, told } of lost) {
      if (!told && this.#connection === connection) this.#tell("gap", channel === "" ? {} : { channel });
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
        failed = true; // the gaps have been told
      }
      this.#release(connection, channel);
    }
  }

  /** The messages behind the last one, up to that with the id until; none when that is not among them. */
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

  /** A page of the history, in up to three tries. */
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
      if (this.#connection === connection) this.#handOn(channel, message);
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

/** One WebSocket, until its end, which is told once. */
class Connection {
  opened = false; // the handshake was answered with 101
  // Of the Chat: channels that the address had no room for.
  unjoined = []; // those whose join is to be sent, with the ids to go on from
  unanswered = 0; // those that are neither joined nor left
  missed = false; // one could not go on
  greeting; // what is told once all are joined
  ended; // promise of a ChatError
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
      // What browsers say here may hold the token.
      this.end(new ChatError("network", `a socket cannot be opened: ${error.name}`));
      return;
    }
    this.#timer = setTimeout(() => this.end(new ChatError("network", "no connection in time")), openWithin);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => { this.opened = true; };
    this.#socket.onerror = () => { // in Node 20 and 21 no close follows a refusal
      if (!this.opened) this.end(ending(1006));
    };
    this.#socket.onclose = ({ code }) => this.end(ending(code));
    this.#socket.onmessage = ({ data }) => {
      try {
        receive(parse(data));
      } catch (error) {
        this.end(error instanceof ChatError ? error : nonsense(`an event that makes no sense (${error})`));
      }
    };
  }

  /** Aborted when it has ended. */
  get signal() { return this.#gone.signal; }

  welcomed() {
    clearTimeout(this.#timer);
    this.#since = Date.now();
  }

  /** For how long it has been of use, in ms. */
  get lived() { return this.#since ? Date.now() - this.#since : 0; }

  send(command) { this.#socket.send(JSON.stringify(command)); }

  /** Takes a channel out of those that are to be joined. */
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

/** Why a socket was closed, by its code. */
function ending(code) {
  const [kind, message] = {
    1001: ["unavailable", "the server is going away"],
    1002: ["invalid", "the server says that the protocol was broken"],
    1003: ["invalid", "the server takes no binary frames"],
    1007: ["invalid", "the server takes UTF-8 only"],
    1009: ["too_large", "a command was too large"],
    1011: ["unavailable", "the server failed"],
    1012: ["unavailable", "the server restarts"],
    1013: ["unavailable", "the server asks to come back later"],
    4001: ["unauthenticated", "the token has expired or does not hold"],
    4002: ["disconnected", "disconnected by an admin"],
    4003: ["unavailable", "too slow, or messages are gone"],
    4004: ["replaced", "replaced by a newer socket of this user"],
    4005: ["rate_limited", "commands came too fast"],
  }[code] ?? ["network", "the connection was lost"];
  return new ChatError(kind, message, { code });
}

/** An HTTP request, to the JSON of its answer. It can be stopped by the signal, and among others. */
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
    if (typeof answer !== "object" || answer === null) throw nonsense(`the answer to ${what} is not the service's`);
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

/** The JSON of a body; undefined when it is something else. */
async function readJSON(response) {
  const decoder = new TextDecoder();
  let body = "";
  let size = 0;
  const reader = response.body?.getReader();
  for (let read = await reader?.read(); read && !read.done; read = await reader.read()) {
    size += read.value.length;
    if (size > bodyLimit) {
      reader.cancel().catch(() => {});
      throw nonsense("an answer without an end");
    }
    body += decoder.decode(read.value, { stream: true });
  }
  try {
    return JSON.parse(body + decoder.decode());
  } catch {
    return undefined;
  }
}

/** What an answer that is an error (RFC 9457) says. */
function refusal(what, response, problem) {
  const { status } = response;
  const kinds = {
    401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "not_found", 408: "unavailable", 425: "unavailable",
    413: "too_large", 414: "too_large", 431: "too_large", 429: "rate_limited",
  };
  const kind = kinds[status] ?? (status < 500 ? "invalid" : "unavailable");
  const explained = typeof problem?.detail === "string";
  const why = status === 414 || status === 431 ? ": the address or the token is longer than a proxy on the way takes" : "";
  const detail = explained ? problem.detail.slice(0, 500) : `${what} was answered with ${status}${why}`;
  const retryAfter = Number.parseInt(response.headers.get("Retry-After"), 10);
  const error = new ChatError(kind, detail, { code: status, retryAfter: retryAfter >= 0 ? retryAfter : undefined });
  Object.defineProperty(error, "explained", { value: explained }); // by the service, not by something on the way
  return error;
}

/** An event in a frame. */
function parse(frame) {
  if (typeof frame !== "string" || frame.length > frameLimit) throw nonsense("a frame that is no text or too long");
  let event;
  try {
    event = JSON.parse(frame);
  } catch {
    throw nonsense("a frame that is no JSON");
  }
  if (typeof event !== "object" || event === null || typeof event.type !== "string") throw nonsense("a frame that is no event");
  return event;
}

function toMessage(value) {
  const { id, channel, sender, content, time } = Object(value);
  for (const part of [id, sender, content]) text(part, "a message that makes no sense", "");
  moment(time);
  return { id, ...inChannel(channel), sender, content, time };
}

function toConnected(value) {
  const { username, role, connections, since } = Object(value);
  for (const part of [username, role, since]) text(part, "a user that makes no sense");
  if (!Number.isInteger(connections)) throw nonsense("a user without a number of sockets");
  return { username, role, connections, since };
}

function toPresence(value) {
  const { username, role, channel, time } = value;
  for (const part of [username, role]) text(part, "presence that makes no sense");
  moment(time);
  return { username, role, ...inChannel(channel), time };
}

const inChannel = (channel) => (channel === undefined ? {} : { channel: text(channel, "a channel that makes no sense") });

/** A time that can be read. */
function moment(value) {
  if (typeof value !== "string" || Number.isNaN(Date.parse(value))) throw nonsense("a time that makes no sense");
}

/** A string, not empty unless that may be. */
function text(value, otherwise, empty) {
  if (typeof value !== "string" || (value === "" && empty === undefined)) throw nonsense(otherwise);
  return value;
}

const nonsense = (what) => new ChatError("protocol", what);
const closedError = () => new ChatError("closed", "this chat was closed");
/** What a service asks to wait, in ms; an hour is the most. */
const seconds = (n = 0) => Math.min(n, 3600) * second;

/** Whether the answer to a join says that not all behind an id came. */
const unrecovered = (since, event) => event.recovered !== true && event.since !== since;
/** 1 to 2 s. */
const aMoment = () => second * (1 + Math.random());

/** Different strings of an option. */
function list(values, option) {
  if (typeof values === "string") throw new TypeError(`${option}: a string, not several`);
  return [...new Set(values)].map(String);
}

/** The address that routes are relative to. */
function mountedAt(url) {
  const base = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  if (!/^https?:$/.test(base.protocol) || base.username || base.password) {
    throw new TypeError("url: not an http or https URL without a user");
  }
  base.search = base.hash = "";
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}

/** Resolves when the time is over or the signal comes. */
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

/** A promise that is not waited for any longer than until the signal. */
function abortable(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
  });
}
