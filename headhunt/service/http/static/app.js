// The start page: polls the service every two seconds while the page is visible, and shows what has changed.

import { Card } from "./card.js";
import { element, fill, say } from "./elements.js";
import { get } from "./server.js";
import { setUpForm } from "./submit.js";
import { clock } from "./text.js";

const POLL_SECONDS = 2;
const HEALTH_SECONDS = 10;

const cards = new Map(); // by the search's name
const states = new Map();
let newest = 0; // counts the polls: answers to older ones are discarded
let changes = 0; // counts changes by buttons: answers requested before one are out of date
let shownAt = null;
let healthAt = 0;
let timer = null;

async function poll() {
  clearTimeout(timer);
  const mine = ++newest;
  let pause = POLL_SECONDS;
  if (document.visibilityState === "visible") {
    const before = changes;
    try {
      const { searches } = await get("/searches");
      if (mine !== newest) return;
      if (before === changes) showSearches(searches);
      shownAt = new Date();
      say(place("connection"), "");
    } catch (error) {
      if (mine !== newest) return;
      const since = shownAt === null ? "" : ` Last update: ${clock(shownAt)}.`;
      say(place("connection"), `${error.message}${since}`);
      pause = Math.max(pause, error.retrySeconds ?? 0);
      healthAt = 0;
    }
    if (Date.now() - healthAt > 1000 * HEALTH_SECONDS) await showHealth();
    if (mine !== newest) return;
  }
  timer = setTimeout(poll, 1000 * pause);
}

/** Shows the cards in the order of `searches`; a card that is already in place is not touched. */
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
  const changed = searches.flatMap((search, at) => {
    const card = cards.get(search.name) ?? new Card(search.name, showChanged);
    cards.set(search.name, card);
    if (list.children[at] !== card.root) list.insertBefore(card.root, list.children[at] ?? null);
    return showSearch(card, search);
  });
  showTitle();
  tellChanges(changed);
}

/** Shows a search; returns its announcement if its state changed. */
function showSearch(card, search) {
  card.show(search);
  const before = states.get(search.name);
  states.set(search.name, search.state);
  return before === undefined || before === search.state ? [] : [`${search.name}: ${search.state}`];
}

/** Announces changes to screen readers. */
function tellChanges(changed) {
  if (changed.length > 0) place("changes").textContent = changed.join(", ");
}

/** Shows a search that the service returned after a button press or the form. */
function showChanged(search) {
  changes += 1;
  const card = cards.get(search.name) ?? new Card(search.name, showChanged);
  if (!cards.has(search.name)) place("searches").prepend(card.root);
  cards.set(search.name, card);
  place("empty").hidden = true;
  tellChanges(showSearch(card, search));
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
    health = { ...health, ...(await answer.json()) }; // also for status 503, whose body says what is wrong
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
