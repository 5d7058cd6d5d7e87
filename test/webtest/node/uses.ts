// A program that uses all that chat.d.ts declares, for tsc to look at.
import {
  Chat, ChatError, login,
  type ChatEventMap, type Connected, type ErrorKind, type Message, type Options, type Page, type Presence, type State, type TokenSource, type User,
} from "../../../web/chat.js";

const password: TokenSource = login(new URL("https://localhost:8443/"), "ana", "secret", { fetch });
const own: TokenSource = async ({ signal }) => {
  signal.throwIfAborted();
  const cause = new Error("401");
  throw new ChatError("unauthenticated", "the session is over", { code: 401, retryAfter: 5, cause });
};
const options: Options = { token: "t", channels: new Set(["ops"]), since: ["1-e"], minDelay: 1, maxDelay: 2, WebSocket, fetch };
const chats: Chat[] = [new Chat("chat/", options), new Chat(new URL("https://localhost/"), { token: own }), new Chat("/", { token: password })];
const [chat] = chats as [Chat];

chat.addEventListener("open", ({ detail: { user, session, resumed } }) => console.log(user.username, user.role, session.length, resumed === true));
chat.addEventListener("message", (event) => {
  const { id, channel, sender, content, time }: Message = event.detail;
  console.log(id.length, channel?.length, sender.length, content.length, Date.parse(time));
}, { once: true });
const seen = ({ detail: { username, role, channel, time } }: ChatEventMap["joined"]) => console.log(username, role, channel, time);
chat.addEventListener("joined", seen);
chat.removeEventListener("joined", seen);
chat.addEventListener("left", ({ detail }) => { const who: Presence = detail; console.log(who.username); });
chat.addEventListener("gap", ({ detail }) => console.log(detail.channel ?? "everyone's"));
chat.addEventListener("waiting", ({ detail: { error, delay } }) => console.log(error.kind, error.message, delay.toFixed()));
chat.addEventListener("close", ({ detail: { error } }) => {
  const kind: ErrorKind | undefined = error?.kind;
  const numbers: (number | undefined)[] = [error?.code, error?.retryAfter];
  console.log(kind, numbers);
});

const state: State = chat.state;
const user: User | undefined = chat.user;
const names: string[] = [...chat.channels, ...chat.since, state, user?.role ?? ""];
const { signal } = new AbortController();
const id: string = await chat.broadcast("hello", { channel: "ops", signal });
await chat.join("ops", { since: id, signal });
await chat.leave("ops", { signal });
const page: Page = await chat.messages({ channel: "ops", after: id, before: "", limit: 10, signal });
console.log(names, page.messages.map(({ content }) => content), page.more, page.gap === true);
const users: Connected[] = await chat.connected({ channel: "ops", signal });
console.log(users.map(({ username, role, connections, since }) => [username, role, connections.toFixed(), since.length]));
const closed: number = await chat.disconnect("eva", { signal });
console.log(closed);
chat.reconnect();
chat.close();

// @ts-expect-error: a Chat needs a token
new Chat("/", {});
// @ts-expect-error: no such event
const wrong: keyof ChatEventMap = "messages";
// @ts-expect-error: what it is in is not set from outside
chat.channels = [];
console.log(wrong);
