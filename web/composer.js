// The form in which an admin writes to everyone, a channel or one user. A text that
// could not be sent stays in the form.

import { channelName } from "./channels.js";
import { announce, byId, element, say } from "./element.js";
import { problem, text } from "./text.js";

const EVERYONE = "", OTHER_CHANNEL = "+#", OTHER_PERSON = "+@";
const HIGHEST = 200; // px

export class Composer {
  #form = byId("composer");
  #to = byId("to");
  #name = byId("to-name");
  #content = byId("content");
  #send = byId("send");
  #hint = byId("composer-hint");
  #problem = byId("composer-problem");
  #cancel = byId("composer-cancel");
  #broadcast; // (content, {channel, signal}); returns a promise
  #connected; // whether there is a connection now
  #sending; // the AbortController of the message that is being sent
  #offered; // {channels, people}
  #unconfirmed; // {content, channel, typed} of a message that may have been sent

  constructor({ broadcast, connected }) {
    this.#broadcast = broadcast;
    this.#connected = connected;
    this.offer([], []);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
    this.#content.addEventListener("keydown", (event) => {
      // While an input method composes, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#form.requestSubmit();
    });
    this.#content.addEventListener("input", () => {
      this.#fit();
      this.waiting();
      if (!this.#unconfirmed) say(this.#problem, "");
    });
    this.#to.addEventListener("change", () => this.#choose());
    this.#to.addEventListener("blur", () => this.#list());
    this.#name.addEventListener("input", () => say(this.#problem, ""));
    this.#cancel.addEventListener("click", () => this.#sending?.abort());
    addEventListener("beforeunload", (event) => {
      if (this.#content.value.trim()) event.preventDefault();
    });
  }

  set shown(shown) {
    this.#form.hidden = !shown;
  }

  /** Offers channels and usernames as recipients. The chosen recipient stays. */
  offer(channels, people) {
    this.#offered = { channels, people };
    if (document.activeElement !== this.#to) this.#list(); // do not change a list that may be open
  }

  #list() {
    let { channels, people } = this.#offered;
    const chosen = this.#to.value;
    const named = chosen.startsWith("@") ? chosen.slice(1) : undefined;
    if (named !== undefined && !people.includes(named)) people = [...people, named]; // a user who left still receives messages later
    if (chosen.startsWith("#") && !channels.includes(chosen.slice(1))) channels = [...channels, chosen.slice(1)];
    const option = (value, label) => element("option", { value, textContent: label });
    this.#to.replaceChildren(
      option(EVERYONE, text("composer.everyone")),
      element("optgroup", { label: text("composer.channels") },
        ...channels.map((name) => option(`#${name}`, `#${name}`)), option(OTHER_CHANNEL, text("composer.other-channel"))),
      element("optgroup", { label: text("composer.people") },
        ...people.map((name) => option(`@${name}`, name)), option(OTHER_PERSON, text("composer.other-person"))));
    this.#to.value = chosen;
    if (this.#to.selectedIndex < 0) this.#to.value = EVERYONE;
  }

  /** Chooses the view's recipient, unless there is a text, whose recipient must not change. */
  follow(target) {
    if (!this.#content.value) this.address(target);
  }

  /** Chooses a recipient: "" (everyone), "#channel" or "@username". */
  address(target, focus) {
    if (this.#sending) return;
    if (![...this.#to.options].some((o) => o.value === target)) {
      this.#to.lastElementChild.prepend(element("option", { value: target, textContent: target.replace(/^@/, "") }));
    }
    this.#to.value = target;
    this.#choose();
    if (focus) this.#content.focus();
  }

  focus() {
    this.#content.focus();
  }

  /** Takes a message of this user, which may be the unconfirmed one. */
  seen(message) {
    const u = this.#unconfirmed;
    if (!u || message.content !== u.content || message.channel !== u.channel) return;
    this.#unconfirmed = undefined;
    if (this.#content.value === u.typed) this.#empty();
    say(this.#problem, "");
    announce(text("composer.settled"));
  }

  #choose() {
    const other = this.#to.value === OTHER_CHANNEL || this.#to.value === OTHER_PERSON;
    this.#name.hidden = !other;
    say(this.#problem, "");
    if (!other) return;
    this.#name.value = "";
    this.#name.ariaLabel = text(this.#to.value === OTHER_PERSON ? "composer.person-name" : "composer.channel-name");
    this.#name.placeholder = this.#name.ariaLabel;
    this.#name.focus();
  }

  /** Returns the channel to publish to, undefined for everyone's. If the input is invalid, shows why and returns null. */
  #target() {
    const to = this.#to.value;
    if (to === EVERYONE) return undefined;
    if (to === OTHER_PERSON) {
      const name = this.#name.value.trim().replace(/^@/, "");
      if (name) return `@${name}`;
      say(this.#problem, text("composer.no-name"));
      return null;
    }
    if (to === OTHER_CHANNEL) {
      const name = channelName(this.#name.value);
      if (name) return name;
      say(this.#problem, text(this.#name.value.trim() ? "channels.invalid" : "composer.no-name"));
      return null;
    }
    return to.startsWith("#") ? to.slice(1) : to;
  }

  async #submit() {
    const typed = this.#content.value;
    const content = typed.trimEnd();
    if (this.#sending || !content) return;
    const channel = this.#target();
    if (channel === null) {
      this.#name.focus();
      return;
    }
    const sending = this.#sending = new AbortController();
    this.#unconfirmed = undefined;
    say(this.#problem, "");
    this.#busy(true);
    let sent;
    try {
      await this.#broadcast(content, { channel, signal: sending.signal });
      this.#empty();
      sent = channel;
    } catch (error) {
      if (!sending.signal.aborted) say(this.#problem, problem(error));
      if (error?.kind === "unconfirmed") this.#unconfirmed = { content, channel, typed };
    } finally {
      this.#sending = undefined;
      this.#busy(false);
      if (sent !== undefined) this.#hint.textContent = text("composer.sent-to", { name: sent.startsWith("@") ? sent.slice(1) : `#${sent}` });
    }
  }

  /** While a message is being sent, the text cannot be changed; without a connection it can be cancelled. */
  #busy(busy) {
    this.#content.readOnly = busy;
    this.#to.disabled = this.#name.disabled = busy;
    this.#send.ariaDisabled = String(busy);
    if (!busy) {
      this.waiting();
      return;
    }
    setTimeout(() => this.waiting(), 300);
    if (!this.#connected()) this.waiting();
  }

  /** Shows whether a message is being sent and what it waits for. */
  waiting() {
    const busy = Boolean(this.#sending);
    this.#form.classList.toggle("busy", busy);
    this.#send.textContent = text(busy ? "composer.sending" : "composer.send");
    this.#hint.textContent = text(busy && !this.#connected() ? "composer.waiting" : "composer.hint");
    this.#cancel.hidden = !busy || this.#connected();
  }

  #empty() {
    this.#content.value = "";
    this.#fit();
  }

  #fit() {
    this.#content.style.height = "auto";
    this.#content.style.height = `${Math.min(HIGHEST, this.#content.scrollHeight + 2)}px`;
  }
}
