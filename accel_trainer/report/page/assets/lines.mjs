// From the curves of runs to the lines of a plot: of each run, or the mean of a group with its standard deviation.
// A value is a number, null where it was none that is finite (a gap), undefined where nothing was measured (no gap).

import { smoothed } from "./smoothing.mjs";
import { deviation, mean } from "./statistics.mjs";

// Of an axis of seconds, on which every run has places of its own.
const PLACES = 240;

// {x, y} of a series of a run, such as acc1 or train/loss; null where it was not measured. axis: epoch or seconds.
export function curveOf(run, series, axis) {
  const slash = series.lastIndexOf("/");
  const split = run.splits[slash < 0 ? "val" : series.slice(0, slash)];
  const y = split?.scores[series.slice(slash + 1)];
  return y ? { x: axis === "seconds" ? split.seconds : split.epochs, y } : null;
}

// What a plot of a series shows: {x, lines: [{...item, y, low, high, n}]}. items: {label, runs: [places], ...}; one of
// several runs becomes the mean over them. low, high: mean - sd and mean + sd, null for a single run.
export function plotted(page, items, series, { x: axis, smoothing }) {
  const curves = items.map((item) => item.runs.map((place) => curveOf(page.runs[place], series, axis)).filter(Boolean));
  const measured = items.map((item, number) => ({ item, curves: curves[number] })).filter((one) => one.curves.length);
  const x = placesOf(measured.flatMap((one) => one.curves), axis);
  const lines = measured.map(({ item, curves: own }) => {
    const aligned = own.map((curve) => (axis === "seconds" ? resampled(curve, x) : placed(curve, x)));
    return { ...item, ...lineOf(aligned, smoothing) };
  });
  return { x, lines };
}

function placesOf(curves, axis) {
  if (axis === "seconds") {
    const last = Math.max(0, ...curves.map((curve) => curve.x.at(-1) ?? 0));
    return Array.from({ length: PLACES + 1 }, (_, place) => (last * place) / PLACES);
  }
  return [...new Set(curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
}

function placed(curve, x) {
  const values = new Map(curve.x.map((at, place) => [at, curve.y[place]]));
  return x.map((at) => values.get(at));
}

// Between two measurements on the straight line from one to the other; nothing before the first and after the last.
export function resampled(curve, x) {
  let next = 0;
  return x.map((at) => {
    while (next < curve.x.length && curve.x[next] < at) next += 1;
    if (next === curve.x.length || (next === 0 && curve.x[0] > at)) return undefined;
    if (curve.x[next] === at) return curve.y[next];
    const [before, after] = [curve.y[next - 1], curve.y[next]];
    if (before === null || after === null) return null;
    return before + ((after - before) * (at - curve.x[next - 1])) / (curve.x[next] - curve.x[next - 1]);
  });
}

// The sd is that of what was measured; it is smoothed as the mean is, not that of smoothed curves, which is smaller.
function lineOf(aligned, smoothing) {
  if (aligned.length === 1) return { y: smoothed(aligned[0], smoothing), low: null, high: null, n: null };
  const values = aligned[0].map((_, place) => aligned.map((curve) => curve[place]).filter(Number.isFinite));
  const isMissing = (place) => aligned.every((curve) => curve[place] === undefined);
  const n = values.map((there) => there.length);
  const means = values.map((there, place) => (there.length ? mean(there) : isMissing(place) ? undefined : null));
  const spreads = values.map((there, place) => (there.length ? (deviation(there) ?? 0) : means[place]));
  const [y, sd] = [smoothed(means, smoothing), smoothed(spreads, smoothing)];
  const band = (sign) => y.map((value, place) => (Number.isFinite(value) ? value + sign * sd[place] : value));
  return { y, low: band(-1), high: band(1), n };
}

// On a logarithmic axis what is not above 0 has no place; a band reaches down to the smallest value that has one.
export function positive(lines) {
  const floor = Math.min(...lines.flatMap((line) => line.y.filter((value) => value > 0)));
  const above = (values) => values && values.map((value) => (Number.isFinite(value) && value <= 0 ? null : value));
  const lifted = (values) => values && values.map((value) => (Number.isFinite(value) ? Math.max(value, floor) : value));
  return lines.map((line) => ({ ...line, y: above(line.y), low: lifted(line.low), high: lifted(line.high) }));
}

// The measured place that is nearest to one, of a line; null where it has none.
export function nearestPlace(values, place) {
  for (let away = 0; away < values.length; away += 1) {
    for (const one of [place - away, place + away]) if (Number.isFinite(values[one])) return one;
  }
  return null;
}
