// A client for the chat service: one socket that heals itself. The service serves
// it as chat.js; what goes over the wire is in docs/protocol.md.

/** Who is on a socket, and in what role. */
export interface User {
  username: string;
  /** "admin" or any other. */
  role: string;
}

/** A message as the service tells it. Its content is text, whatever it looks like: show it as text. */
export interface Message {
  /** Opaque; names a place in a channel. */
  id: string;
  /** Absent: to everyone. */
  channel?: string;
  /** Empty where the service itself spoke. */
  sender: string;
  content: string;
  /** RFC 3339, UTC, milliseconds. */
  time: string;
}

/** A user's first socket came, or the last one went. */
export interface Presence extends User {
  /** Absent: to the service as a whole. */
  channel?: string;
  /** RFC 3339, UTC, milliseconds. */
  time: string;
}

/** A user who is connected. */
export interface Connected extends User {
  /** How many sockets. */
  connections: number;
  /** When the first of these came: RFC 3339, UTC, milliseconds. */
  since: string;
}

/** A part of what is kept of a channel. */
export interface Page {
  /** Oldest first. */
  messages: Message[];
  /** There are further messages in the direction that was asked for. */
  more: boolean;
  /** Messages right before these are no longer kept or, with `before`, between these and it. */
  gap?: boolean;
}

/**
 * Gives a token whenever one is needed: for the first connection, well before the
 * end of the one before, and when that was refused. A token is used for as long as
 * it holds, also to connect again.
 *
 * One that is refused although it is new is followed by the next one, which is used
 * a second or two after it was given, as clocks may differ; if that is refused too, the
 * Chat ends.
 *
 * It throws a ChatError of kind "unauthenticated" to say that there will be no
 * other token, which ends the Chat, as forbidden, invalid and not_found do; after
 * any other error it is asked again later.
 * The signal comes when the Chat is closed.
 */
export type TokenSource = (options: { signal: AbortSignal }) => string | Promise<string>;

export interface Options {
  /**
   * A token, or what gives one. With a token alone the Chat ends when that does.
   * It goes by subprotocol and by header, never in an address, and may hold the
   * characters of an RFC 9110 token, which those of a JWT are.
   */
  token: string | TokenSource;
  /** Channels to be in from the start, beside everyone's and the user's own. */
  channels?: Iterable<string>;
  /** Ids to resume from: `since` of an earlier Chat in the same `channels`, both in its order. */
  since?: Iterable<string>;
  /** The first wait before it connects again is up to so many ms (500), each further one up to twice as many as the one before, but not more than maxDelay (30,000). */
  minDelay?: number;
  maxDelay?: number;
  /** Other implementations, such as npm's ws below Node 22. Default: the global ones. */
  WebSocket?: new (url: string | URL, protocols?: string | string[]) => object;
  fetch?: typeof globalThis.fetch;
}

/** connecting: a socket is being opened; open; waiting: for the next try; closed: for good. */
export type State = "connecting" | "open" | "waiting" | "closed";

/** What a Chat tells of, in order. */
export interface ChatEventMap {
  /** A socket is open, and in all channels. resumed: true: nothing was missed since the one before; false: a gap comes next; undefined: there was none before. */
  open: CustomEvent<{ user: User; session: string; resumed?: boolean }>;
  /** Each message of a channel comes once, and in the channel's order. */
  message: CustomEvent<Message>;
  joined: CustomEvent<Presence>;
  left: CustomEvent<Presence>;
  /**
   * Messages of a channel (absent: everyone's) were missed and are not all kept.
   * It comes before any message behind the gap. What is still kept of those that
   * were missed comes next.
   */
  gap: CustomEvent<{ channel?: string }>;
  /** The connection is gone or could not be had; another try comes in `delay` ms. */
  waiting: CustomEvent<{ error: ChatError; delay: number }>;
  /** It ended for good: by close() (no error), or for the reason that is the error. */
  close: CustomEvent<{ error?: ChatError }>;
}

/**
 * - unauthenticated: the token does not hold, and there is no other
 * - disconnected: by an admin
 * - replaced: by a newer socket of this user
 * - forbidden, invalid, too_large, rate_limited, not_joined, unavailable: as the
 *   service answered, or closed the socket
 * - not_found: the service has no such route
 * - unconfirmed: it was sent, and no answer came: it may have been stored. It is
 *   not sent again
 * - protocol: what came makes no sense
 * - closed: close() was called
 * - network: there is no connection, or it was lost
 */
export type ErrorKind =
  | "unauthenticated" | "disconnected" | "replaced"
  | "forbidden" | "invalid" | "too_large" | "rate_limited" | "not_joined" | "unavailable" | "not_found"
  | "unconfirmed" | "protocol" | "closed" | "network";

/** What went wrong. No message holds a token or a password. */
export class ChatError extends Error {
  constructor(kind: ErrorKind, message: string, options?: { code?: number; retryAfter?: number; cause?: unknown });
  readonly kind: ErrorKind;
  /** HTTP status or close code, where there was one. */
  readonly code?: number;
  /** Seconds that the service asks to wait. */
  readonly retryAfter?: number;
}

/**
 * A connection to the service. When it is lost it is made again, with growing waits,
 * and goes on where it was. It ends by close(), or with an error when there is no
 * use in going on: unauthenticated, disconnected, replaced, forbidden (a channel or
 * the page's origin), invalid (a channel's name), not_found (no service there),
 * too_large (the token is longer than a proxy on the way takes).
 *
 * Channels that have no room in the address of the handshake, of 2 KiB, are joined
 * behind it, about 15 a second.
 *
 * Promises are rejected with a ChatError, or with the reason of a signal that was
 * aborted. Whoever aborts what was sent already cannot know whether it is carried
 * out. Closed, a Chat leaves no timer, listener or socket behind.
 */
export class Chat extends EventTarget {
  /**
   * Connects at once.
   * @param url Where the service is mounted, such as https://example.com/chat/; in a browser it may be relative.
   * @throws TypeError when an argument makes no sense.
   */
  constructor(url: string | URL, options: Options);
  readonly state: State;
  /** Who the service says one is; undefined until the first open. */
  readonly user: User | undefined;
  /** The channels that it is in, beside everyone's and the user's own. */
  readonly channels: string[];
  /** The id of the last message of each channel, everyone's and the user's own first, to resume from in another Chat. */
  readonly since: string[];
  /**
   * Resolves to the message's id once it is stored and handed on. Waits while there
   * is no connection; if that is lost before the answer comes it is unconfirmed.
   */
  broadcast(content: string, options?: { channel?: string; signal?: AbortSignal }): Promise<string>;
  /** Resolves once messages of the channel come; with since, those behind that id first, unless it is joined already. */
  join(channel: string, options?: { since?: string; signal?: AbortSignal }): Promise<void>;
  /** Resolves when no more messages of the channel come. */
  leave(channel: string, options?: { signal?: AbortSignal }): Promise<void>;
  /** What is kept of a channel: right behind the id after, or right before the id before ("": the newest). limit: 100, at most 1000. */
  messages(query?: { channel?: string; after?: string; before?: string; limit?: number; signal?: AbortSignal }): Promise<Page>;
  /** For admins: who is connected, or in a channel, by name. */
  connected(options?: { channel?: string; signal?: AbortSignal }): Promise<Connected[]>;
  /** For admins: closes a user's sockets, and resolves to how many there were. */
  disconnect(username: string, options?: { signal?: AbortSignal }): Promise<number>;
  /** Tries again now rather than when the wait is over. */
  reconnect(): void;
  /** Ends it. What waits for an answer is rejected. */
  close(): void;
  addEventListener<K extends keyof ChatEventMap>(type: K, listener: (event: ChatEventMap[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof ChatEventMap>(type: K, listener: (event: ChatEventMap[K]) => void, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/**
 * A TokenSource that logs in with a password, at POST /login.
 * @param url Where the service is mounted, as for Chat.
 */
export function login(url: string | URL, username: string, password: string, options?: { fetch?: typeof globalThis.fetch }): TokenSource;
