// What is in memory of the channels, and the one sequence that is made of several
// of them.
//
// An entry is a message {id, channel, sender, content, time, at} or, with a `mark`, a
// note of the page's own. `time` is when, in ms. `at` is what orders channels among
// each other: the time, as the server has it. Within a channel the order is the
// server's.

/** How many messages a request for earlier ones asks for. */
export const PAGE = 50;

/** A channel's messages: a run without holes, up to the newest. */
export class Channel {
  entries = [];
  /** Whether the server may have earlier ones. */
  more = true;
  /** Whether it said that those before are no longer kept. */
  dropped = false;
  /** Messages since the channel was last on show. */
  unread = 0;
  size = 0; // of the contents, in UTF-16 units
  #ids = new Set();

  /** name: undefined for everyone's. */
  constructor(name) {
    this.name = name;
  }

  /** A message that came live; false when it is here already. */
  append(message) {
    if (this.#ids.has(message.id)) return false;
    this.#keep(message);
    this.entries.push(message);
    return true;
  }

  /** What comes before the entry with an id, or with "" the newest messages. */
  prepend(page, before) {
    if (before && before !== this.first) return; // meanwhile that was loaded, or forgotten
    // From the first one that is here already, all come live or came so.
    const known = page.messages.findIndex((m) => this.#ids.has(m.id));
    if (known === 0) return;
    const earlier = known < 0 ? page.messages : page.messages.slice(0, known);
    for (const message of earlier) this.#keep(message);
    this.entries.unshift(...earlier);
    this.more = page.more;
    this.dropped = Boolean(page.gap);
  }

  /** The id to ask for earlier ones by. */
  get first() {
    return this.entries[0]?.id ?? "";
  }

  /** Forgets all but the newest entries; they can be loaded again. */
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
 * The channels' entries and the notes as one sequence by time. It begins where the
 * run of every channel has begun: before that, something might be missing between.
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

/** Where a live entry goes in a sequence: by its time, but behind the last note and its own channel. */
export function place(sequence, entry) {
  let i = sequence.length;
  while (i > 0) {
    const before = sequence[i - 1];
    if (before.at <= entry.at || before.mark || before.channel === entry.channel) break;
    i--;
  }
  return i;
}

/** The channel whose earlier messages are to be loaded next, if any has some. */
export function hindmost(channels) {
  let found;
  for (const c of channels) {
    if (!c.more) continue;
    if (!c.entries.length) return c;
    if (!found || c.entries[0].at > found.entries[0].at) found = c;
  }
  return found;
}
