// The list of what can be shown: everything, everyone's channel, one's own, each
// channel joined. And the way into further ones.

import { byId, element, say } from "./element.js";
import { problem, text } from "./text.js";

const NAME = /^[A-Za-z0-9._:-]{1,128}$/;

/** A channel's name as typed, with or without its "#"; undefined when it is none. */
export function channelName(typed) {
  const name = typed.trim().replace(/^#/, "");
  return NAME.test(name) ? name : undefined;
}

/** What there is to show beside channels, by its key. A channel's key is "#name". */
export const ALL = "all", EVERYONE = "everyone", OWN = "own";

export class Channels {
  #list = byId("channels");
  #select; // called with a key
  #leave; // called with a channel's name

  /** join(name) resolves when it is done. */
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

  /** Says what went wrong. */
  say(error) {
    say(byId("join-problem"), problem(error));
  }

  /** rows: {key, label, unread, channel?}; current: the key of what is on show. */
  render(rows, current) {
    const focused = document.activeElement?.closest("#channels li")?.dataset.key;
    this.#list.replaceChildren(...rows.map((row) => element("li", { "data-key": row.key },
      element("button", {
        type: "button", className: "channel", onclick: () => this.#select(row.key),
        ...(row.key === current ? { "aria-current": "page" } : {}),
      },
        element("span", { className: "sign", textContent: row.sign, "aria-hidden": "true" }),
        element("bdi", { className: "label", textContent: row.label }),
        row.unread ? element("span", { className: "count", textContent: row.unread > 99 ? "99+" : String(row.unread) }) : undefined,
        row.unread ? element("span", { className: "unseen", textContent: text("channels.unread", { count: row.unread }) }) : undefined),
      row.channel === undefined ? undefined : element("button", {
        type: "button", className: "quiet icon leave", onclick: () => this.#leave(row.channel),
        ariaLabel: text("channels.leave", { channel: row.channel }), title: text("channels.leave", { channel: row.channel }),
      }))));
    if (focused !== undefined) {
      const again = [...this.#list.children].find((li) => li.dataset.key === focused) ?? this.#list.firstElementChild;
      again?.querySelector("button").focus();
    }
  }
}
