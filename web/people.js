// The list of connected users, for an admin. It is fetched at the start, after joins
// and leaves (batched), and at intervals while the page is visible.

import { announce, arrange, ask, avatar, byId, element, say } from "./element.js";
import { moment, problem, text } from "./text.js";

const BATCH = 400; // least time from a join or leave to the request, ms
const OFTEN = 20_000; // between requests without joins and leaves, ms
/** Each user in the list adds this to the least time between two requests, ms. */
const EACH = 2;
/** The document has at most MOST users. Up to FEW users need no search. */
const MOST = 200;
const FEW = 12;
/** A user who reconnects this soon after a disconnect may cause neither a join nor a leave, ms. */
const BACK = 3_000;

export class People {
  #list = byId("people-list");
  #problem = byId("people-problem");
  #find = byId("people-find");
  #more = byId("people-more");
  #chat; // the Chat to ask, while its user is an admin
  #me = "";
  #timer;
  #asking = false;
  #stale = false; // users have joined or left since the last request
  #users = [];
  #rows = new Map(); // by username
  #write; // called with a username
  #changed; // called when the list has changed

  constructor({ write, changed }) {
    this.#write = write;
    this.#changed = changed;
    this.#find.addEventListener("input", () => this.#render());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.#chat) this.soon(0);
    });
  }

  /** The first MOST usernames, to choose from. */
  get usernames() {
    return this.#users.slice(0, MOST).map((u) => u.username);
  }

  /** Keeps the list up to date with a Chat. */
  follow(chat, me) {
    this.#chat = chat;
    this.#me = me;
    this.soon(0);
  }

  /** Stops updates and keeps the list. */
  pause() {
    this.#chat = undefined;
    clearTimeout(this.#timer);
  }

  clear() {
    this.pause();
    this.#users = [];
    this.#find.value = "";
    this.#render();
  }

  /** Requests the list after delay, as users have joined or left. A request that is due already is not delayed. */
  soon(delay = this.#batch()) {
    if (!this.#chat || this.#stale && delay > 0) return;
    this.#stale = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), delay);
  }

  async #ask() {
    const chat = this.#chat;
    if (!chat || this.#asking) return; // the request under way checks #stale afterwards
    this.#asking = true;
    this.#stale = false;
    try {
      const users = await chat.connected();
      if (chat !== this.#chat) return;
      this.#users = users;
      say(this.#problem, "");
      this.#render();
    } catch {
      if (chat === this.#chat) say(this.#problem, text("people.stale"));
    } finally {
      this.#asking = false;
      if (this.#chat) {
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#again(), this.#stale ? this.#batch() : Math.max(OFTEN, this.#batch()));
      }
    }
  }

  #batch() {
    return Math.max(BATCH, this.#users.length * EACH);
  }

  #again() {
    if (!document.hidden || this.#stale) void this.#ask();
    // While the page is hidden, its return makes the request.
  }

  #render() {
    byId("people-find-row").hidden = this.#users.length <= FEW && !this.#find.value;
    const part = this.#find.value.trim().toLowerCase();
    const found = this.#users.filter(({ username }) => username.toLowerCase().includes(part));
    const hidden = found.length - MOST;
    say(this.#more, hidden > 0 ? text("people.more", { count: hidden }) : found.length || !part ? "" : text("people.none"));
    const rows = new Map();
    for (const user of found.slice(0, MOST)) {
      const row = this.#rows.get(user.username) ?? this.#row(user.username);
      const { connections, since, role } = user;
      row.detail.textContent =
        `${text("people.sockets", { count: connections })} · ${text("people.since", { time: moment(Date.parse(since)) })}`;
      row.admin.hidden = role !== "admin";
      rows.set(user.username, row);
    }
    const focused = document.activeElement?.closest("#people-list li");
    this.#rows = rows;
    arrange(this.#list, [...rows.values()].map(({ item }) => item));
    if (focused && !focused.isConnected) this.#list.querySelector("button")?.focus();
    this.#changed(this.#users.length);
  }

  #row(name) {
    const own = name === this.#me;
    const admin = element("span", { className: "tag", textContent: text("role.admin") });
    const detail = element("p", { className: "detail" });
    const act = (className, key, onclick) => element("button", {
      type: "button", className: `quiet small ${className}`, textContent: text(key), onclick,
    });
    const write = act("write-to", "people.write", () => this.#write(name));
    write.ariaLabel = text("people.write-to", { name });
    const cut = act("cut", "people.disconnect", () => void this.#disconnect(name));
    cut.ariaLabel = text("people.disconnect-name", { name });
    const item = element("li", { className: "person", "data-name": name },
      avatar(element("span"), name),
      element("div", { className: "who" },
        element("p", { className: "head" },
          element("bdi", { className: "sender", textContent: name }),
          own ? element("span", { className: "own", textContent: text("you") }) : undefined,
          admin),
        detail,
        own ? undefined : element("div", { className: "acts" }, write, cut)));
    return { item, admin, detail };
  }

  async #disconnect(name) {
    if (!(await confirm(text("people.confirm-title", { name }), text("people.confirm-text"), text("people.disconnect")))) return;
    try {
      const count = await this.#chat?.disconnect(name) ?? 0;
      announce(text(count ? "people.disconnected" : "people.disconnected-none", { name, count }));
      say(this.#problem, "");
      setTimeout(() => this.soon(0), BACK);
    } catch (error) {
      say(this.#problem, problem(error));
      announce(problem(error));
    }
    this.soon(0);
  }
}

/** Asks the user in a dialog; resolves to whether the answer is yes. */
async function confirm(title, words, yes) {
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = words;
  byId("confirm-yes").textContent = yes;
  return await ask(byId("confirm")) === "yes";
}
