// Which runs are shown, in which order, and in which groups.

import { estimate } from "./statistics.mjs";

// Numbers by their size, then words; what is not there comes last, whichever way round.
export function inOrder(items, valueOf, descending) {
  const there = items.filter((item) => valueOf(item) !== null);
  const missing = items.filter((item) => valueOf(item) === null);
  there.sort((a, b) => compareValues(valueOf(a), valueOf(b)) * (descending ? -1 : 1));
  return [...there, ...missing];
}

export function compareValues(a, b) {
  const [first, second] = [typeof a === "string" ? 1 : 0, typeof b === "string" ? 1 : 0];
  if (first !== second) return first - second;
  return a < b ? -1 : a > b ? 1 : 0;
}

// The places of the runs whose cells have all words of a text, and of each parameter one of the values that are chosen.
// chosen: {key: [text, ...]}, a text null for runs without the parameter.
export function fitting(page, text, chosen) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const allowed = Object.entries(chosen).map(([key, texts]) => runsWith(page, key, texts));
  return page.runs
    .map((run, place) => place)
    .filter((place) => allowed.every((places) => places.has(place)))
    .filter((place) => {
      const cells = [page.runs[place].label, ...page.table.cells[place]].join("\n").toLowerCase();
      return words.every((word) => cells.includes(word));
    });
}

function runsWith(page, key, texts) {
  const parameter = page.differences.find((one) => one.key === key);
  const values = parameter ? parameter.values.filter((value) => texts.includes(value.text)) : [];
  return new Set(values.flatMap((value) => value.runs));
}

// The groups of a grouping that have runs among those shown: their members there, and estimates of each metric. These
// are the ones that were computed where all members are shown, else of those that are.
export function groupsOf(page, name, shown) {
  const grouping = page.groupings.find((one) => one.name === name);
  if (!grouping) return [];
  const there = new Set(shown);
  return grouping.groups
    .map((group, number) => ({ ...group, number, all: group.runs, runs: group.runs.filter((run) => there.has(run)) }))
    .filter((group) => group.runs.length)
    .map((group) => (group.runs.length === group.all.length ? group : { ...group, estimates: estimates(page, group) }));
}

export function estimates(page, group) {
  return page.metrics.map((_, metric) => {
    const values = group.runs.map((run) => page.metric_values[metric][run]).filter((value) => value !== null);
    return estimate(values, page.quantiles);
  });
}
