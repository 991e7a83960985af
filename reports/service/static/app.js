// The start page: asks the service every two seconds while someone looks, and shows what has changed.

import { Card } from "./card.js";
import { element, fill, say } from "./elements.js";
import { get } from "./server.js";
import { setUpForm } from "./submit.js";
import { clock } from "./text.js";

const POLL_SECONDS = 2;
const HEALTH_SECONDS = 10;

const cards = new Map(); // by the search's name
const states = new Map();
let changes = 0; // grows when a button has changed something: an answer asked for before that is out of date
let shownAt = null;
let healthAt = 0;
let timer = null;

async function poll() {
  clearTimeout(timer);
  let pause = POLL_SECONDS;
  if (document.visibilityState === "visible") {
    const before = changes;
    try {
      const { searches } = await get("/searches");
      if (before === changes) showSearches(searches);
      shownAt = new Date();
      say(place("connection"), "");
    } catch (error) {
      const since = shownAt === null ? "" : ` What is shown is from ${clock(shownAt)}.`;
      say(place("connection"), `${error.message}${since}`);
      pause = Math.max(pause, error.retrySeconds ?? 0);
      healthAt = 0;
    }
    if (Date.now() - healthAt > 1000 * HEALTH_SECONDS) await showHealth();
  }
  clearTimeout(timer);
  timer = setTimeout(poll, 1000 * pause);
}

/** The cards in the order of `searches`; a card that is in its place already is not touched. */
function showSearches(searches) {
  const list = place("searches");
  place("loading").hidden = true;
  place("empty").hidden = searches.length > 0;
  const names = new Set(searches.map(({ name }) => name));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    card.remove();
    cards.delete(name);
    states.delete(name);
  }
  searches.forEach((search, at) => {
    const card = cards.get(search.name) ?? new Card(search.name, showChanged);
    cards.set(search.name, card);
    if (list.children[at] !== card.root) list.insertBefore(card.root, list.children[at] ?? null);
    showSearch(card, search);
  });
  showTitle();
}

function showSearch(card, search) {
  card.show(search);
  const before = states.get(search.name);
  states.set(search.name, search.state);
  if (before !== undefined && before !== search.state) place("changes").textContent = `${search.name}: ${search.state}`;
}

/** A search as the service gives it back after a button or the form. */
function showChanged(search) {
  changes += 1;
  const card = cards.get(search.name) ?? new Card(search.name, showChanged);
  if (!cards.has(search.name)) place("searches").prepend(card.root);
  cards.set(search.name, card);
  place("empty").hidden = true;
  showSearch(card, search);
  showTitle();
}

function showTitle() {
  const running = [...states.values()].filter((state) => state === "running").length;
  document.title = running > 0 ? `${running} running · Headhunt` : "Headhunt";
}

async function showHealth() {
  healthAt = Date.now();
  let health = { ray: "unknown", storage: "unknown", version: "" };
  try {
    const answer = await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(20_000) });
    health = { ...health, ...(await answer.json()) }; // 503 where something is wrong: its text says what
  } catch {
    healthAt = 0; // ask again with the next poll
  }
  fill(place("health"), [health.ray, health.storage], ([ray, storage]) => [
    element("span", { class: ray === "ok" ? "good" : "bad" }, `Ray: ${ray}`),
    element("span", { class: storage === "ok" ? "good" : "bad" }, `storage: ${storage}`),
  ]);
  if (health.version) say(place("version"), `headhunt ${health.version}`);
}

function place(id) {
  return document.getElementById(id);
}

say(place("origin"), location.origin);
setUpForm(showChanged);
document.addEventListener("visibilitychange", poll);
poll();
