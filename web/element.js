// Functions on elements that all parts of the web client use.

export const byId = (id) => document.getElementById(id);

/** Creates an element with properties and children. Strings become text, never markup. */
export function element(name, properties = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key.startsWith("data-")) e.setAttribute(key, value);
    else e[key] = value;
  }
  e.append(...children.filter((c) => c !== undefined));
  return e;
}

/** Makes distinct nodes the children of a parent. Children that are already in order are not touched: one may be pressed or have the focus. */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const node of [...parent.children]) if (!wanted.has(node)) node.remove();
  let next = parent.firstElementChild;
  for (const node of wanted) {
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
  }
}

/** Shows words in an element; hides the element if they are empty. */
export function say(e, words) {
  e.textContent = words;
  e.hidden = !words;
}

/** Makes an element a circle with the first letter of a name, in a colour derived from the name. */
export function avatar(e, name) {
  let hash = 0;
  for (const c of name) hash = (hash * 31 + c.codePointAt(0)) >>> 0;
  e.className = `avatar hue-${hash % 8}`;
  const [first] = name.replace(/^[^\p{L}\p{N}]+/u, "") || name || "·"; // by code points
  e.textContent = first.toLocaleUpperCase();
  e.ariaHidden = "true";
  return e;
}

/** Opens a modal dialog; resolves to the value of the pressed button when the dialog is closed. */
export function ask(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", function closed() {
      if (dialog.open) return; // the event belongs to an earlier close
      dialog.removeEventListener("close", closed);
      resolve(dialog.returnValue);
    });
  });
}

const announcer = byId("announcer");

/** Makes a screen reader say words that the page shows elsewhere or not at all. */
export function announce(words) {
  announcer.textContent = "";
  // A screen reader ignores the same words again unless the text was empty before.
  setTimeout(() => { announcer.textContent = words; }, 50);
}
