// The page: its sections, and what each shows of the choices of a person.

import { Confusions } from "./confusion.mjs";
import { CURVE_KEYS, Curves } from "./curves.mjs";
import { DEGRADATION_KEYS, Degradations } from "./degradations.mjs";
import { Differences } from "./differences.mjs";
import { element, plainTable, scrolling, section } from "./dom.mjs";
import { lookOf } from "./palette.mjs";
import { queueSection, readAgain } from "./queue.mjs";
import { fitting, groupsOf } from "./rows.mjs";
import { Sheets } from "./sheets.mjs";
import { Choices } from "./state.mjs";
import { RunTable } from "./table.mjs";

const ROWS = ["filter", "chosen"];

// What the plots have a line of: each run that is shown, or each group.
function itemsOf(page, state, shown) {
  if (!page.groupings.some((one) => one.name === state.group)) {
    return shown.map((run) => ({ label: page.runs[run].label, look: lookOf(run), runs: [run] }));
  }
  return groupsOf(page, state.group, shown).map((group) => ({ label: group.name, look: lookOf(group.number), runs: group.runs, group: group.number }));
}

function runsSection(page, choices, table) {
  const names = page.groupings.map((one) => element("option", { value: one.name }, one.title));
  const select = element("select", { id: "group", onchange: (event) => choices.set({ group: event.target.value }) }, element("option", { value: "" }, "nothing"), names);
  const search = element("input", { type: "search", id: "filter", placeholder: "words in any column", oninput: (event) => choices.set({ filter: event.target.value }) });
  const clear = element("button", { type: "button", onclick: () => choices.set({ filter: "", chosen: {} }) }, "show all");
  choices.watch(["group", "filter"], (state) => {
    select.value = state.group;
    if (search.value !== state.filter) search.value = state.filter;
  });
  const control = (id, label, ...nodes) => element("div", { class: "control" }, element("label", { class: "label", for: id }, label), nodes);
  const controls = element("div", { class: "controls" }, control("filter", "filter", search, clear), control("group", "group by", select));
  const notes = page.notes.length ? element("ul", { class: "note" }, page.notes.map((note) => element("li", {}, note))) : null;
  return section("runs", "Runs", controls, notes, table.node);
}

// Sections beside that of the runs, and what each shows.
function addPlots(page, choices, add, view) {
  if (page.series.length) {
    const curves = new Curves(page, choices);
    add(curves.node, CURVE_KEYS, (state) => curves.show(state, view(state).items));
  }
  if (page.panels.length) {
    const degradations = new Degradations(page);
    add(degradations.node, DEGRADATION_KEYS, (state) => degradations.show(view(state).items.filter((item) => !state.hidden.includes(item.label))));
  }
  if (page.confusions.length) {
    const confusions = new Confusions(page, choices);
    add(confusions.node, [...ROWS, "confusion"], (state) => confusions.show(state, view(state).shown));
  }
  if (page.sheets.length) {
    const sheets = new Sheets(page);
    add(sheets.node, ROWS, (state) => sheets.show(view(state).shown));
  }
}

function build(page, choices, main) {
  let last = {};
  const view = (state) => {
    if (last.state !== state) {
      const shown = fitting(page, state.filter, state.chosen);
      last = { state, shown, items: itemsOf(page, state, shown) };
    }
    return last;
  };
  const add = (node, keys, tell) => {
    main.append(node);
    if (keys.length) choices.watch(keys, tell);
  };
  if (page.queue) add(queueSection(page.queue), [], null);
  const table = new RunTable(page, choices);
  add(runsSection(page, choices, table), [...ROWS, "group", "sort", "compared"], (state) => table.show(state, view(state).shown, view(state).items));
  if (page.tests) {
    const [header, rows] = page.tests;
    add(section("tests", "Differences of groups", scrolling("Differences of groups", plainTable("Difference of means with its 95% interval, and p of no difference", header, rows))), [], null);
  }
  if (page.runs.length > 1) {
    const differences = new Differences(page, choices);
    add(differences.node, ["chosen", "compared"], (state) => differences.show(state));
  }
  addPlots(page, choices, add, view);
}

// Links inside of the page leave its address alone, in which the choices are.
function linkSections(nav, main) {
  const links = [...main.querySelectorAll("section")].map((one) => element("a", { href: `#${one.id}` }, one.querySelector("h2").textContent));
  nav.append(...links);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#']");
    const target = link && document.getElementById(link.getAttribute("href").slice(1));
    if (!target) return;
    event.preventDefault();
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  });
}

// On paper colors are those of a light page, whatever the screen's are.
function redrawForPaper(main) {
  const redraw = () => main.querySelectorAll(".plot").forEach((box) => box.dispatchEvent(new Event("redraw")));
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    redraw();
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function begin() {
  const page = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("page");
  const place = { hash: location.hash, keep: (hash) => history.replaceState(null, "", `#${hash}`) };
  const choices = new Choices({ series: page.first_series, group: page.grouping }, place);
  build(page, choices, main);
  linkSections(document.getElementById("contents"), main);
  redrawForPaper(main);
  const written = new Date(page.written * 1000).toLocaleString();
  document.getElementById("about").textContent = `Written ${written}${page.again_s ? `; read again every ${page.again_s} s while the queue runs` : ""}`;
  readAgain(page, () => location.reload());
  document.documentElement.dataset.ready = "";
}

begin();
