// A search's values as a chart: completed trials as dots, the best so far as a line.

import { isLoss, objectiveName, score } from "./text.js";

const HEIGHT = 210;
const TOP = 24;
const RIGHT = 12;
const BOTTOM = 38;
const LETTER = 7; // approximate width of a label's digit, in pixels

/** Draws `history` into `svg`, `width` pixels wide; returns whether values lie beyond its upper edge. */
export function draw(svg, { objective, points }, width) {
  const known = points.filter((point) => Number.isFinite(point.value) && Number.isFinite(point.best));
  const [low, high] = range(objective, known);
  const step = stepOf(low, high, 5);
  const yTicks = ticks(low, high, step);
  const labels = yTicks.map((tick) => (isLoss(objective) ? decimals(tick, step) : `${decimals(100 * tick, 100 * step)} %`));
  const left = 12 + LETTER * Math.max(2, ...labels.map((label) => label.length));
  const last = Math.max(1, ...known.map((point) => point.number));
  const x = (number) => round(left + ((width - left - RIGHT) * number) / last);
  const y = (value) => round(HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * (Math.min(value, high) - low)) / (high - low));

  const drawn = yTicks.flatMap((tick, at) => [
    shape("line", { class: "grid", x1: left, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
    shape("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, labels[at]),
  ]);
  for (const tick of ticks(0, last, Math.max(1, stepOf(0, last, Math.max(2, Math.floor(width / 70)))))) {
    drawn.push(shape("text", { x: x(tick), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, String(tick)));
  }
  const middle = (left + width - RIGHT) / 2;
  drawn.push(shape("text", { x: middle, y: HEIGHT - 5, "text-anchor": "middle" }, "trial number"));
  drawn.push(shape("text", { x: 0, y: 12 }, objectiveName(objective)));
  for (const { number, value } of known) {
    const title = shape("title", {}, `trial ${number}: ${score(objective, value)}`);
    const beyond = value > high ? " beyond" : "";
    drawn.push(shape("circle", { class: `dot${beyond}`, cx: x(number), cy: y(value), r: known.length > 150 ? 2 : 3 }, title));
  }
  if (known.length > 0) drawn.push(shape("path", { class: "line", d: stairs(known, x, y) }));

  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.setAttribute("height", HEIGHT);
  svg.setAttribute("aria-label", summary(objective, known));
  svg.replaceChildren(...drawn);
  return known.some((point) => point.value > high);
}

/** The range of the y axis. A few extreme losses do not flatten the others: they are drawn at the edge. */
function range(objective, points) {
  const values = points.map((point) => point.value).sort((a, b) => a - b);
  if (values.length === 0) return [0, 1];
  const low = values[0];
  let high = values[values.length - 1];
  const usual = values[Math.floor(values.length / 2)] - low;
  if (isLoss(objective) && usual > 0) high = Math.min(high, low + 4 * usual);
  const margin = (high - low || Math.abs(high) || 1) * 0.06;
  return isLoss(objective) ? [low - margin, high + margin] : [Math.max(0, low - margin), Math.min(1, high + margin)];
}

/** A round step of which about `many` fit between `low` and `high`. */
function stepOf(low, high, many) {
  const raw = (high - low) / many;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= raw * 0.999);
}

/** The multiples of `step` from `low` to `high`. */
function ticks(low, high, step) {
  const first = Math.ceil(low / step - 1e-9);
  const length = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length }, (_, at) => Number(((first + at) * step).toPrecision(12)));
}

/** A tick with as many decimals as distinguish it from its neighbours, `step` away. */
function decimals(tick, step) {
  return tick.toFixed(Math.min(100, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))));
}

function stairs([first, ...others], x, y) {
  return others.reduce((path, { number, best }) => `${path}H${x(number)}V${y(best)}`, `M${x(first.number)} ${y(first.best)}`);
}

function summary(objective, points) {
  const name = objectiveName(objective);
  if (points.length === 0) return `${name} by trial: no completed trials yet`;
  const { best } = points[points.length - 1];
  return `${name} by trial, up to trial ${points[points.length - 1].number}; best so far: ${score(objective, best)}`;
}

function shape(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function round(pixels) {
  return Math.round(10 * pixels) / 10;
}
