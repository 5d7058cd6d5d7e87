// The web client: it connects the Chat with the feed, the lists and the forms.

import { Chat } from "./chat.js";
import { ALL, Channels, EVERYONE, OWN } from "./channels.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { drawer } from "./drawer.js";
import { announce, avatar, byId } from "./element.js";
import { Feed } from "./feed.js";
import { logIn, logInAgain } from "./login.js";
import { Notifier } from "./notify.js";
import { People } from "./people.js";
import { problem, text, translate } from "./text.js";
import { Channel, PAGE, hindmost, merge, place } from "./timeline.js";

/** Memory is bounded in entries and in UTF-16 code units. Above a bound, the oldest entries are removed down to half of it. */
const MANY = 5_000, MUCH = 8 << 20;
/** While the reader is not at the bottom, the bounds are this many times larger. */
const SLACK = 5;
/** This many notes of the web client itself are kept. */
const NOTES = 200;
/** Live messages are batched for this time before they are shown, ms. */
const BATCH = 16;

const base = new URL(".", document.baseURI);

class Page {
  #username;
  #source; // the TokenSource
  #chat;
  #admin = false;
  #channels = new Map(); // by name; undefined is everyone's channel
  #notes = []; // marks, and messages sent to channels that are not joined
  #view = ALL; // a key, see channels.js
  #sequence = []; // the entries of the view
  #arrived = []; // live messages that are not shown yet
  #timer;
  #look; // timer of #awaitOpening
  #outage; // {from}: the time of the loss, while there is no connection
  #quiet = false; // no message has come since the last reconnect
  #unseen = 0; // messages while the page was hidden
  #feed = new Feed({ earlier: () => this.#earlier(), describe: (channel, sent) => this.#describe(channel, sent) });
  #connection = new Connection();
  #composer = new Composer({
    broadcast: (content, options) => this.#broadcast(content, options),
    connected: () => this.#chat.state === "open",
  });
  #notifier = new Notifier();
  #people = new People({
    write: (name) => {
      this.#peopleDrawer.close();
      this.#composer.address(`@${name}`, true);
    },
    changed: (count) => this.#countPeople(count),
  });
  #list = new Channels({
    select: (key) => {
      this.#show(key);
      this.#sideDrawer.close();
    },
    join: (name) => this.#join(name),
    leave: (name) => void this.#leave(name),
  });
  #sideDrawer = drawer(byId("side"), byId("side-open"), byId("side-close"), "(width < 760px)");
  #peopleDrawer = drawer(byId("people"), byId("people-open"), byId("people-close"), "(width < 1080px)");

  constructor({ username, source }) {
    this.#username = username;
    this.#source = source;
    this.#feed.me = username;
    this.#channels.set(undefined, new Channel(undefined));
    this.#channels.set(`@${username}`, new Channel(`@${username}`));
    byId("me-name").textContent = username;
    avatar(byId("me-avatar"), username);
    byId("logout").addEventListener("click", () => this.#logOut());
    byId("again-logout").addEventListener("click", () => this.#logOut());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.#unseen = 0;
      this.#title();
    });
    byId("app").hidden = false;
    this.#connect();
    this.#show(ALL);
    byId("feed").focus();
  }

  // The connection.

  /** Opens a Chat that resumes where the last one ended. */
  #connect() {
    const before = this.#chat;
    const chat = this.#chat = new Chat(base, {
      token: this.#source,
      channels: before?.channels ?? [],
      since: before?.since ?? [],
    });
    const on = (type, listener) => chat.addEventListener(type, ({ detail }) => {
      if (chat === this.#chat) listener(detail);
    });
    on("open", (detail) => this.#opened(detail));
    on("message", (message) => this.#received(message));
    on("joined", () => this.#people.soon());
    on("left", () => this.#people.soon());
    on("gap", ({ channel }) => this.#missed(channel));
    on("waiting", ({ delay }) => {
      this.#outage ??= { from: Date.now() };
      this.#connection.waiting(delay, () => this.#chat.reconnect());
      this.#composer.waiting();
      this.#awaitOpening();
    });
    on("close", ({ error }) => this.#closed(error));
    this.#connection.connecting();
  }

  /** Shows when the wait is over and the Chat connects again, which has no event. */
  #awaitOpening() {
    const chat = this.#chat;
    clearInterval(this.#look);
    this.#look = setInterval(() => {
      if (chat === this.#chat && chat.state === "waiting") return;
      clearInterval(this.#look);
      if (chat === this.#chat && chat.state === "connecting") this.#connection.connecting();
    }, 100);
  }

  #opened({ user, resumed }) {
    if (this.#outage && resumed !== undefined) this.#mark(!resumed);
    this.#connection.open();
    this.#outage = undefined;
    this.#admin = user.role === "admin";
    byId("me-role").textContent = this.#admin ? text("role.admin") : "";
    this.#composer.shown = this.#admin;
    this.#composer.waiting();
    byId("people").hidden = byId("people-open").hidden = !this.#admin;
    byId("app").classList.toggle("admin", this.#admin);
    if (this.#admin) this.#people.follow(this.#chat, user.username);
    else this.#people.clear();
    this.#offer();
    void this.#begin();
    // After a login an admin can write at once, unless the focus opens an on-screen keyboard.
    if (resumed === undefined && this.#admin && document.activeElement === byId("feed") && !matchMedia("(pointer: coarse)").matches) this.#composer.focus();
  }

  #closed(error) {
    this.#outage ??= { from: Date.now() };
    this.#people.pause();
    this.#composer.waiting();
    switch (error.kind) {
      case "unauthenticated":
        this.#connection.ended(text("again.banner"), text("again.action"), () => void this.#again());
        void this.#again();
        break;
      case "disconnected":
      case "replaced":
        this.#connection.ended(text(`end.${error.kind}`), text("state.again"), () => this.#connect());
        break;
      default:
        this.#connection.ended(text("end.other", { reason: problem(error) }), text("state.again"), () => this.#connect());
    }
  }

  async #again() {
    if (byId("again").open) return;
    const source = await logInAgain(base, this.#username);
    if (!source) return;
    this.#source = source;
    this.#connect();
  }

  /** A reload ends the session, unless the user keeps an unsent text when the browser asks. */
  #logOut() {
    location.reload();
  }

  // What is in memory and on screen.

  #joined() {
    return [...this.#channels.keys()].filter((name) => name !== undefined && !name.startsWith("@"));
  }

  #shown(key = this.#view) {
    if (key === ALL) return [...this.#channels.values()];
    const name = key === EVERYONE ? undefined : key === OWN ? `@${this.#username}` : key.slice(1);
    return [this.#channels.get(name)];
  }

  /** Returns the notes of the view. */
  #noted() {
    if (this.#view === ALL) return this.#notes;
    const [{ name }] = this.#shown();
    return this.#notes.filter((note) => note.mark && (note.mark === "complete" || !note.channels.length || note.channels.includes(name)));
  }

  #merged() {
    return this.#sequence = merge(this.#shown(), this.#noted());
  }

  #show(key) {
    this.#flush();
    this.#view = key;
    for (const channel of this.#shown()) channel.unread = 0;
    const named = key.startsWith("#");
    byId("view-title").textContent = named ? key : text(`view.${key}`);
    byId("view-lead").textContent = text(named ? "view.channel-lead" : `view.${key}-lead`);
    this.#rows();
    this.#edge();
    this.#feed.show(this.#merged());
    this.#composer.follow(named ? key : "");
  }

  #rows() {
    const count = (name) => this.#channels.get(name).unread;
    this.#list.render([
      { key: ALL, sign: "≡", label: text("view.all"), unread: 0 },
      { key: EVERYONE, sign: "○", label: text("view.everyone"), unread: count(undefined) },
      { key: OWN, sign: "@", label: text("view.own"), unread: count(`@${this.#username}`) },
      ...this.#joined().map((name) => ({ key: `#${name}`, sign: "#", label: name, unread: count(name), channel: name })),
    ], this.#view);
    const unread = [...this.#channels.values()].some((c) => c.unread);
    byId("side-dot").hidden = !unread;
    byId("side-open").ariaLabel = text(unread ? "channels.open-unread" : "channels.open");
  }

  /** Names the channel of a message for the feed. */
  #describe(channel, sent) {
    if (channel === undefined) return { label: text("feed.everyone"), kind: "to-everyone" };
    if (sent) return { label: text("feed.to", { name: channel.startsWith("@") ? channel.slice(1) : `#${channel}` }), kind: "to-person" };
    if (channel.startsWith("@")) return { label: text("feed.for-you"), kind: "to-person" };
    return { label: `#${channel}`, kind: "to-channel" };
  }

  #received(message) {
    const channel = this.#channels.get(message.channel);
    const entry = { ...message, at: Date.parse(message.time) };
    entry.time = entry.at;
    if (!channel?.append(entry)) return;
    this.#quiet = false;
    if (message.sender === this.#username) {
      this.#composer.seen(message);
    } else {
      if (document.hidden) this.#unseen++;
      if (!this.#shown().includes(channel)) channel.unread++;
    }
    this.#later(entry);
  }

  #later(entry) {
    this.#arrived.push(entry);
    this.#timer ??= setTimeout(() => this.#flush(), BATCH);
  }

  /** Shows the live messages that have arrived. */
  #flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#arrived.length) return;
    const arrived = this.#arrived.splice(0);
    const news = arrived.findLast((e) => !e.mark && e.sender !== this.#username);
    if (news) this.#notifier.tell(news);
    const channels = this.#shown();
    const notes = this.#noted();
    const visible = arrived.filter((e) => e.mark || e.sent ? notes.includes(e) : channels.some((c) => c.name === e.channel));
    let from = this.#sequence.length;
    for (const entry of visible) {
      const at = place(this.#sequence, entry);
      this.#sequence.splice(at, 0, entry);
      from = Math.min(from, at);
    }
    if (visible.length) this.#feed.grown(visible.filter((e) => !e.mark).length, from);
    if (visible.length < arrived.length) this.#rows();
    this.#title();
    this.#forget();
    this.#edge();
  }

  /** Removes old entries if there are too many in memory. */
  #forget() {
    const channels = [...this.#channels.values()];
    const count = channels.reduce((n, c) => n + c.entries.length, this.#notes.length);
    const size = channels.reduce((n, c) => n + c.size, 0);
    const slack = this.#feed.atBottom ? 1 : SLACK;
    if (count <= MANY * slack && size <= MUCH * slack) return;
    const share = Math.ceil(Math.min(MANY, count * MUCH / size) / 2 / channels.length);
    for (const channel of channels) channel.trim(share);
    this.#notes.splice(0, this.#notes.length - NOTES);
    this.#feed.replace(this.#merged());
  }

  #title() {
    document.title = this.#unseen ? `(${this.#unseen}) ${text("title")}` : text("title");
  }

  // Earlier messages.

  /** Loads the newest page of each channel that has no page yet. */
  async #begin() {
    await Promise.all([...this.#channels.values()].filter((c) => c.more && !c.begun).map((c) => {
      c.begun = true;
      return this.#load(c).catch(() => { c.begun = false; });
    }));
    this.#flush();
    this.#edge();
    this.#feed.replace(this.#merged());
    this.#feed.fill();
  }

  async #load(channel) {
    const before = channel.first;
    const page = await this.#chat.messages({ channel: channel.name, before, limit: PAGE });
    for (const m of page.messages) m.time = m.at = Date.parse(m.time);
    channel.prepend(page, before);
  }

  /** Loads one page of earlier messages for the view; resolves to whether there may be more. */
  async #earlier() {
    const view = this.#view;
    const channel = hindmost(this.#shown());
    if (!channel || this.#chat.state !== "open") return false;
    this.#feed.edge("feed.loading");
    try {
      await this.#load(channel);
    } catch {
      this.#feed.edge("feed.failed", () => void this.#feed.fill());
      return false;
    }
    this.#flush();
    if (view === this.#view) this.#feed.replace(this.#merged());
    this.#edge();
    return Boolean(hindmost(this.#shown()));
  }

  /** Sets the text before the first entry. */
  #edge() {
    const shown = this.#shown();
    if (hindmost(shown)) this.#feed.edge("");
    else if (shown.some((c) => c.dropped)) this.#feed.edge("feed.dropped");
    else this.#feed.edge(this.#sequence.length ? "feed.beginning" : "feed.empty");
  }

  // Marks in the feed.

  #note(entry) {
    this.#flush();
    entry.at = Math.max(0, ...[...this.#channels.values()].map((c) => c.entries.at(-1)?.at ?? 0), this.#notes.at(-1)?.at ?? 0);
    this.#notes.push(entry);
    this.#later(entry);
    this.#flush();
  }

  /** Adds a mark for a reconnect to the feed. Several reconnects without a message between them share one mark. */
  #mark(gap) {
    const now = Date.now();
    const mark = { mark: gap ? "gap" : "complete", from: this.#outage.from, time: now, channels: [] };
    const last = this.#notes.findLast((n) => n.mark);
    if (this.#quiet && !gap && last?.mark === "complete") {
      Object.assign(last, mark);
      this.#feed.changed(last);
    } else {
      this.#note(mark);
    }
    this.#quiet = true;
    if (!this.#feed.atBottom) announce(text(`mark.${mark.mark}`));
  }

  #missed(channel) {
    const mark = this.#notes.findLast((n) => n.mark); // #opened has added one before
    mark.channels.push(channel);
    this.#feed.changed(mark);
  }

  // Actions of the user.

  async #broadcast(content, { channel, signal }) {
    const id = await this.#chat.broadcast(content, { channel, signal });
    // A message to a channel that is not joined does not come back, so show it here.
    if (!this.#channels.has(channel)) this.#note({ id, channel, sender: this.#username, content, time: Date.now(), sent: true });
    this.#feed.toBottom();
  }

  async #join(name) {
    await this.#chat.join(name, { signal: AbortSignal.timeout(20_000) });
    if (!this.#channels.has(name)) {
      this.#notes = this.#notes.filter((n) => !n.sent || n.channel !== name); // the channel's history contains them
      this.#channels.set(name, new Channel(name));
    }
    this.#offer();
    this.#show(`#${name}`);
    this.#sideDrawer.close();
    await this.#begin();
  }

  async #leave(name) {
    try {
      await this.#chat.leave(name, { signal: AbortSignal.timeout(20_000) });
    } catch (error) {
      if (error.kind !== "not_joined") {
        this.#list.say(error);
        return;
      }
    }
    this.#flush();
    if (this.#view === `#${name}`) this.#view = ALL;
    this.#channels.delete(name);
    this.#show(this.#view);
    this.#offer();
  }

  #offer() {
    this.#composer.offer(this.#joined(), this.#people.usernames.filter((n) => n !== this.#username));
  }

  #countPeople(count) {
    byId("people-count").textContent = byId("people-count-head").textContent = String(count);
    byId("people-open").ariaLabel = text("people.open", { count });
    this.#offer();
  }
}

translate(document);
document.title = text("title");
new Page(await logIn(base));
