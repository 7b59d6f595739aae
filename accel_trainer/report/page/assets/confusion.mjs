// Confusion matrices: the one of a run that is chosen, with shares as shades and counts as texts.

import { element, plainTable, scrolling, section } from "./dom.mjs";

const WITH_NUMBERS = 20;

export class Confusions {
  constructor(page, choices) {
    this.page = page;
    this.choices = choices;
    this.names = page.confusions.map((one) => nameOf(page, one));
    this.select = element("select", { id: "which-confusion", onchange: (event) => choices.set({ confusion: event.target.value }) });
    this.box = element("div", {});
    const label = element("label", { for: "which-confusion" }, "Answers of");
    this.node = section("confusions", "Confusion", element("p", { class: "control" }, label, " ", this.select), this.box);
  }

  show(state, shown) {
    const there = this.page.confusions.map((one, place) => place).filter((place) => shown.includes(this.page.confusions[place].run));
    this.select.replaceChildren(...there.map((place) => element("option", {}, this.names[place])));
    const wanted = there.find((place) => this.names[place] === state.confusion) ?? there[0];
    if (wanted === undefined) return this.box.replaceChildren(element("p", {}, "None of the runs that are shown."));
    this.select.value = this.names[wanted];
    const one = this.page.confusions[wanted];
    const title = this.names[wanted];
    return this.box.replaceChildren(scrolling(title, one.counts.length ? matrix(one, title) : pairs(one, title)));
  }
}

function nameOf(page, one) {
  return [page.runs[one.run].label, one.evaluation, one.degradation].filter(Boolean).join(", ");
}

function matrix(one, title) {
  const heads = one.responses.map((name) => element("th", { scope: "col" }, element("span", {}, name)));
  const rows = one.classes.map((name, row) => {
    const total = one.counts[row].reduce((sum, count) => sum + count, 0);
    const cells = one.counts[row].map((count, column) => cell(count, total, row === column, one, row, column));
    return element("tr", {}, element("th", { scope: "row" }, name), cells);
  });
  const caption = element("caption", {}, `${title}: rows are true classes, columns answers; a shade is the share of the row.`);
  const corner = element("td", {});
  const small = one.responses.length <= WITH_NUMBERS ? "" : " dense";
  return element("table", { class: `matrix${small}` }, caption, element("thead", {}, element("tr", {}, corner, heads)), element("tbody", {}, rows));
}

function cell(count, total, isRight, one, row, column) {
  const share = total ? count / total : 0;
  const text = count ? count.toLocaleString("en") : "";
  const attributes = {
    class: [isRight ? "right" : "wrong", share > 0.55 && "strong"].filter(Boolean).join(" "),
    style: { "--share": `${Math.round(100 * Math.sqrt(share))}%` },
    title: `${one.classes[row]} answered as ${one.responses[column]}: ${count} of ${total}`,
  };
  return element("td", attributes, text);
}

function pairs(one, title) {
  const rows = one.pairs.map(([truth, response, count, n]) => [truth, response, `${count.toLocaleString("en")} of ${n.toLocaleString("en")}`]);
  return plainTable(`${title}: the most frequent confusions of many classes`, ["true class", "answer", "images"], rows);
}
