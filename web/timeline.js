// The messages of each channel in memory, and the merge of several channels into one
// sequence.
//
// An entry is a message {id, channel, sender, content, time, at} or a note of the web
// client itself, which has a `mark` or is `sent`. `time` is in ms. `at` is the server's
// time and orders entries of different channels. Within a channel the server decides the
// order.

/** How many messages a page of the history has. */
export const PAGE = 50;

/** The messages of a channel without holes, up to the newest one. */
export class Channel {
  entries = [];
  /** Whether the server may have earlier messages. */
  more = true;
  /** Whether the server said that earlier messages are no longer kept. */
  dropped = false;
  /** How many messages came since the channel was last on screen. */
  unread = 0;
  size = 0; // of all contents, in UTF-16 code units
  #ids = new Set();

  /** name is undefined for everyone's channel. */
  constructor(name) {
    this.name = name;
  }

  /** Adds a live message; returns false if it is in the channel already. */
  append(message) {
    if (this.#ids.has(message.id)) return false;
    this.#keep(message);
    this.entries.push(message);
    return true;
  }

  /** Adds a page of messages before the entry with the id before; "": the newest messages. */
  prepend(page, before) {
    if (before && before !== this.first) return; // another request loaded this page, or trim removed the entry
    // From the first known message on, the rest is in the channel already.
    const known = page.messages.findIndex((m) => this.#ids.has(m.id));
    if (known === 0) return;
    const earlier = known < 0 ? page.messages : page.messages.slice(0, known);
    for (const message of earlier) this.#keep(message);
    this.entries.unshift(...earlier);
    this.more = page.more;
    this.dropped = Boolean(page.gap);
  }

  /** The id of the first entry, to request earlier ones; "" if there is none. */
  get first() {
    return this.entries[0]?.id ?? "";
  }

  /** Removes all but the newest count entries; they can be loaded again. */
  trim(count) {
    const old = this.entries.splice(0, this.entries.length - count);
    for (const message of old) {
      this.#ids.delete(message.id);
      this.size -= message.content.length;
    }
    if (old.length) this.more = true;
  }

  #keep(message) {
    this.#ids.add(message.id);
    this.size += message.content.length;
  }
}

/**
 * Merges the entries of channels and the notes by time. The result begins where all
 * channels are loaded: before that point, entries may be missing.
 */
export function merge(channels, notes) {
  const begun = new Set(channels.filter((c) => c.more && c.entries.length).map((c) => c.entries[0]));
  const lists = [...channels.map((c) => c.entries), notes].filter((l) => l.length);
  const next = lists.map(() => 0);
  const merged = [];
  let start = 0;
  for (;;) {
    let least = -1;
    for (let i = 0; i < lists.length; i++) {
      const entry = lists[i][next[i]];
      if (entry && (least < 0 || entry.at < lists[least][next[least]].at)) least = i;
    }
    if (least < 0) return merged.slice(start);
    const entry = lists[least][next[least]++];
    if (begun.has(entry)) start = merged.length;
    merged.push(entry);
  }
}

/** Returns the index of a live entry in a sequence: by its time, but after the last mark and after its own channel. */
export function place(sequence, entry) {
  let i = sequence.length;
  while (i > 0) {
    const before = sequence[i - 1];
    if (before.at <= entry.at || before.mark || before.channel === entry.channel) break;
    i--;
  }
  return i;
}

/** Returns the channel whose earlier messages are to be loaded next, if any channel has some. */
export function hindmost(channels) {
  let found;
  for (const c of channels) {
    if (!c.more) continue;
    if (!c.entries.length) return c;
    if (!found || c.entries[0].at > found.entries[0].at) found = c;
  }
  return found;
}
