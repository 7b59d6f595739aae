// The lines of all plots, each a button that shows or hides it.

import { element, toggle } from "./dom.mjs";
import { sample } from "./palette.mjs";

export class Legend {
  constructor(choices) {
    this.choices = choices;
    this.list = element("ul", { class: "legend", "aria-label": "Lines" });
    const all = (text, hidden) => element("button", { type: "button", onclick: () => choices.set({ hidden: hidden() }) }, text);
    const labels = () => this.items.map((item) => item.label);
    this.node = element("div", { class: "legends" }, this.list, element("p", {}, all("show all", () => []), " ", all("hide all", labels)));
  }

  show(items, hidden) {
    const before = items.map((item) => item.label).join("\n");
    this.items = items;
    if (before === this.before) {
      items.forEach((item) => this.buttons.get(item.label).setAttribute("aria-pressed", String(!hidden.includes(item.label))));
      return;
    }
    this.before = before;
    this.buttons = new Map(
      items.map((item) => [
        item.label,
        toggle([sample(item.look), element("span", {}, item.label)], !hidden.includes(item.label), () => this.choices.toggle("hidden", item.label), {
          "data-key": `line ${item.label}`,
        }),
      ]),
    );
    this.list.replaceChildren(...[...this.buttons.values()].map((button) => element("li", {}, button)));
  }

  // The line that the pointer is at, or null.
  point(label) {
    if (label === this.near) return;
    this.buttons?.get(this.near)?.classList.remove("near");
    this.buttons?.get(label)?.classList.add("near");
    this.near = label;
  }
}
