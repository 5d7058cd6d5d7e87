// The feed: a long sequence of entries, of which a bounded part is in the document.
// It stays at the bottom while the reader is there, and where the reader is
// otherwise, whatever comes or goes above and below.

import { arrange, avatar, byId, element } from "./element.js";
import { dayName, format, list, sameDay, text } from "./text.js";

/** How many entries are in the document at most, and by how many it grows. */
const MOST = 240;
const STEP = 60;
/** So near an end, in pixels, there has to be more. */
const NEAR = 600;
/** So near the bottom, in pixels, counts as at the bottom. */
const CLOSE = 48;

export class Feed {
  #root = byId("feed");
  #items = byId("feed-items");
  #edge = byId("feed-edge");
  #newer = byId("newer");
  #nodes = new Map(); // of the entries in the document
  #entries = []; // all of the sequence
  #start = 0; // the part in the document, up to #end
  #end = 0;
  #atBottom = true;
  #fresh = 0; // entries that came since the reader left the bottom
  #before = { key: "" };
  #loading = false;
  #earlier; // loads what is before: resolves to whether there is more, rejects
  #describe; // how a channel is called, to this reader
  #me = "";

  /** earlier: see above; describe(channel): its name, {label, kind}. */
  constructor({ earlier, describe }) {
    this.#earlier = earlier;
    this.#describe = describe;
    this.#root.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#newer.addEventListener("click", () => {
      this.toBottom();
      this.#root.focus({ preventScroll: true });
    });
    new ResizeObserver(() => {
      if (this.#atBottom) this.#root.scrollTop = this.#root.scrollHeight;
    }).observe(this.#root);
  }

  /** Whether the reader sees the newest entry. */
  get atBottom() {
    return this.#atBottom;
  }

  /** Whose feed it is. */
  set me(username) {
    this.#me = username;
  }

  /** Shows a sequence from its end. */
  show(entries) {
    this.#entries = entries;
    this.#silently(() => this.toBottom());
  }

  /** Takes what has entries inserted or removed anywhere; the reader stays in place. */
  replace(entries) {
    const first = this.#entries[this.#start];
    const last = this.#entries[this.#end - 1];
    const complete = this.#end === this.#entries.length;
    this.#entries = entries;
    if (this.#atBottom) {
      this.#silently(() => this.toBottom());
      return;
    }
    const start = entries.indexOf(first);
    const end = entries.lastIndexOf(last) + 1;
    if (start < 0 || end <= start) this.#silently(() => this.toBottom());
    else this.#silently(() => this.#hold(() => this.#render(start, complete ? Math.min(entries.length, start + MOST) : end)));
  }

  /** Live entries have been put into the sequence, the first of them at an index. */
  grown(count, from) {
    if (this.#atBottom) {
      this.#render(Math.max(0, this.#start, this.#entries.length - MOST), this.#entries.length);
      this.#root.scrollTop = this.#root.scrollHeight;
      this.fill();
      return;
    }
    this.#fresh += count;
    if (from >= this.#start && this.#end - this.#start < MOST) {
      this.#hold(() => this.#render(this.#start, Math.min(this.#entries.length, this.#start + MOST)));
    }
    this.#label();
  }

  /** An entry's words have changed. */
  changed(entry) {
    const node = this.#nodes.get(entry);
    if (!node) return;
    this.#nodes.delete(entry);
    this.#hold(() => node.replaceWith(this.#node(entry)));
    this.#regroup(this.#entries.indexOf(entry));
  }

  toBottom() {
    this.#atBottom = true;
    this.#fresh = 0;
    this.#render(Math.max(0, this.#entries.length - STEP), this.#entries.length);
    this.#root.scrollTop = this.#root.scrollHeight;
    this.#label();
    this.fill();
  }

  /** What is said before the first entry: a key of the texts, or "". */
  edge(key, retry) {
    this.#before = { key, retry };
    this.#hold(() => this.#sayEdge());
  }

  #sayEdge() {
    const { key, retry } = this.#start > 0 ? { key: "" } : this.#before;
    if (this.#edge.dataset.key === key) return;
    this.#edge.dataset.key = key;
    this.#edge.textContent = key && text(key);
    if (retry) this.#edge.append(" ", element("button", { type: "button", className: "link", textContent: text("feed.retry"), onclick: retry }));
  }

  /** Loads earlier entries, as far as they are wanted to fill what is on show. */
  fill() {
    if (this.#root.scrollTop < NEAR) void this.#extendUp();
  }

  #scrolled() {
    const below = this.#root.scrollHeight - this.#root.scrollTop - this.#root.clientHeight;
    this.#atBottom = below < CLOSE && this.#end === this.#entries.length;
    if (this.#atBottom) this.#fresh = 0;
    this.#label();
    if (below < NEAR && this.#end < this.#entries.length) {
      const end = Math.min(this.#entries.length, this.#end + STEP);
      this.#silently(() => this.#hold(() => this.#render(Math.max(this.#start, end - MOST), end)));
    }
    this.fill();
  }

  async #extendUp() {
    if (this.#start > 0) {
      const start = Math.max(0, this.#start - STEP);
      const end = this.#atBottom ? this.#end : Math.min(this.#end, start + MOST);
      this.#silently(() => this.#hold(() => this.#render(start, end)));
      return;
    }
    if (this.#loading) return;
    this.#loading = true;
    let more = false;
    try {
      more = await this.#earlier();
    } finally {
      this.#loading = false;
    }
    if (more || this.#start > 0) this.fill();
  }

  /** Makes the document hold the entries from start to end. */
  #render(start, end) {
    const wanted = new Set(this.#entries.slice(start, end));
    for (const entry of this.#nodes.keys()) if (!wanted.has(entry)) this.#nodes.delete(entry);
    arrange(this.#items, [...wanted].map((entry) => this.#node(entry)));
    this.#start = start;
    this.#end = end;
    for (let i = start; i < end; i++) this.#regroup(i, start);
    this.#sayEdge();
  }

  /** A day is named where it begins, and a sender once for what is said in a minute. */
  #regroup(i, start = this.#start) {
    const entry = this.#entries[i];
    const before = i > start ? this.#entries[i - 1] : undefined;
    const node = this.#nodes.get(entry);
    const newDay = !before || !sameDay(before.time, entry.time);
    if (newDay) node.dataset.day = dayName(entry.time);
    else delete node.dataset.day;
    node.classList.toggle("more", !newDay && !entry.mark && !before.mark && before.sender === entry.sender &&
      before.channel === entry.channel && before.sent === entry.sent &&
      Math.floor(before.time / 60_000) === Math.floor(entry.time / 60_000));
  }

  /** Changes the document without moving what the reader looks at. */
  #hold(change) {
    if (this.#atBottom) {
      change();
      this.#root.scrollTop = this.#root.scrollHeight;
      return;
    }
    const top = this.#root.getBoundingClientRect().top;
    const seen = [...this.#items.children].find((node) => node.getBoundingClientRect().bottom > top);
    const was = seen?.getBoundingClientRect().top;
    change();
    if (seen?.isConnected) this.#root.scrollTop += seen.getBoundingClientRect().top - was;
  }

  /** Changes the document without a screen reader reading it out. */
  #silently(change) {
    this.#root.ariaLive = "off";
    change();
    setTimeout(() => { this.#root.ariaLive = "polite"; }, 100);
  }

  #label() {
    this.#newer.hidden = this.#atBottom;
    this.#newer.textContent = this.#fresh ? text("feed.newer", { count: this.#fresh }) : text("feed.latest");
  }

  #node(entry) {
    let node = this.#nodes.get(entry);
    if (!node) this.#nodes.set(entry, node = entry.mark ? this.#mark(entry) : this.#message(entry));
    return node;
  }

  #message(entry) {
    const { label, kind } = this.#describe(entry.channel, entry.sent);
    const own = entry.sender === this.#me;
    return element("article", { className: `message ${kind}`, "data-id": entry.id },
      avatar(element("span"), entry.sender || "·"),
      element("div", { className: "body" },
        element("p", { className: "head" },
          element("bdi", { className: "sender", textContent: entry.sender || text("feed.system") }),
          own ? element("span", { className: "own", textContent: text("you") }) : undefined,
          element("bdi", { className: "tag", textContent: label }),
          element("time", { dateTime: new Date(entry.time).toISOString(), title: format("full", entry.time), textContent: format("time", entry.time) })),
        element("p", { className: "content", dir: "auto", textContent: entry.content })));
  }

  #mark(entry) {
    const from = format("seconds", entry.from), to = format("seconds", entry.time);
    const detail = entry.channels.length
      ? text("mark.gap-channels", { channels: list(entry.channels.map((c) => this.#describe(c).label)) })
      : text("mark.away", { from, to });
    return element("div", { className: `mark ${entry.mark}` },
      element("p", {},
        element("strong", { textContent: text(`mark.${entry.mark}`) }), " ",
        element("span", { textContent: detail, title: text("mark.away", { from, to }) })));
  }
}
