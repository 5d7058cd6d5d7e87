// The two login forms: the first one, and the dialog when the session has ended. Only
// the closure of the TokenSource keeps the password.

import { login } from "./chat.js";
import { ask, byId, say } from "./element.js";
import { problem, text } from "./text.js";

/** Logs in once; returns a TokenSource that begins with the token of this login. */
async function enter(base, username, password) {
  const again = login(base, username, password);
  let first = await again({ signal: AbortSignal.timeout(30_000) });
  return (options) => {
    const token = first;
    first = undefined;
    return token ?? again(options);
  };
}

/** Runs a login form until signal aborts; resolves to {username, source} after a successful login. */
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

/** Shows the login form; resolves to {username, source} when a user has logged in. */
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

/** Asks for the password again; resolves to a TokenSource, or to undefined if the user closes the dialog. */
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
