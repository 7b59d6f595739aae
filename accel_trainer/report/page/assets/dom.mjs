// Elements from names, attributes and children. Texts are only ever texts: nothing is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

// attributes: `onclick` and the like are listeners, `style` an object of properties, true is an attribute without value;
// null and false are none.
export function element(name, attributes, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function drawing(name, attributes, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [property, one] of Object.entries(value)) node.style.setProperty(property, one);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return node;
}

// A section with a heading, which the contents of the page link to.
export function section(id, title, ...children) {
  const heading = element("h2", { id: `${id}-title` }, title);
  return element("section", { id, "aria-labelledby": `${id}-title`, tabindex: "-1" }, heading, children);
}

// A button that is on or off.
export function toggle(text, isOn, onclick, attributes) {
  return element("button", { type: "button", "aria-pressed": String(isOn), onclick, ...attributes }, text);
}

// A table that is wider than the page is scrolled by itself, also by keyboard.
export function scrolling(label, child) {
  return element("div", { class: "scrolling", role: "region", "aria-label": label, tabindex: "0" }, child);
}

// A table of texts, the first cell of each row being its heading.
export function plainTable(caption, header, rows) {
  return element(
    "table",
    {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, header.map((text) => element("th", { scope: "col" }, text)))),
    element(
      "tbody",
      {},
      rows.map(([first, ...rest]) =>
        element("tr", {}, element("th", { scope: "row" }, first), rest.map((cell) => element("td", {}, cell)))),
    ),
  );
}
