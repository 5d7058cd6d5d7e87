// Small things about elements that every part of the page does.

export const byId = (id) => document.getElementById(id);

/** An element with properties and children. Strings become text, never markup. */
export function element(name, properties = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key.startsWith("data-")) e.setAttribute(key, value);
    else e[key] = value;
  }
  e.append(...children.filter((c) => c !== undefined));
  return e;
}

/** Makes nodes, all different, the children of a parent. What is there already and in order is not touched: it may be pressed or have the focus. */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...parent.children]) if (!wanted.has(node)) node.remove();
  let next = parent.firstElementChild;
  for (const node of wanted) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
}

/** Shows what went wrong in its place, or with "" nothing. */
export function say(e, words) {
  e.textContent = words;
  e.hidden = !words;
}

/** A circle with the first letter of a name, in a colour that goes by the name. */
export function avatar(e, name) {
  let hash = 0;
  for (const c of name) hash = (hash * 31 + c.codePointAt(0)) >>> 0;
  e.className = `avatar hue-${hash % 8}`;
  const [first] = name.replace(/^[^\p{L}\p{N}]+/u, "") || name || "·"; // by code points
  e.textContent = first.toLocaleUpperCase();
  e.ariaHidden = "true";
  return e;
}

/** Opens a dialog over the page; resolves, to what its button stands for, when it is closed. */
export function ask(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", function closed() {
      if (dialog.open) return; // it tells of the time before
      dialog.removeEventListener("close", closed);
      resolve(dialog.returnValue);
    });
  });
}

const announcer = byId("announcer");

/** Has a screen reader say something that is to be seen elsewhere, or for a moment only. */
export function announce(words) {
  announcer.textContent = "";
  // What is the same again is only noticed as a change of its own.
  setTimeout(() => { announcer.textContent = words; }, 50);
}
