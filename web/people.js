// Who is connected, for an admin: asked for at the start, after comings and goings
// gathered a little, and every so often while the page can be seen.

import { announce, avatar, byId, element, say } from "./element.js";
import { moment, problem, text } from "./text.js";

const GATHER = 400; // ms
const OFTEN = 30_000;

export class People {
  #list = byId("people-list");
  #problem = byId("people-problem");
  #chat; // the Chat, while there is one that may ask
  #me = "";
  #timer;
  #asking = false;
  #stale = false; // something has changed since it asked
  #users = [];
  #write; // called with a username
  #changed; // called when the list has changed

  constructor({ write, changed }) {
    this.#write = write;
    this.#changed = changed;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.#chat) this.soon(0);
    });
  }

  get usernames() {
    return this.#users.map((u) => u.username);
  }

  /** Keeps the list up to date through a chat. */
  follow(chat, me) {
    this.#chat = chat;
    this.#me = me;
    this.soon(0);
  }

  /** Keeps the list as it is, or empties it. */
  pause() {
    this.#chat = undefined;
    clearTimeout(this.#timer);
  }

  clear() {
    this.pause();
    this.#users = [];
    this.#render();
  }

  /** Somebody came or went: asks in a little while. */
  soon(delay = GATHER) {
    if (!this.#chat) return;
    this.#stale = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), delay);
  }

  async #ask() {
    const chat = this.#chat;
    if (!chat || this.#asking) return; // who asks now looks again afterwards
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
        this.#timer = setTimeout(() => this.#again(), this.#stale ? GATHER : OFTEN);
      }
    }
  }

  #again() {
    if (!document.hidden || this.#stale) void this.#ask();
    // While hidden, the page's return asks.
  }

  #render() {
    // The focus stays with the person, whose row is a new one.
    const focused = document.activeElement?.closest("#people-list li")?.dataset.name;
    const which = document.activeElement?.className;
    this.#list.replaceChildren(...this.#users.map((u) => this.#row(u)));
    if (focused !== undefined) {
      const row = [...this.#list.children].find((li) => li.dataset.name === focused);
      [...row?.querySelectorAll("button") ?? []].find((b) => b.className === which)?.focus();
    }
    this.#changed(this.#users.length);
  }

  #row(user) {
    const own = user.username === this.#me;
    const detail = `${text("people.sockets", { count: user.connections })} · ${text("people.since", { time: moment(Date.parse(user.since)) })}`;
    return element("li", { className: "person", "data-name": user.username },
      avatar(element("span"), user.username),
      element("div", { className: "who" },
        element("p", { className: "head" },
          element("bdi", { className: "sender", textContent: user.username }),
          own ? element("span", { className: "own", textContent: text("you") }) : undefined,
          user.role === "admin" ? element("span", { className: "tag", textContent: text("role.admin") }) : undefined),
        element("p", { className: "detail", textContent: detail }),
        own ? undefined : element("div", { className: "acts" },
          element("button", {
            type: "button", className: "quiet small write-to", textContent: text("people.write"),
            ariaLabel: text("people.write-to", { name: user.username }), onclick: () => this.#write(user.username),
          }),
          element("button", {
            type: "button", className: "quiet small cut", textContent: text("people.disconnect"),
            ariaLabel: text("people.disconnect-name", { name: user.username }), onclick: () => void this.#disconnect(user.username),
          }))));
  }

  async #disconnect(name) {
    if (!(await confirm(text("people.confirm-title", { name }), text("people.confirm-text"), text("people.disconnect")))) return;
    try {
      const count = await this.#chat?.disconnect(name) ?? 0;
      announce(text(count ? "people.disconnected" : "people.disconnected-none", { name, count }));
      say(this.#problem, "");
    } catch (error) {
      say(this.#problem, problem(error));
      announce(problem(error));
    }
    this.soon(0);
  }
}

/** Asks with a dialog; whether the answer is yes. */
function confirm(title, words, yes) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = words;
  byId("confirm-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
