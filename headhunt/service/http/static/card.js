// One search on the page.

import { draw } from "./curve.js";
import { attribute, element, fill, say, sending, table, tell } from "./elements.js";
import { LIVE, Log } from "./log.js";
import { get, post, Refused, searchPath } from "./server.js";
import { count, day, duration, objectiveName, paramName, score, share, short } from "./text.js";

const STAGES = {
  prepare: "preparing the data set",
  cache: "computing the feature cache",
  search: "searching",
  promote: "fine-tuning",
  export: "exporting",
  report: "building the report",
};

const DOUBLE_CLICK = 600; // milliseconds

export class Card {
  #path;
  #search = null;
  #job = null; // the search's last job
  #history = null;
  #inView = false;
  #fetched = new Map(); // what was fetched, and the state of the search at that time
  #fetching = new Set();
  #asking = false;
  #onChange;

  /** `onChange` receives the search that the service returns after a button press. */
  constructor(name, onChange) {
    this.#path = searchPath(name);
    this.#onChange = onChange;
    this.root = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.root.id = `search-${name}`;
    this.root.setAttribute("aria-label", name);
    this.part("h3").textContent = name;
    this.#listen();
    this.log = new Log(this.part(".log"), this.#path);
    this.sizes = new ResizeObserver(() => this.#drawCurve());
    this.sizes.observe(this.part("figure"));
    this.views = new IntersectionObserver((entries) => {
      this.#inView = entries.at(-1).isIntersecting;
      this.#showCurve();
      this.#showExports();
    });
    this.views.observe(this.root);
  }

  part(selector) {
    return this.root.querySelector(selector);
  }

  remove() {
    this.log.stop();
    this.sizes.disconnect();
    this.views.disconnect();
    this.root.remove();
  }

  show(search) {
    const focused = this.root.contains(document.activeElement) ? document.activeElement : null;
    const before = this.#job;
    this.#search = search;
    this.#job = search.jobs.at(-1);
    if (before && work(before) !== work(this.#job)) tell(this.part(":scope > .fault"), ""); // it referred to the old state
    attribute(this.root, "data-state", search.state);
    say(this.part(".state"), search.state);
    say(this.part(".stage"), STAGES[search.stage] ?? search.stage ?? "");
    say(this.part("time"), day(search.created));
    attribute(this.part("time"), "datetime", search.created);
    tell(this.part(".message"), search.message ?? "");
    this.#showTrials(search);
    this.#showBest(search);
    this.#showActions(search);
    this.#showCurve();
    this.#showExports();
    this.#showPanels();
    this.log.show(search.jobs);
    if (focused?.closest("[hidden]")) this.part("h3").focus(); // keep the focus when its button is hidden
  }

  #showTrials({ stage, trials, trials_per_minute: rate }) {
    const ended = trials.complete + trials.pruned + trials.failed + trials.added;
    const progress = this.part("progress");
    progress.hidden = !trials.total;
    attribute(progress, "max", trials.total || 1);
    attribute(progress, "value", Math.min(ended, trials.total || 1));
    const kinds = ["complete", "pruned", "failed", "running", "added"].filter((kind) => trials[kind]);
    const unfinished = stage === "search" ? "running" : "unfinished"; // the storage calls them running until the search resumes
    const words = [
      trials.total ? `${ended} of ${count(trials.total, "trial")} ended` : `${count(ended, "trial")} ended`,
      kinds.map((kind) => `${trials[kind]} ${{ running: unfinished, added: "added by others" }[kind] ?? kind}`).join(", "),
      Number.isFinite(rate) ? `${short(rate)} trials per minute` : "",
    ];
    say(this.part(".counts"), words.filter(Boolean).join(" · "));
  }

  #showBest({ best, objective }) {
    this.part(".sides").hidden = !best;
    if (!best) return;
    say(this.part(".value"), score(objective, best.value));
    say(this.part(".what"), `best ${objectiveName(objective)} so far, trial ${best.number}`);
    fill(this.part(".params"), best.params, (params) =>
      Object.entries(params).map(([name, value]) =>
        element("div", {}, element("dt", {}, paramName(name)), element("dd", {}, short(value))),
      ),
    );
  }

  #showActions({ state, trials, study_id: study, report }) {
    const live = LIVE.includes(state);
    this.part(".stop").hidden = !live || state === "stopping";
    this.part(".resume").hidden = !["stopped", "failed", "interrupted"].includes(state);
    const what = this.#job.kind === "promotions" && this.#job.state !== "finished" ? "promotion" : "search";
    attribute(this.part(".resume"), "title", `Resume the ${what}`);
    this.part(".promote").hidden = live || trials.complete === 0;
    if (this.part(".promote").hidden) this.#openPromotion(false);
    attribute(this.part("[name=top]"), "max", trials.complete);
    this.part(".study").hidden = study === null;
    attribute(this.part(".study"), "href", `/dashboard/studies/${study}`);
    this.part(".report").hidden = !report;
    attribute(this.part(".report"), "href", `${this.#path}/report`);
  }

  #showCurve() {
    if (!this.#inView || !this.#search?.best) return;
    this.#fetch("history", this.#search.trials.complete, async () => {
      this.#history = await get(`${this.#path}/history`);
      this.#drawCurve();
    });
  }

  #drawCurve() {
    const svg = this.part("svg");
    if (!this.#history || svg.clientWidth === 0) return;
    this.part("figcaption .beyond").hidden = !draw(svg, this.#history, svg.clientWidth);
  }

  #showPanels() {
    const search = this.#search;
    this.part(".top").hidden = search.trials.complete === 0;
    this.part(".promotions").hidden = search.promotions === 0;
    say(this.part(".promotions summary"), count(search.promotions, "promotion"));
    if (this.part(".top").open) this.#fetch("top", search.trials.complete, () => this.#showTop(search));
    if (this.part(".promotions").open) {
      this.#fetch("promotions", `${search.promotions} ${work(this.#job)}`, () => this.#showPromotions());
    }
  }

  async #showTop({ objective, study_id: study }) {
    const { trials } = await get(`${this.#path}/top?limit=10`);
    const columns = [["trial", true], [objectiveName(objective), true], ["top-5", true], ["hyperparameters", false]];
    fill(this.part(".top .scroll"), trials, () => [
      table(columns, trials.map(({ number, value, top5, params }) => [
        study === null ? String(number) : element("a", { href: `/dashboard/studies/${study}/trials?numbers=${number}` }, String(number)),
        score(objective, value),
        share(top5),
        Object.entries(params).map(([name, drawn]) => `${paramName(name)} ${short(drawn)}`).join(", "),
      ])),
    ]);
  }

  async #showPromotions() {
    const { promotions } = await get(`${this.#path}/promotions`);
    const titles = ["trial", "recipe", "model", "validation, frozen", "validation", "test", "test top-5", "time"];
    fill(this.part(".promotions .scroll"), promotions, () => [
      table(titles.map((title) => [title, title !== "model"]), promotions.map(({ trial, recipe, stage, frozen, tuned, seconds }) => [
        String(trial),
        recipe ?? "",
        stage,
        share(frozen?.val_accuracy),
        share(tuned?.val_accuracy),
        share(tuned?.test_accuracy),
        share(tuned?.test_top5_accuracy),
        duration(seconds),
      ])),
    ]);
  }

  #showExports() {
    const found = this.#search?.exports;
    if (!found) this.part(".exports").hidden = true;
    if (found && this.#inView) this.#fetch("exports", `${found} ${work(this.#job)}`, () => this.#loadExports());
  }

  async #loadExports() {
    const { exports } = await get(`${this.#path}/exports`);
    const line = this.part(".exports");
    line.hidden = exports.length === 0;
    fill(line, exports, () => exports.flatMap(({ trial, formats }, at) => [
      `${at ? " · " : "Download "}trial ${trial}: `,
      ...[...formats, "bundle"].flatMap((format, nth) => [
        nth ? ", " : "",
        element(
          "a",
          { href: `${this.#path}/exports/${trial}/${encodeURIComponent(format)}`, download: "" },
          format === "bundle" ? "everything (zip)" : format,
        ),
      ]),
    ]));
  }

  /** Loads what is shown for an outdated state of the search; one request at a time, repeated after a failure. */
  async #fetch(what, state, load) {
    if (this.#fetched.get(what) === state || this.#fetching.has(what)) return;
    this.#fetching.add(what);
    const note = this.part(`.${what} .note`);
    try {
      await load();
      this.#fetched.set(what, state);
      if (note) say(note, "");
    } catch (error) {
      if (note && error instanceof Refused) say(note, error.message); // if there was no answer, the page says so at its top
    } finally {
      this.#fetching.delete(what);
    }
  }

  #listen() {
    for (const panel of [".top", ".promotions"]) this.part(panel).addEventListener("toggle", () => this.#showPanels());
    this.part(".stop").addEventListener("click", () => this.#ask("stop"));
    this.part(".resume").addEventListener("click", () => this.#ask("resume"));
    const form = this.part(".promotion");
    this.part(".promote").addEventListener("click", () => this.#openPromotion(form.hidden));
    form.addEventListener("change", () => {
      form.elements.top.disabled = form.elements.which.value !== "top";
      form.elements.trials.disabled = form.elements.which.value !== "trials";
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const { which, top, trials } = form.elements;
      const wanted = which.value === "top" ? { top: Number(top.value) } : { trials: trials.value.match(/\d+/g).map(Number) };
      if (await this.#ask("promotions", JSON.stringify(wanted))) this.#openPromotion(false);
    });
  }

  #openPromotion(open) {
    this.part(".promotion").hidden = !open;
    this.part(".promote").setAttribute("aria-expanded", String(open));
    if (open) this.part(".promotion [value=top]").focus();
  }

  /** Sends an action; returns whether the service accepted it. The card shows an error. */
  async #ask(what, body) {
    if (this.#asking) return false; // no disabled button: it would lose the focus
    this.#asking = true;
    let fault = "";
    try {
      const answer = post(`${this.#path}/${what}`, { body, about: this.#job.number });
      this.#onChange(await sending(this.part(".sending"), answer));
    } catch (error) {
      fault = error.message;
    }
    setTimeout(() => (this.#asking = false), DOUBLE_CLICK); // another button may appear under the pointer
    tell(this.part(":scope > .fault"), fault);
    return fault === "";
  }
}

/** A key of a job and its state: a job that has ended may have more results than before. */
function work({ number, state }) {
  return `${number} ${state}`;
}
