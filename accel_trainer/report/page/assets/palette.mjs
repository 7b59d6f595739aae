// Colors and dashes of lines: neighbors differ in both, and 24 lines in one of them. The colors are those of the style.

import { drawing } from "./dom.mjs";

export const COLORS = 6;
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];

export function lookOf(number) {
  const dash = (number + Math.floor(number / 12)) % DASHES.length;
  return { color: `--line-${(number % COLORS) + 1}`, dash: DASHES[dash] };
}

export const OF_PEOPLE = { color: "--ink", dash: [1, 3], width: 2.5 };

export function colorOf(look) {
  return getComputedStyle(document.documentElement).getPropertyValue(look.color).trim();
}

// A piece of a line, as a legend has it.
export function sample(look) {
  const line = drawing("line", {
    x1: 1,
    x2: 27,
    y1: 6,
    y2: 6,
    style: { stroke: `var(${look.color})` },
    "stroke-width": look.width ?? 2.5,
    "stroke-dasharray": look.dash.join(" ") || null,
  });
  return drawing("svg", { class: "sample", width: 28, height: 12, "aria-hidden": "true" }, line);
}
