// The curves of trainings: a plot for each series that is chosen, of runs or of groups.

import { Chart } from "./chart.mjs";
import { element, plainTable, section, toggle } from "./dom.mjs";
import { Legend } from "./legend.mjs";
import { plotted, positive } from "./lines.mjs";
import { counted, duration, short } from "./numbers.mjs";

const AXES = { epoch: ["epoch", (value) => short(value)], seconds: ["time of training and validation", duration] };
export const CURVE_KEYS = ["group", "filter", "chosen", "hidden", "series", "x", "log", "smoothing"];

export class Curves {
  constructor(page, choices) {
    this.page = page;
    this.choices = choices;
    this.charts = new Map();
    this.legend = new Legend(choices);
    this.grid = element("div", { class: "charts" });
    this.table = element("details", { class: "values" }, element("summary", {}, "The last values as a table"));
    this.table.addEventListener("toggle", () => this.fillTable());
    this.band = element("p", { class: "note" });
    this.node = section("curves", "Curves", this.controls(), this.legend.node, this.band, this.grid, this.table);
  }

  controls() {
    const { page, choices } = this;
    this.series = page.series.map((name) => toggle(name, false, () => choices.toggle("series", name)));
    this.axis = Object.keys(AXES).map((axis) => toggle(axis === "epoch" ? "epochs" : "seconds", false, () => choices.set({ x: axis })));
    this.log = toggle("log scale", false, () => choices.set({ log: !choices.state.log }));
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: 0.99,
      step: 0.01,
      id: "smoothing",
      oninput: (event) => choices.set({ smoothing: Number(event.target.value) }),
    });
    this.weight = element("output", { for: "smoothing" });
    const group = (label, ...children) => element("div", { class: "control", role: "group", "aria-label": label }, element("span", { class: "label", "aria-hidden": "true" }, label), children);
    return element(
      "div",
      { class: "controls" },
      group("series", this.series),
      group("over", this.axis),
      group("values", this.log),
      element("div", { class: "control" }, element("label", { class: "label", for: "smoothing" }, "smoothing"), this.slider, this.weight),
    );
  }

  // items: {label, look, runs}, of runs or groups, all that a filter leaves.
  show(state, items) {
    this.pressed(state);
    this.legend.show(items, state.hidden);
    this.items = items.filter((item) => !state.hidden.includes(item.label));
    this.state = state;
    const isGrouped = items.some((item) => item.runs.length > 1);
    this.band.textContent = isGrouped ? "Lines are means over runs, bands one standard deviation (n − 1) to each side." : "";
    const wanted = this.page.series.filter((name) => state.series.includes(name));
    for (const name of wanted) if (!this.charts.has(name)) this.charts.set(name, this.chart(name));
    this.grid.replaceChildren(...wanted.map((name) => this.charts.get(name).node));
    for (const name of wanted) this.draw(this.charts.get(name), name, state);
    if (this.table.open) this.fillTable();
  }

  pressed(state) {
    const press = (button, isOn) => button.setAttribute("aria-pressed", String(isOn));
    this.series.forEach((button, place) => press(button, state.series.includes(this.page.series[place])));
    Object.keys(AXES).forEach((axis, place) => press(this.axis[place], state.x === axis));
    press(this.log, state.log);
    this.slider.value = state.smoothing;
    this.weight.textContent = state.smoothing.toFixed(2);
  }

  chart(name) {
    const chart = new Chart({ title: name, describe: (line, place) => describePoint(chart, line, place) });
    chart.onHover = (label) => this.legend.point(label);
    return chart;
  }

  draw(chart, name, state) {
    const { x, lines } = plotted(this.page, this.items, name, state);
    [chart.xTitle, chart.xText] = AXES[state.x];
    chart.isWhole = state.x === "epoch";
    chart.show({ x, lines: state.log ? positive(lines) : lines, log: state.log, summary: summary(name, lines) });
  }

  fillTable() {
    if (!this.table.open) return;
    const names = this.page.series.filter((name) => this.state.series.includes(name));
    const last = names.map((name) => new Map(plotted(this.page, this.items, name, this.state).lines.map((line) => [line.label, lastOf(line)])));
    const rows = this.items.map((item) => [item.label, ...last.map((values) => values.get(item.label) ?? "")]);
    this.table.querySelector("table")?.remove();
    this.table.append(plainTable("Last values of the lines that are shown", ["", ...names], rows));
  }
}

function describePoint(chart, line, place) {
  const at = `${chart.xTitle === "epoch" ? "epoch " : ""}${chart.xText(chart.x[place])}`;
  const value = short(line.y[place]);
  if (!line.low) return `${at}: ${value}`;
  return `${at}: ${value} ± ${short(line.high[place] - line.y[place], 2)} (n = ${line.n[place]})`;
}

function lastOf(line) {
  const place = line.y.findLastIndex(Number.isFinite);
  if (place < 0) return "";
  return line.low ? `${short(line.y[place])} ± ${short(line.high[place] - line.y[place], 2)}` : short(line.y[place]);
}

// What a plot shows, in words: how many lines, and which ends best; of a learning rate none is better.
export function summary(name, lines) {
  if (!lines.length) return "Nothing of it was measured.";
  const score = name.slice(name.lastIndexOf("/") + 1);
  const ends = lines.map((line) => [line.label, line.y.findLast(Number.isFinite)]).filter(([, value]) => value !== undefined);
  if (score === "lr" || !ends.length) return `${counted(lines.length, "line")}.`;
  const sign = score === "loss" ? 1 : -1;
  ends.sort((a, b) => sign * (a[1] - b[1]));
  const [best, worst] = [ends[0], ends.at(-1)];
  if (ends.length === 1) return `${counted(lines.length, "line")}; ${best[0]} ends at ${short(best[1])}.`;
  const start = `${counted(lines.length, "line")}; at the end ${best[0]} is ${score === "loss" ? "lowest" : "highest"} (${short(best[1])})`;
  return `${start}, ${worst[0]} ${score === "loss" ? "highest" : "lowest"} (${short(worst[1])}).`;
}
