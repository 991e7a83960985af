// Human-readable numbers and names.

const NONE = "–";

/** A parameter's value, with three significant digits. */
export function short(value) {
  if (value === null || value === undefined) return "none";
  if (typeof value !== "number") return typeof value === "object" ? JSON.stringify(value) : String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
  return String(Number(value.toPrecision(3)));
}

export function isLoss(objective) {
  return objective.endsWith("loss");
}

/** A value of the objective: shares as percentages, losses as they are. */
export function score(objective, value) {
  if (!Number.isFinite(value)) return NONE;
  return isLoss(objective) ? value.toFixed(4) : share(value);
}

export function share(value) {
  return Number.isFinite(value) ? `${(100 * value).toFixed(1)} %` : NONE;
}

/** `val_top5_accuracy` in words. */
export function objectiveName(objective) {
  return objective.replace(/^val_/, "validation_").replace("top5", "top-5").replaceAll("_", " ");
}

/** A parameter's name, without the prefix of the head's. */
export function paramName(name) {
  return name.replace(/^head\./, "");
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function day(iso) {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** HH:MM:SS */
export function clock(date) {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

/** A number with its noun: `1 promotion`, `2 promotions`. */
export function count(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}
