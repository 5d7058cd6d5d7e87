// Logging in, at first and again. The password stays in the closure of the
// TokenSource, and nowhere else.

import { login } from "./chat.js";
import { ask, byId, say } from "./element.js";
import { problem, text } from "./text.js";

/** Logs in once, and gives a TokenSource that begins with the token of that. */
async function enter(base, username, password) {
  const again = login(base, username, password);
  let first = await again({ signal: AbortSignal.timeout(30_000) });
  return (options) => {
    const token = first;
    first = undefined;
    return token ?? again(options);
  };
}

/** Runs a form that logs in, until signal; resolves to {username, source} when that has worked. */
function run(form, { base, username, password, trouble, button, signal }) {
  return new Promise((resolve) => {
    let busy = false;
    const submit = async (event) => {
      event.preventDefault();
      if (busy) return;
      busy = true;
      say(trouble, "");
      button.textContent = text("login.busy");
      try {
        const name = username.value;
        const source = await enter(base, name, password.value);
        password.value = "";
        resolve({ username: name, source });
      } catch (error) {
        say(trouble, error.kind === "unauthenticated" ? text("login.refused") : problem(error));
        password.select();
      } finally {
        busy = false;
        button.textContent = text("login.button");
      }
    };
    form.addEventListener("submit", submit, { signal });
  });
}

/** Shows the page's first form until somebody has logged in. */
export async function logIn(base) {
  const button = byId("login-button"), username = byId("username");
  const done = new AbortController();
  byId("login").hidden = false;
  username.focus();
  const entered = await run(byId("login-form"), {
    base, username, password: byId("password"), trouble: byId("login-problem"), button, signal: done.signal,
  });
  done.abort();
  byId("login").hidden = true;
  return entered;
}

/** Asks for the password again; resolves to a TokenSource, or to undefined when the dialog was closed. */
export function logInAgain(base, name) {
  const dialog = byId("again"), username = byId("again-username"), password = byId("again-password");
  username.value = name;
  password.value = "";
  say(byId("again-problem"), "");
  const closing = new AbortController();
  const closed = ask(dialog).then(() => {
    closing.abort();
    password.value = "";
  });
  password.focus();
  const entered = run(byId("again-form"), {
    base, username, password, trouble: byId("again-problem"), button: byId("again-button"), signal: closing.signal,
  }).then(({ source }) => {
    if (!closing.signal.aborted) dialog.close();
    return source;
  });
  return Promise.race([entered, closed]);
}
