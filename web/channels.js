// The list of views: all messages, everyone's channel, the user channel, and each
// joined channel; with the form that joins another channel.

import { arrange, byId, element, say } from "./element.js";
import { problem, text } from "./text.js";

const NAME = /^[A-Za-z0-9._:-]{1,128}$/;

/** Returns the channel's name in a typed text, with or without "#"; undefined if it is invalid. */
export function channelName(typed) {
  const name = typed.trim().replace(/^#/, "");
  return NAME.test(name) ? name : undefined;
}

/** The keys of the views that are not joined channels. A channel's key is "#name". */
export const ALL = "all", EVERYONE = "everyone", OWN = "own";

export class Channels {
  #list = byId("channels");
  #rows = new Map(); // by key
  #select; // called with a key
  #leave; // called with a channel's name

  /** join(name) resolves when the channel is joined. */
  constructor({ select, join, leave }) {
    this.#select = select;
    this.#leave = leave;
    const input = byId("join-name"), trouble = byId("join-problem");
    input.addEventListener("input", () => say(trouble, ""));
    byId("join-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      if (!input.value.trim()) return;
      const name = channelName(input.value);
      if (!name) {
        say(trouble, text("channels.invalid"));
        return;
      }
      try {
        await join(name);
        if (channelName(input.value) === name) input.value = "";
        say(trouble, "");
      } catch (error) {
        say(trouble, problem(error));
      }
    });
  }

  /** Shows an error below the form. */
  say(error) {
    say(byId("join-problem"), problem(error));
  }

  /** rows: {key, sign, label, unread, channel?}; current: the key of the view on screen. */
  render(rows, current) {
    const focused = document.activeElement?.closest("#channels li");
    for (const key of [...this.#rows.keys()]) if (!rows.some((row) => row.key === key)) this.#rows.delete(key);
    arrange(this.#list, rows.map((row) => {
      if (!this.#rows.has(row.key)) this.#rows.set(row.key, this.#row(row));
      const { item, button, count, words } = this.#rows.get(row.key);
      if (row.key === current) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
      count.hidden = words.hidden = !row.unread;
      count.textContent = row.unread > 99 ? "99+" : String(row.unread);
      words.textContent = text("channels.unread", { count: row.unread });
      return item;
    }));
    if (focused && !focused.isConnected) this.#list.querySelector("[aria-current]")?.focus();
  }

  #row({ key, sign, label, channel }) {
    const count = element("span", { className: "count", "aria-hidden": "true" });
    const words = element("span", { className: "unseen" });
    const button = element("button", { type: "button", className: "channel", onclick: () => this.#select(key) },
      element("span", { className: "sign", textContent: sign, "aria-hidden": "true" }),
      element("bdi", { className: "label", textContent: label }), count, words);
    const leave = channel === undefined ? undefined : element("button", {
      type: "button", className: "quiet icon leave", onclick: () => this.#leave(channel),
      ariaLabel: text("channels.leave", { channel }), title: text("channels.leave", { channel }),
    });
    return { item: element("li", { "data-key": key }, button, leave), button, count, words };
  }
}
