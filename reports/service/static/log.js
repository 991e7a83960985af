// A job's log, followed while its panel is open.

import { element, fill, say } from "./elements.js";
import { request } from "./server.js";

const KEPT = 500_000; // characters; older ones go
const COLOURS = /\x1b\[[0-9;]*[A-Za-z]/g; // a terminal's

export const LIVE = ["queued", "running", "stopping"];

export class Log {
  #panel;
  #path;
  #jobs = [];
  #stream = null; // aborts the request that is under way
  #followed = null; // the number of the job that is shown
  #whole = false; // whether that log was read to its end

  constructor(panel, path) {
    this.#panel = panel;
    this.#path = path;
    this.text = panel.querySelector("pre");
    this.note = panel.querySelector(".note");
    this.choice = panel.querySelector("select");
    panel.addEventListener("toggle", () => (panel.open ? this.#follow() : this.stop()));
    this.choice.addEventListener("change", () => this.#follow());
  }

  /** Takes note of the search's jobs: an open panel goes over to a new one, and tries again what broke off. */
  show(jobs) {
    this.#jobs = [...jobs].sort((a, b) => b.number - a.number);
    const chosen = this.choice.value;
    fill(this.choice, this.#jobs.map(({ number, kind }) => [number, kind]), (found) => [
      element("option", { value: "" }, "latest"),
      ...found.map(([number, kind]) => element("option", { value: number }, `${number}: ${kind}`)),
    ]);
    if (this.choice.value !== chosen) this.choice.value = chosen;
    const job = this.#chosen();
    const current = job?.number === this.#followed && (this.#whole ? !LIVE.includes(job?.state) : this.#stream);
    if (this.#panel.open && !current) this.#follow();
  }

  stop() {
    this.#stream?.abort();
    this.#stream = null;
  }

  #chosen() {
    return this.#jobs.find((job) => String(job.number) === this.choice.value) ?? this.#jobs[0];
  }

  async #follow() {
    this.stop();
    const job = this.#chosen();
    if (!job || job.state === "queued") return say(this.note, "It has not begun.");
    const stream = new AbortController();
    this.#stream = stream;
    if (this.#followed !== job.number) this.text.replaceChildren();
    this.#followed = job.number;
    this.#whole = false;
    try {
      const answer = await request(`${this.#path}/logs?job=${job.number}&follow=true`, { signal: stream.signal });
      this.text.replaceChildren();
      say(this.note, "following");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) this.#append(part.value);
      this.#whole = true;
      say(this.note, this.text.textContent === "" ? "Nothing has been written yet." : "end of the log");
    } catch (error) {
      if (stream.signal.aborted) return undefined;
      say(this.note, error.status ? error.message : "The log broke off; it goes on when the service can be reached.");
    }
    if (this.#stream === stream) this.#stream = null;
    return undefined;
  }

  #append(text) {
    const atEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 30;
    this.text.append(text.replaceAll(COLOURS, "")); // text nodes: what is selected above stays selected
    let excess = this.text.textContent.length - KEPT;
    while (excess > 0 && this.text.childNodes.length > 1) {
      excess -= this.text.firstChild.data.length;
      this.text.firstChild.remove();
    }
    if (atEnd) this.text.scrollTop = this.text.scrollHeight;
  }
}
