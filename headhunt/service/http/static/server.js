// Requests to the service, and their possible outcomes.

/** The service rejected the request: `message` is its error message, `faults` are the faults of a configuration. */
export class Refused extends Error {
  constructor(answer, body) {
    super(body.detail ?? `The service returned status ${answer.status}.`);
    this.status = answer.status;
    this.faults = body.faults ?? [];
    this.retrySeconds = Number(answer.headers.get("Retry-After")) || 0;
  }
}

/** The service did not answer. */
export class Unreachable extends Error {
  constructor() {
    super("The service cannot be reached.");
  }
}

/** The answer if it is successful; throws Refused or Unreachable. Without a valid login, redirects to /login. */
export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Unreachable();
  }
  if (answer.status === 401) {
    location.assign("/login");
    return new Promise(() => {}); // never resolves: the page is being left
  }
  if (!answer.ok) throw new Refused(answer, await answer.json().catch(() => ({})));
  return answer;
}

export async function get(path) {
  return read(path, 20_000);
}

const unanswered = new Map(); // calls with their keys, until the service has answered

/** Sends a POST request. A repeated call without an answer gets the same Idempotency-Key, so it is executed once. `about`
 * identifies the call besides its path: stopping another job of the same search is another call. */
export async function post(path, { body, type = "application/json", about = "" } = {}) {
  const call = `${path} ${about} ${body}`;
  const key = unanswered.get(call) ?? newKey();
  unanswered.set(call, key);
  try {
    const headers = { "Idempotency-Key": key, ...(body === undefined ? {} : { "Content-Type": type }) };
    const found = await read(path, 60_000, { method: "POST", headers, body });
    unanswered.delete(call);
    return found;
  } catch (error) {
    if (error instanceof Refused && error.status < 500) unanswered.delete(call);
    throw error;
  }
}

async function read(path, milliseconds, options = {}) {
  const answer = await request(path, { signal: AbortSignal.timeout(milliseconds), ...options });
  return answer.json().catch(() => {
    throw new Unreachable(); // the answer was cut off
  });
}

function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // over plain http from another host there is no randomUUID
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function searchPath(name) {
  return `/searches/${encodeURIComponent(name)}`;
}
