// What differs between runs: each value a filter, and the runs that are chosen side by side.

import { element, scrolling, section, toggle } from "./dom.mjs";
import { counted } from "./numbers.mjs";
import { runLink } from "./table.mjs";

// More values than these are counted.
const MOST_VALUES = 12;
export const NOTHING = "–";

export class Differences {
  constructor(page, choices) {
    this.page = page;
    this.choices = choices;
    this.buttons = [];
    const rows = page.differences.map((parameter) => this.parameter(parameter));
    this.together = element("div", {});
    const none = element("p", {}, "No parameter differs.");
    const hint = element("p", { class: "note" }, "A value is a filter: only the runs that have it are shown.");
    this.node = section("differences", "What differs", rows.length ? [hint, element("dl", { class: "facets" }, rows)] : none, this.together);
  }

  parameter(parameter) {
    const many = parameter.values.length > MOST_VALUES;
    const [first, last] = [parameter.values[0], parameter.values.filter((value) => value.text !== null).at(-1)];
    const values = many ? `${counted(parameter.values.length, "value")}, ${first.text} to ${last.text}` : parameter.values.map((value) => this.value(parameter.key, value));
    return element("div", {}, element("dt", { title: parameter.keys.join(", ") }, parameter.title), element("dd", {}, values));
  }

  value(key, value) {
    const label = [element("span", {}, value.text ?? NOTHING), element("span", { class: "count" }, ` ${value.runs.length}`)];
    const onclick = () => {
      const { chosen } = this.choices.state;
      const texts = chosen[key] ?? [];
      const left = texts.includes(value.text) ? texts.filter((one) => one !== value.text) : [...texts, value.text];
      const { [key]: _, ...others } = chosen;
      this.choices.set({ chosen: left.length ? { ...others, [key]: left } : others });
    };
    const button = toggle(label, false, onclick, { title: value.text, "aria-label": `${key} ${value.text ?? "not there"}, ${counted(value.runs.length, "run")}` });
    this.buttons.push({ key, text: value.text, button });
    return button;
  }

  show(state) {
    for (const { key, text, button } of this.buttons) {
      button.setAttribute("aria-pressed", String((state.chosen[key] ?? []).includes(text)));
    }
    const compared = this.page.runs.map((run, place) => place).filter((place) => state.compared.includes(this.page.runs[place].label));
    this.together.replaceChildren(...(compared.length > 1 ? this.sideBySide(compared) : []));
  }

  sideBySide(compared) {
    const textOf = (parameter, run) => parameter.values.find((value) => value.runs.includes(run))?.text ?? NOTHING;
    const rows = this.page.differences
      .map((parameter) => [parameter, compared.map((run) => textOf(parameter, run))])
      .filter(([, texts]) => new Set(texts).size > 1)
      .map(([parameter, texts]) => {
        const cells = texts.map((text) => element("td", {}, text === texts[0] ? text : element("mark", {}, text)));
        return element("tr", {}, element("th", { scope: "row" }, parameter.title), cells);
      });
    const head = element("tr", {}, element("th", { scope: "col" }, "parameter"), compared.map((run) => element("th", { scope: "col" }, runLink(this.page, run))));
    const caption = element("caption", {}, "What differs between the chosen runs; marked: what is not as in the first one.");
    const table = element("table", {}, caption, element("thead", {}, head), element("tbody", {}, rows));
    const clear = element("button", { type: "button", onclick: () => this.choices.set({ compared: [] }) }, "choose none");
    return [element("h3", {}, "Side by side"), scrolling("Chosen runs side by side", table), element("p", {}, clear)];
  }
}
