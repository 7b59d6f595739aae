// Sample sheets: what models were shown. One is enlarged by its button.

import { element, section } from "./dom.mjs";
import { counted } from "./numbers.mjs";
import { runLink } from "./table.mjs";

export class Sheets {
  constructor(page) {
    this.page = page;
    this.large = element("img", { alt: "" });
    const close = element("button", { type: "button", onclick: () => this.dialog.close() }, "close");
    this.dialog = element("dialog", { "aria-label": "Sample sheet" }, close, this.large);
    this.grid = element("div", { class: "sheets" });
    this.cards = page.sheets.map((sheet) => ({ sheet, node: this.card(sheet) }));
    this.node = section("sheets", "Training images", this.grid, this.dialog);
  }

  card(sheet) {
    const first = this.page.runs[sheet.runs[0]].label;
    const alt = `Training images of ${first} as its model sees them`;
    const picture = element("img", { src: sheet.source, width: sheet.width, height: sheet.height, alt, decoding: "async" });
    const open = () => {
      Object.assign(this.large, { src: sheet.source, alt });
      this.dialog.showModal();
    };
    const others = sheet.runs.length > 1 ? ` and ${counted(sheet.runs.length - 1, "replicate")}` : "";
    const button = element("button", { type: "button", class: "picture", "aria-label": `${alt}: enlarge`, onclick: open }, picture);
    return element("figure", { "aria-label": alt }, button, element("figcaption", {}, runLink(this.page, sheet.runs[0]), others));
  }

  show(shown) {
    this.grid.replaceChildren(...this.cards.filter(({ sheet }) => sheet.runs.some((run) => shown.includes(run))).map(({ node }) => node));
  }
}
