// Shows the state of the connection in the head of the page and announces changes to
// screen readers. A banner shows a button if the user can do something.

import { announce, byId } from "./element.js";
import { text } from "./text.js";

export class Connection {
  #state = byId("state");
  #words = byId("state-text");
  #banner = byId("banner");
  #bannerText = byId("banner-text");
  #action = byId("banner-action");
  #tick;
  #lost = false;
  #act = () => {};

  constructor() {
    this.#action.addEventListener("click", () => this.#act());
  }

  connecting() {
    this.#set("connecting", text("state.connecting"));
    if (this.#lost) this.#bannerText.textContent = text("state.retrying");
    else this.#hide();
  }

  open() {
    this.#set("open", text("state.open"));
    this.#hide();
    this.#lost = false;
  }

  /** Shows that the client retries in `delay` ms; the button calls `now` to retry at once. */
  waiting(delay, now) {
    if (!this.#lost) announce(text("state.lost"));
    this.#lost = true;
    this.#set("waiting", text("state.waiting"));
    const at = performance.now() + delay;
    const count = () => {
      const left = Math.max(0, Math.ceil((at - performance.now()) / 1000));
      this.#bannerText.textContent = left ? text("state.countdown", { count: left }) : text("state.retrying");
    };
    this.#show(text("state.now"), now);
    count();
    this.#tick = setInterval(count, 250);
  }

  /** Shows why the connection has ended, and a button with a label that calls act. */
  ended(words, label, act) {
    this.#set("closed", text("state.closed"));
    this.#lost = false;
    this.#bannerText.textContent = words;
    this.#show(label, act);
    announce(words);
  }

  #show(label, act) {
    if (this.#action.textContent !== label) this.#action.textContent = label;
    this.#act = act;
    this.#banner.hidden = false;
  }

  #hide() {
    if (document.activeElement === this.#action) byId("feed").focus({ preventScroll: true });
    this.#banner.hidden = true;
  }

  #set(state, words) {
    clearInterval(this.#tick);
    this.#state.dataset.state = state;
    this.#banner.dataset.state = state;
    this.#words.textContent = words;
  }
}
