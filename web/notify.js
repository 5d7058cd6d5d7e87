// Notifications of the system's, for who wants them, of what comes while the page
// is not to be seen.

import { announce, byId } from "./element.js";
import { text } from "./text.js";

/** So much of a message is in a notification. */
const LONGEST = 300;

export class Notifier {
  #button = byId("notify");
  #state = byId("notify-state");
  #on = false;

  constructor() {
    this.#button.hidden = !("Notification" in window);
    this.#button.addEventListener("click", () => void this.#toggle());
    // Who has allowed it for this page wanted it.
    this.#set(!this.#button.hidden && Notification.permission === "granted");
  }

  /** Tells of a message, unless the page shows it anyway. */
  tell({ sender, content }) {
    if (!this.#on || !document.hidden) return;
    try {
      // Each takes the place of the one before.
      const notification = new Notification(sender || text("feed.system"), { body: content.slice(0, LONGEST), tag: "chat", icon: "icon.svg" });
      notification.onclick = () => {
        window.focus();
        notification.close();
      };
    } catch { // there are browsers where a page may not
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
