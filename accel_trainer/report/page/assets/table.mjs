// The table of runs, or of groups of them: sorted by its headings, each run linked to its folder.

import { element, scrolling } from "./dom.mjs";
import { counted, fixed } from "./numbers.mjs";
import { sample } from "./palette.mjs";
import { groupsOf, inOrder } from "./rows.mjs";

const ESTIMATES = ["n", "mean", "sd", "95% interval"];

// The columns of what is shown: {key, title, valueOf(item), cell(item), isNumber, differs}.
function columnsOfRuns(page) {
  return page.table.columns.map((column, place) => ({
    key: column.name,
    title: column.title,
    isNumber: column.is_number,
    differs: column.differs,
    valueOf: (run) => page.table.values[run][place],
    cell: (run) => (place === 0 ? runLink(page, run) : page.table.cells[run][place]),
  }));
}

function columnsOfGroups(page, grouping) {
  const levels = grouping.columns.map((title, place) => ({
    key: `level ${place}`,
    title,
    valueOf: (group) => group.order[place],
    cell: (group) => group.levels[place] ?? "",
  }));
  const metrics = page.metrics.flatMap(([title, decimals], metric) =>
    ESTIMATES.map((what, place) => ({
      key: `${title} ${what}`,
      title: page.metrics.length === 1 && what !== "mean" ? what : what === "mean" ? title : `${title} ${what}`,
      isNumber: true,
      valueOf: (group) => group.estimates[metric][place],
      cell: (group) => estimateText(group.estimates[metric], place, decimals),
    })),
  );
  const runs = { key: "runs", title: "runs", valueOf: (group) => group.runs.length, cell: (group) => members(page, group) };
  return [...levels, ...metrics, runs];
}

function estimateText(values, place, decimals) {
  if (place === 0) return String(values[0]);
  if (place < 3) return fixed(values[place], decimals);
  return values[3] === null ? "" : `${fixed(values[3], decimals)} to ${fixed(values[4], decimals)}`;
}

export function runLink(page, run) {
  const { label, link } = page.runs[run];
  return link ? element("a", { href: link }, label) : label;
}

function members(page, group) {
  const all = group.all.length === group.runs.length ? "" : ` of ${group.all.length}`;
  const links = group.runs.map((run) => element("li", {}, runLink(page, run)));
  return element(
    "details",
    {},
    element("summary", {}, `${group.runs.length}${all}`),
    group.note ? element("p", { class: "note" }, group.note) : null,
    element("ul", {}, links),
  );
}

export class RunTable {
  // looks: of items, as the plots have them.
  constructor(page, choices) {
    this.page = page;
    this.choices = choices;
    this.count = element("p", { class: "count", role: "status" });
    this.body = scrolling("Table of runs", element("table", { class: "sortable" }));
    this.node = element("div", {}, this.count, this.body);
  }

  // items: those of the plots, {label, look, runs, group}.
  show(state, shown, items) {
    const { page } = this;
    const grouping = page.groupings.find((one) => one.name === state.group);
    const groups = groupsOf(page, state.group, shown);
    const columns = grouping ? columnsOfGroups(page, grouping) : columnsOfRuns(page);
    const looks = new Map(items.map((item) => [grouping ? item.group : item.runs[0], item.look]));
    const key = state.sort.replace(/^-/, "");
    const sortedBy = columns.find((column) => column.key === key);
    const list = grouping ? groups : shown;
    const rows = sortedBy ? inOrder(list, sortedBy.valueOf, state.sort.startsWith("-")) : list;
    this.count.textContent = this.counts(shown, grouping && groups);
    const heading = element("tr", {}, this.chooser(grouping), columns.map((column) => this.heading(column, state)));
    const lines = rows.map((item) => this.row(item, columns, looks.get(grouping ? item.number : item), grouping, state));
    const table = element("table", { class: "sortable" }, element("thead", {}, heading), element("tbody", {}, lines));
    const focused = document.activeElement?.dataset?.key;
    this.body.replaceChildren(table);
    if (focused) table.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  counts(shown, groups) {
    const all = this.page.runs.length;
    const runs = shown.length === all ? counted(all, "run") : `${shown.length} of ${counted(all, "run")}`;
    return groups ? `${counted(groups.length, "group")} of ${runs}` : runs;
  }

  chooser(grouping) {
    return element("th", { scope: "col" }, element("span", { class: "unseen" }, grouping ? "Line" : "Line, and side by side"));
  }

  heading(column, state) {
    const isDown = state.sort === `-${column.key}`;
    const direction = isDown ? "descending" : state.sort === column.key ? "ascending" : null;
    // What is large is looked for first, of numbers.
    const next = direction === null ? (column.isNumber ? "-" : "") : direction === "ascending" ? "-" : "";
    const button = element(
      "button",
      { type: "button", "data-key": `sort ${column.key}`, onclick: () => this.choices.set({ sort: next + column.key }) },
      column.title,
      element("span", { class: "arrow", "aria-hidden": "true" }, direction === null ? "↕" : isDown ? "↓" : "↑"),
    );
    const attributes = { scope: "col", "aria-sort": direction, class: classes(column), title: column.differs ? "differs between runs" : null };
    return element("th", attributes, button);
  }

  row(item, columns, look, grouping, state) {
    const label = grouping ? item.name : this.page.runs[item].label;
    const chooser = element(
      "td",
      { class: "chooser" },
      grouping ? null : element("input", {
        type: "checkbox",
        "aria-label": `${label} side by side`,
        "data-key": `compare ${label}`,
        checked: state.compared.includes(label),
        onchange: () => this.choices.toggle("compared", label),
      }),
      look ? sample(look) : null,
    );
    const cells = columns.map((column, place) => {
      const tag = place === 0 ? ["th", { scope: "row" }] : ["td", {}];
      return element(tag[0], { ...tag[1], class: classes(column) }, column.cell(item));
    });
    return element("tr", {}, chooser, cells);
  }
}

function classes(column) {
  return [column.isNumber && "number", column.differs && "differs"].filter(Boolean).join(" ") || null;
}
