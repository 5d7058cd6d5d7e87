// A client for the chat service: one socket that reconnects by itself. The service
// serves the client as chat.js. docs/protocol.md describes the wire protocol.

/** The user of a socket. */
export interface User {
  username: string;
  /** "admin" or another role. */
  role: string;
}

/** A message of the service. Its content is plain text: show it as text, never as HTML. */
export interface Message {
  /** Opaque; names a position in a channel. */
  id: string;
  /** Absent: everyone's channel. */
  channel?: string;
  /** Empty if the service published without a sender. */
  sender: string;
  content: string;
  /** RFC 3339, UTC, milliseconds. */
  time: string;
}

/** A join (the user's first socket) or a leave (the last one). */
export interface Presence extends User {
  /** Absent: the service as a whole. */
  channel?: string;
  /** RFC 3339, UTC, milliseconds. */
  time: string;
}

/** A connected user. */
export interface Connected extends User {
  /** The number of the user's sockets. */
  connections: number;
  /** When the first of these sockets connected: RFC 3339, UTC, milliseconds. */
  since: string;
}

/** A page of a channel's history. */
export interface Page {
  /** Oldest first. */
  messages: Message[];
  /** Whether there are further messages in the requested direction. */
  more: boolean;
  /** Messages right before this page are no longer kept; with `before`, also messages between the page and that id. */
  gap?: boolean;
}

/**
 * Returns a token. The Chat calls the source for the first connection, well before the
 * current token expires, and after a refused token. The Chat uses a token until it
 * expires, also to reconnect.
 *
 * If a new token is refused, the Chat asks for another one and uses it a second or two
 * later, because clocks may differ. If that token is refused too, the Chat ends.
 *
 * To end the Chat, the source throws a ChatError of kind "unauthenticated", "forbidden",
 * "invalid" or "not_found". After any other error the Chat calls the source again later.
 * The signal is aborted when the Chat is closed.
 */
export type TokenSource = (options: { signal: AbortSignal }) => string | Promise<string>;

export interface Options {
  /**
   * A token, or a source of tokens. With a single token the Chat ends when it expires.
   * The token is sent in a subprotocol or a header, never in an address. It consists of
   * the characters of an RFC 9110 token, as a JWT does.
   */
  token: string | TokenSource;
  /** Channels to join from the start, besides everyone's and the user channel. */
  channels?: Iterable<string>;
  /** Ids to resume from: `since` of an earlier Chat with the same `channels`, in the same order. */
  since?: Iterable<string>;
  /** The longest first wait before a reconnect, in ms; default 500. Each further wait may be twice as long. */
  minDelay?: number;
  /** The longest wait before a reconnect, in ms; default 30,000. */
  maxDelay?: number;
  /** Another WebSocket implementation, such as npm's ws below Node 22. Default: the global one. */
  WebSocket?: new (url: string | URL, protocols?: string | string[]) => object;
  /** Another fetch. Default: the global one. */
  fetch?: typeof globalThis.fetch;
}

/** connecting: a socket is opening; open: messages come; waiting: for the next attempt; closed: the Chat has ended. */
export type State = "connecting" | "open" | "waiting" | "closed";

/** The events of a Chat, in order. */
export interface ChatEventMap {
  /** A socket is open and in all channels. resumed is true if no message was missed, false if a gap comes next, and undefined if there was nothing to resume. */
  open: CustomEvent<{ user: User; session: string; resumed?: boolean }>;
  /** A message. Each message of a channel comes once and in the channel's order. */
  message: CustomEvent<Message>;
  joined: CustomEvent<Presence>;
  left: CustomEvent<Presence>;
  /**
   * Messages of a channel (absent: everyone's) were missed and are not all kept. The
   * event comes before any message behind the gap. Missed messages that are still kept
   * come next.
   */
  gap: CustomEvent<{ channel?: string }>;
  /** The connection was lost or could not be opened; the Chat tries again in `delay` ms. */
  waiting: CustomEvent<{ error: ChatError; delay: number }>;
  /** The Chat has ended: by close() without an error, or because of the error. */
  close: CustomEvent<{ error?: ChatError }>;
}

/**
 * - unauthenticated: the token is invalid or has expired, and there is no other
 * - disconnected: an admin disconnected the user
 * - replaced: a newer socket of this user replaced this one
 * - forbidden, invalid, too_large, rate_limited, not_joined, unavailable: the service
 *   answered or closed the socket with this code
 * - not_found: the service has no such route
 * - unconfirmed: the message was sent and not answered. It may have been stored; the
 *   Chat does not send it again
 * - protocol: the service sent something that the protocol does not allow
 * - closed: close() was called
 * - network: there is no connection, or it was lost
 */
export type ErrorKind =
  | "unauthenticated" | "disconnected" | "replaced"
  | "forbidden" | "invalid" | "too_large" | "rate_limited" | "not_joined" | "unavailable" | "not_found"
  | "unconfirmed" | "protocol" | "closed" | "network";

/** An error of this module. Its message contains no token and no password. */
export class ChatError extends Error {
  constructor(kind: ErrorKind, message: string, options?: { code?: number; retryAfter?: number; cause?: unknown });
  readonly kind: ErrorKind;
  /** The HTTP status or close code, if there was one. */
  readonly code?: number;
  /** The wait that the service asks for, in seconds. */
  readonly retryAfter?: number;
}

/**
 * A connection to the service. After a lost connection the Chat reconnects, with growing
 * waits, and resumes. It ends by close(), or with an error that a retry cannot solve:
 * unauthenticated, disconnected, replaced, forbidden (a channel or the page's origin),
 * invalid (a channel's name), not_found (no service at the address) or too_large (the
 * token is longer than a proxy accepts).
 *
 * Channels that do not fit into the address of the handshake, which is limited to 2 KiB,
 * are joined after the welcome, about 15 a second.
 *
 * Promises are rejected with a ChatError, or with the reason of an aborted signal. After
 * a command was sent, an abort does not tell whether the service executed it. A closed
 * Chat leaves no timer, listener or socket behind.
 */
export class Chat extends EventTarget {
  /**
   * Connects at once.
   * @param url Where the service is mounted, such as https://example.com/chat/; in a browser it may be relative.
   * @throws TypeError if an argument is invalid.
   */
  constructor(url: string | URL, options: Options);
  readonly state: State;
  /** The user as the service knows them; undefined until the first open. */
  readonly user: User | undefined;
  /** The joined channels, without everyone's and the user channel. */
  readonly channels: string[];
  /** The last id of each channel, to resume from in another Chat; everyone's first, then the user channel, then `channels`. */
  readonly since: string[];
  /**
   * Publishes a message; resolves to its id once it is stored and published. Waits while
   * there is no connection. If the connection is lost before the answer, the promise is
   * rejected with unconfirmed.
   */
  broadcast(content: string, options?: { channel?: string; signal?: AbortSignal }): Promise<string>;
  /** Joins a channel; resolves once its messages come. With since, messages behind that id come first, unless the channel is joined already. */
  join(channel: string, options?: { since?: string; signal?: AbortSignal }): Promise<void>;
  /** Leaves a channel; resolves once no more messages of it come. */
  leave(channel: string, options?: { signal?: AbortSignal }): Promise<void>;
  /** Reads a page of a channel's history: right behind the id after, or right before the id before ("": the newest). limit is 100 by default, at most 1000. */
  messages(query?: { channel?: string; after?: string; before?: string; limit?: number; signal?: AbortSignal }): Promise<Page>;
  /** For admins: lists the users who are connected, or in a channel, sorted by name. */
  connected(options?: { channel?: string; signal?: AbortSignal }): Promise<Connected[]>;
  /** For admins: closes a user's sockets; resolves to their number. */
  disconnect(username: string, options?: { signal?: AbortSignal }): Promise<number>;
  /** Reconnects now instead of after the wait. */
  reconnect(): void;
  /** Ends the Chat. Promises that wait for an answer are rejected. */
  close(): void;
  addEventListener<K extends keyof ChatEventMap>(type: K, listener: (event: ChatEventMap[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof ChatEventMap>(type: K, listener: (event: ChatEventMap[K]) => void, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/**
 * Returns a TokenSource that logs in with a password at POST /login.
 * @param url Where the service is mounted, as for Chat.
 */
export function login(url: string | URL, username: string, password: string, options?: { fetch?: typeof globalThis.fetch }): TokenSource;
