// A job's log, which is followed while its panel is open.

import { element, fill, say } from "./elements.js";
import { request } from "./server.js";

const KEPT = 500_000; // characters; older ones are dropped
const COLOURS = /\x1b\[[0-9;]*[A-Za-z]/g; // terminal escape codes
const UNFOLLOWED = "too many logs are being followed; this one is refreshed every few seconds";

export const LIVE = ["queued", "running", "stopping"];

export class Log {
  #panel;
  #path;
  #jobs = [];
  #stream = null; // aborts the current request
  #shown = null; // the number of the job whose log is shown
  #bytes = 0; // shown of that log so far
  #decoder = null;
  #whole = false; // whether it was read to the end

  constructor(panel, path) {
    this.#panel = panel;
    this.#path = path;
    this.text = panel.querySelector("pre");
    this.note = panel.querySelector(".note");
    this.choice = panel.querySelector("select");
    panel.addEventListener("toggle", () => (panel.open ? this.#follow() : this.stop()));
    this.choice.addEventListener("change", () => this.#follow());
  }

  /** Updates the search's jobs: an open panel switches to a new job, and resumes reading where it was interrupted. */
  show(jobs) {
    this.#jobs = [...jobs].sort((a, b) => b.number - a.number);
    const chosen = this.choice.value;
    fill(this.choice, this.#jobs.map(({ number, kind }) => [number, kind]), (found) => [
      element("option", { value: "" }, "latest"),
      ...found.map(([number, kind]) => element("option", { value: number }, `${number}: ${kind}`)),
    ]);
    if (this.choice.value !== chosen) this.choice.value = chosen;
    const job = this.#chosen();
    const current = job?.number === this.#shown && (this.#stream || (this.#whole && !LIVE.includes(job?.state)));
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
    const begun = job && job.state !== "queued";
    if (!begun || this.#shown !== job.number) this.#clear();
    if (!begun) return say(this.note, "The job has not started yet.");
    const stream = new AbortController();
    this.#stream = stream;
    this.#shown = job.number;
    try {
      const { answer, note } = await this.#open(job, stream.signal);
      if (note) say(this.note, note);
      const reader = answer.body.getReader();
      let known = this.#bytes; // skip the bytes already shown, so that a selection in them survives
      for (;;) {
        const { done, value } = await reader.read();
        stream.signal.throwIfAborted();
        if (done) break;
        const fresh = value.subarray(known);
        known -= value.length - fresh.length;
        this.#bytes += fresh.length;
        this.#append(this.#decoder.decode(fresh, { stream: true }));
      }
      this.#whole = note !== UNFOLLOWED;
      if (this.#whole) say(this.note, this.#bytes === 0 ? "Nothing has been written yet." : "end of the log");
    } catch (error) {
      if (stream.signal.aborted) return undefined;
      say(this.note, error.status ? error.message : "The log was interrupted; it resumes when the service is reachable.");
    }
    if (this.#stream === stream) this.#stream = null;
    return undefined;
  }

  /** The log of a job: as a live stream, or its current contents if the job has ended or too many logs are being followed. */
  async #open(job, signal) {
    const path = `${this.#path}/logs?job=${job.number}`;
    if (!LIVE.includes(job.state)) return { answer: await request(path, { signal }), note: "" };
    try {
      return { answer: await request(`${path}&follow=true`, { signal }), note: "following" };
    } catch (error) {
      if (error.status !== 503) throw error;
      return { answer: await request(path, { signal }), note: UNFOLLOWED };
    }
  }

  #clear() {
    this.text.replaceChildren();
    this.#shown = null;
    this.#bytes = 0;
    this.#decoder = new TextDecoder();
    this.#whole = false;
  }

  #append(text) {
    const atEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 30;
    if (text !== "") this.text.append(text.replaceAll(COLOURS, "")); // text nodes, so that a selection above survives
    let excess = this.text.textContent.length - KEPT;
    while (excess > 0 && this.text.childNodes.length > 1) {
      excess -= this.text.firstChild.data.length;
      this.text.firstChild.remove();
    }
    if (atEnd) this.text.scrollTop = this.text.scrollHeight;
  }
}
