// System notifications of new messages while the page is hidden, if the user turns
// them on.

import { announce, byId } from "./element.js";
import { text } from "./text.js";

/** A notification contains this many characters of a message. */
const LONGEST = 300;

export class Notifier {
  #button = byId("notify");
  #state = byId("notify-state");
  #on = false;

  constructor() {
    this.#button.hidden = !("Notification" in window);
    this.#button.addEventListener("click", () => void this.#toggle());
    // A user who allowed notifications for this page before wants them on.
    this.#set(!this.#button.hidden && Notification.permission === "granted");
  }

  /** Notifies the user of a message, unless the page is visible. */
  tell({ sender, content }) {
    if (!this.#on || !document.hidden) return;
    try {
      // The tag makes each notification replace the last one.
      const notification = new Notification(sender || text("feed.system"), { body: content.slice(0, LONGEST), tag: "chat", icon: "icon.svg" });
      notification.onclick = () => {
        window.focus();
        notification.close();
      };
    } catch { // some browsers do not allow a page to do this
      this.#set(false);
      this.#button.hidden = true;
    }
  }

  async #toggle() {
    const wanted = !this.#on;
    this.#set(wanted && await Notification.requestPermission() === "granted");
    if (!wanted || this.#on) return;
    this.#state.textContent = text("notify.blocked");
    announce(text("notify.blocked"));
  }

  #set(on) {
    this.#on = on;
    this.#button.ariaPressed = String(on);
    this.#state.textContent = text(on ? "notify.on" : "notify.off");
  }
}
