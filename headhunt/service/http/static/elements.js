// Changes to the page that leave alone what has not changed: selections, scroll positions and focus survive.

/** A new element; what the server sent arrives as text or as the value of an attribute, never as markup. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Puts `text` into a node; one without text is hidden. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
  node.hidden = text === "";
}

/** As `say`, with what stands between backticks as code. */
export function tell(node, text) {
  node.hidden = text === "";
  fill(node, text, () => text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part)));
}

/** Sets an attribute, or takes it away where the value is null. */
export function attribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Says in `note` that something is being sent, where its answer takes longer than a moment. */
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

/** Replaces a node's children by `make(value)`, where the value is another than last time. */
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
