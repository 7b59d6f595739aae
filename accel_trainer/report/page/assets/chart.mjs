// A plot by uPlot: lines with bands, the nearest one named under the pointer or by the arrow keys.

import { element } from "./dom.mjs";
import { nearestPlace } from "./lines.mjs";
import { short } from "./numbers.mjs";
import { colorOf } from "./palette.mjs";

const HEIGHT = 250;
const NEAR_PX = 60;
// Between ticks of an axis of epochs.
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000];
// More lines than these are told apart by the pointer: dashes would make them one mesh.
const MANY = 24;

export class Chart {
  // title; describe(line, place): what is said of a point; xTitle, xText: of the axis.
  constructor({ title, xTitle, xText, describe }) {
    Object.assign(this, { title, xTitle, xText, describe });
    this.tip = element("div", { class: "tip", hidden: true });
    this.mark = element("div", { class: "mark", hidden: true });
    this.said = element("p", { class: "unseen", role: "status" });
    this.box = element("div", {
      class: "plot",
      role: "group",
      tabindex: "0",
      "aria-roledescription": "plot",
      onkeydown: (event) => this.press(event),
      onblur: () => this.point(null),
      onredraw: () => this.draw(),
    });
    this.caption = element("figcaption", {});
    this.node = element("figure", { class: "chart", "aria-label": title }, element("h3", {}, title), this.box, this.said, this.caption);
    this.onHover = () => {};
    new ResizeObserver(() => this.fit()).observe(this.box);
  }

  // x: numbers; lines: {label, look, y, low, high}; splits: labels along x in place of numbers.
  show({ x, lines, log, xSplits = null, yRange = null, summary }) {
    this.x = x;
    this.lines = lines;
    this.settings = { log, xSplits, yRange };
    this.box.setAttribute("aria-label", `${this.title}: ${summary} Arrow keys read the values.`);
    this.caption.textContent = summary;
    this.at = null;
    this.draw();
  }

  draw() {
    this.plot?.destroy();
    this.plot = null;
    this.tip.hidden = this.mark.hidden = true;
    if (!this.lines?.length || !this.box.clientWidth) return;
    const data = [this.x];
    const [series, bands] = [[{}], []];
    const many = this.lines.length > MANY;
    const shade = Math.round(255 * Math.max(0.04, Math.min(0.18, 0.9 / this.lines.length))).toString(16).padStart(2, "0");
    for (const line of this.lines) {
      const stroke = colorOf(line.look);
      const width = (line.look.width ?? 1.75) * (many ? 0.6 : 1);
      if (line.low) {
        data.push(line.high, line.low);
        const edge = { stroke: null, width: 0, points: { show: false }, spanGaps: false };
        bands.push({ series: [series.length, series.length + 1], fill: stroke + shade });
        series.push(edge, edge);
      }
      data.push(line.y);
      series.push({ stroke, width, dash: many && !line.look.width ? [] : line.look.dash, points: { show: line.points ?? isShort(line.y) }, spanGaps: false });
    }
    this.plot = new uPlot(this.options(series, bands), data, this.box);
    this.plot.over.append(this.mark, this.tip);
  }

  options(series, bands) {
    const { log, xSplits, yRange } = this.settings;
    const [ink, grid] = [colorOf({ color: "--soft" }), colorOf({ color: "--line" })];
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid }, font: "12px system-ui, sans-serif" };
    const split = xSplits && { splits: () => xSplits.at, values: () => xSplits.texts, rotate: xSplits.isLong ? -45 : 0, size: xSplits.isLong ? 56 : 30 };
    return {
      width: this.box.clientWidth,
      height: HEIGHT,
      series,
      bands,
      legend: { show: false },
      padding: [8, 12, 0, 0],
      scales: { x: { time: false, ...(xSplits && { range: xSplits.range }) }, y: { distr: log ? 3 : 1, ...(yRange && { range: yRange }) } },
      axes: [
        { ...axis, label: this.xTitle, labelSize: 16, labelGap: 0, labelFont: axis.font, size: 30, values: (_, at) => at.map((value) => this.xText(value)), ...(this.isWhole && { incrs: WHOLE }), ...split },
        { ...axis, size: 58, values: (_, at) => at.map((value) => short(value)) },
      ],
      cursor: { points: { show: false }, y: false, drag: { x: true, y: false }, focus: { prox: -1 } },
      hooks: { setCursor: [(plot) => this.hover(plot)] },
    };
  }

  fit() {
    const width = this.box.clientWidth;
    if (!this.plot) this.draw();
    else if (width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  hover(plot) {
    const { left, top, idx } = plot.cursor;
    if (idx === null || idx === undefined || left < 0) return this.point(null);
    let nearest = null;
    this.lines.forEach((line, number) => {
      const place = nearestPlace(line.y, idx);
      if (place === null) return;
      const [x, y] = this.spot(line, place);
      const away = Math.hypot(x - left, y - top);
      if (nearest === null || away < nearest.away) nearest = { number, place, away };
    });
    return this.point(nearest && nearest.away < NEAR_PX ? nearest : null);
  }

  spot(line, place) {
    return [this.plot.valToPos(this.x[place], "x"), this.plot.valToPos(line.y[place], "y")];
  }

  // Mark a point, {number of the line, place}, and say what it is; null: none.
  point(at) {
    this.at = at;
    this.tip.hidden = this.mark.hidden = at === null;
    this.onHover(at === null ? null : this.lines[at.number].label);
    if (at === null || !this.plot) return;
    const line = this.lines[at.number];
    const [left, top] = this.spot(line, at.place);
    const width = this.plot.over.clientWidth;
    this.mark.style.transform = `translate(${left}px, ${top}px)`;
    this.mark.style.setProperty("--own", `var(${line.look.color})`);
    this.tip.replaceChildren(element("strong", {}, line.label), element("span", {}, this.describe(line, at.place)));
    const isRight = left > width / 2;
    this.tip.style.transform = `translate(${isRight ? "-100%" : "0"}, ${top > 60 ? "-100%" : "0"})`;
    this.tip.style.left = `${left + (isRight ? -10 : 10)}px`;
    this.tip.style.top = `${top + (top > 60 ? -8 : 8)}px`;
  }

  press(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") this.point(null);
    if (!steps || !this.plot) return;
    event.preventDefault();
    const count = this.lines.length;
    const number = this.at ? (this.at.number + steps[0] + count) % count : 0;
    const { y } = this.lines[number];
    const from = this.at ? this.at.place + steps[1] : y.length - 1;
    const place = steps[1] ? nextPlace(y, from, steps[1]) : nearestPlace(y, from);
    if (place === null) return;
    this.point({ number, place });
    this.said.textContent = `${this.lines[number].label}: ${this.describe(this.lines[number], place)}`;
  }
}

function nextPlace(values, from, step) {
  for (let place = from; place >= 0 && place < values.length; place += step) if (Number.isFinite(values[place])) return place;
  return null;
}

// A point alone makes no line.
function isShort(values) {
  return values.filter(Number.isFinite).length === 1;
}
