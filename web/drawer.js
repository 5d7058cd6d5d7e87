// The columns on both sides of the feed. In a narrow window they are drawers over it.

import { byId } from "./element.js";

const shade = byId("shade");
const columns = [byId("side"), byId("pane"), byId("people")];
let open; // the open drawer, if any

/** Makes an element a drawer while the media query narrow matches. */
export function drawer(panel, opener, closer, narrow) {
  const media = matchMedia(narrow);
  const self = {
    open() {
      if (!media.matches) return;
      open?.close();
      open = self;
      panel.classList.add("open");
      opener.ariaExpanded = "true";
      shade.hidden = false;
      for (const column of columns) column.inert = column !== panel;
      closer.focus();
    },
    close() {
      if (open !== self) return;
      open = undefined;
      panel.classList.remove("open");
      opener.ariaExpanded = "false";
      shade.hidden = true;
      for (const column of columns) column.inert = false;
      opener.focus();
    },
  };
  opener.addEventListener("click", () => self.open());
  closer.addEventListener("click", () => self.close());
  shade.addEventListener("click", () => self.close());
  media.addEventListener("change", () => self.close());
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented && !document.querySelector("dialog[open]")) self.close();
  });
  return self;
}
