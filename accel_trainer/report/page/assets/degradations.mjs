// Accuracy over the levels of each degradation: of runs with their intervals, of groups, and of people.

import { Chart } from "./chart.mjs";
import { element, plainTable, section } from "./dom.mjs";
import { fixed } from "./numbers.mjs";
import { OF_PEOPLE } from "./palette.mjs";
import { deviation, mean } from "./statistics.mjs";

const WITH_POINTS = 12;
export const DEGRADATION_KEYS = ["group", "filter", "chosen", "hidden"];

export class Degradations {
  constructor(page) {
    this.page = page;
    this.charts = page.panels.map((panel) => {
      const chart = new Chart({ title: panel.name, xTitle: "level", xText: String, describe: (line, place) => describeLevel(panel, line, place) });
      const table = element("details", { class: "values" }, element("summary", {}, "As a table"));
      table.addEventListener("toggle", () => table.open && fill(table, panel, chart.lines));
      chart.node.append(table);
      return chart;
    });
    const isOfPeople = page.panels.some((panel) => panel.lines.some((line) => line.run === null));
    const note = "Accuracy in percent of the best weights. Bands of runs: 95% interval of the images (Wilson); of groups: one standard deviation to each side." + (isOfPeople ? " Dotted: people, with the 95% interval of their mean." : "");
    const grid = element("div", { class: "charts small" }, this.charts.map((chart) => chart.node));
    this.node = section("degradations", "Degradations", element("p", { class: "note" }, note), grid);
  }

  // items: those of the curves that are not hidden.
  show(items) {
    this.page.panels.forEach((panel, number) => {
      const lines = [...items.map((item) => ofItem(panel, item)), ...panel.lines.filter((line) => line.run === null).map((line) => ofPeople(panel, line))];
      const there = lines.filter((line) => line.y.some(Number.isFinite));
      this.charts[number].show({
        x: panel.x,
        lines: there.map((line) => ({ ...line, points: there.length <= WITH_POINTS || line.of === "people" })),
        log: false,
        xSplits: panel.are_shares ? null : splits(panel),
        yRange: [0, 100],
        summary: there.length ? `${there.map((line) => `${line.label} ${fixed(mean(line.y.filter(Number.isFinite)), 1)}`).slice(0, 4).join(", ")}${there.length > 4 ? " and others" : ""} (mean over the levels).` : "No line is shown.",
      });
    });
  }
}

function splits(panel) {
  const last = panel.levels.length - 1;
  return { at: panel.x, texts: panel.levels, range: [-0.15, last + 0.15], isLong: Math.max(...panel.levels.map((level) => level.length)) > 4 };
}

// A line of a run as it was measured; of a group the mean over its runs.
function ofItem(panel, item) {
  const own = panel.lines.filter((line) => line.run !== null && item.runs.includes(line.run));
  if (own.length === 1) return { ...item, ...atLevels(panel, own[0]), of: "images" };
  const values = panel.levels.map((_, place) => own.map((line) => line.accuracies[line.places.indexOf(place)]).filter(Number.isFinite));
  const y = values.map((there) => (there.length ? mean(there) : undefined));
  const sd = values.map((there) => deviation(there) ?? 0);
  const band = (sign) => y.map((value, place) => (value === undefined ? value : value + sign * sd[place]));
  return { ...item, y, low: band(-1), high: band(1), n: values.map((there) => there.length), of: "runs" };
}

function ofPeople(panel, line) {
  return { label: line.name, look: OF_PEOPLE, runs: [], ...atLevels(panel, line), of: "people" };
}

function atLevels(panel, line) {
  const at = (values) => panel.levels.map((_, place) => values[line.places.indexOf(place)]);
  return { y: at(line.accuracies), low: at(line.lows), high: at(line.highs), n: at(line.n) };
}

function describeLevel(panel, line, place) {
  return `level ${panel.levels[place]}: ${fixed(line.y[place], 1)} (${fixed(line.low[place], 1)} to ${fixed(line.high[place], 1)}, ${line.n[place].toLocaleString("en")} ${line.of})`;
}

function fill(table, panel, lines) {
  const rows = lines.map((line) => [line.label, ...line.y.map((value) => fixed(value ?? null, 1))]);
  table.querySelector("table")?.remove();
  table.append(plainTable(`Accuracy in percent under ${panel.name}`, ["level", ...panel.levels], rows));
}
