// Updates of the page that touch only what has changed, so that selections, scroll positions and focus survive.

/** A new element; data from the server is inserted as text or attribute values, never as markup. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Sets a node's text; an empty node is hidden. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
  node.hidden = text === "";
}

/** Like `say`, with text between backticks as code. */
export function tell(node, text) {
  node.hidden = text === "";
  fill(node, text, () => text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part)));
}

/** Sets an attribute, or removes it if the value is null. */
export function attribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Shows "Sending…" in `note` if the answer takes longer than a moment. */
export async function sending(note, answer) {
  const moment = setTimeout(() => (note.textContent = "Sending…"), 300);
  try {
    return await answer;
  } finally {
    clearTimeout(moment);
    note.textContent = "";
  }
}

const shown = new WeakMap();

/** Replaces a node's children by `make(value)` if the value has changed since the last call. */
export function fill(node, value, make) {
  const key = JSON.stringify(value);
  if (shown.get(node) === key) return;
  shown.set(node, key);
  node.replaceChildren(...make(value));
}

/** A table; `columns` are [title, isNumber] pairs. */
export function table(columns, rows) {
  const cell = (tag) => (text, column) => element(tag, columns[column][1] ? { class: "number" } : {}, text);
  const head = element("tr", {}, ...columns.map(([title]) => title).map(cell("th")));
  const body = rows.map((row) => element("tr", {}, ...row.map(cell("td"))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}
