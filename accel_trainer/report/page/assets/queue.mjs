// The state of a queue, and reading the page again while it is being written.

import { element, scrolling, section } from "./dom.mjs";

const STATES = ["running", "pending", "held", "failed", "canceled", "done"];
const COLUMNS = ["job", "state", "epoch", "best", "where", "left", "note"];
// A file that was not written for so many times its interval is written no more.
const MISSED = 12;

export function queueSection(queue) {
  const counts = STATES.filter((state) => queue.counts[state]).map((state) =>
    element("div", { class: `state ${state}` }, element("dt", {}, state), element("dd", {}, String(queue.counts[state]))));
  const rows = queue.jobs.map((job) => {
    const cells = COLUMNS.slice(1).map((key) => element("td", {}, job[key] ?? "", key === "epoch" && job.progress !== null ? bar(job) : null));
    return element("tr", {}, element("th", { scope: "row" }, job.job), cells);
  });
  const head = element("tr", {}, COLUMNS.map((title) => element("th", { scope: "col" }, title)));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, rows));
  const list = rows.length ? scrolling("Jobs of the queue", table) : null;
  return section("queue", "Queue", element("p", { class: "note" }, queue.folder), element("dl", { class: "states" }, counts), list);
}

function bar(job) {
  return element("progress", { max: 1, value: job.progress, "aria-label": `${job.job}: ${Math.round(100 * job.progress)}%` });
}

// Read the page again at its interval, but not while somebody types, nor while nobody looks.
export function readAgain(page, reload, now = Date.now) {
  if (!page.again_s) return;
  const every = page.again_s * 1000;
  const isStale = () => now() - page.written * 1000 > MISSED * every;
  const isTyping = () => document.activeElement?.matches("input[type=search]");
  const look = () => {
    if (isStale()) return;
    if (document.hidden || isTyping()) setTimeout(look, 1000);
    else reload();
  };
  setTimeout(look, every);
}
