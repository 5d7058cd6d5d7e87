// The feed shows a long sequence of entries; a bounded part of it is in the document.
// At the bottom it follows new entries. Elsewhere it keeps its scroll position when
// entries above and below change.

import { arrange, avatar, byId, element } from "./element.js";
import { dayName, format, list, sameDay, text } from "./text.js";

/** MOST entries are in the document at once; STEP are added at a time. */
const MOST = 240;
const STEP = 60;
/** Within this distance of an end, in pixels, more entries are added. */
const NEAR = 600;
/** Within this distance of the bottom, in pixels, the reader is at the bottom. */
const CLOSE = 48;

export class Feed {
  #root = byId("feed");
  #items = byId("feed-items");
  #edge = byId("feed-edge");
  #newer = byId("newer");
  #nodes = new Map(); // of the entries in the document
  #entries = []; // all of the sequence
  #start = 0; // #entries from #start to #end are in the document
  #end = 0;
  #atBottom = true;
  #fresh = 0; // entries that came since the reader left the bottom
  #before = { key: "" };
  #loading = false;
  #earlier; // loads earlier entries; resolves to whether there are more
  #describe; // (channel, sent) to {label, kind}
  #me = "";

  /** earlier() loads earlier entries; describe(channel, sent) names a channel for this user. */
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

  /** Sets the user's own name. */
  set me(username) {
    this.#me = username;
  }

  /** Shows a sequence, scrolled to its end. */
  show(entries) {
    this.#entries = entries;
    this.#silently(() => this.toBottom());
  }

  /** Takes a sequence with entries inserted or removed anywhere, and keeps the scroll position. */
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

  /** Takes note of count live entries that were added to the sequence from index from on. */
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

  /** Shows an entry again after its text has changed. */
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

  /** Sets the text before the first entry: a key of the texts, or "". */
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

  /** Loads earlier entries if the reader is near the first one. */
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

  /** Puts the entries from start to end into the document. */
  #render(start, end) {
    const wanted = new Set(this.#entries.slice(start, end));
    for (const entry of this.#nodes.keys()) if (!wanted.has(entry)) this.#nodes.delete(entry);
    arrange(this.#items, [...wanted].map((entry) => this.#node(entry)));
    this.#start = start;
    this.#end = end;
    for (let i = start; i < end; i++) this.#regroup(i, start);
    this.#sayEdge();
  }

  /** Marks the first entry of a day, and joins messages of one sender in the same minute. */
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

  /** Changes the document and keeps the scroll position. */
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

  /** Changes the document without announcing it to screen readers. */
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
