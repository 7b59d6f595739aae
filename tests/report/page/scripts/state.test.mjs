import assert from "node:assert/strict";
import test from "node:test";

import { Choices, fromHash, toHash } from "../../../../accel_trainer/report/page/assets/state.mjs";

const START = { filter: "", chosen: {}, sort: "", group: "", series: ["loss"], x: "epoch", log: false, smoothing: 0, hidden: [], compared: [], confusion: "" };

test("choices come back from the address that they were written to", () => {
  const state = { ...START, filter: "a&b=c #", chosen: { "a.lr": ["0.1", null] }, sort: "-best", log: true, smoothing: 0.6, hidden: ["é"] };
  assert.deepEqual(fromHash(`#${toHash(state, START)}`, START), state);
  assert.equal(toHash(START, START), "");
});

test("an address of anybody's is taken as far as it can be one", () => {
  const strange = "smoothing=7&series=5&chosen=[1]&hidden={&x=years&log=1&nonsense=1&__proto__=2&chosen={\"lr\":3}";
  assert.deepEqual(fromHash(strange, START), { ...START, smoothing: 0.99 });
});

test("who watches a choice is told when it changes, and only then", () => {
  const kept = [];
  const told = [];
  const choices = new Choices({ series: ["loss"] }, { hash: "", keep: (hash) => kept.push(hash) });
  choices.watch(["log"], (state) => told.push(state.log));
  choices.set({ log: true });
  choices.set({ log: true });
  choices.toggle("hidden", "a");
  choices.toggle("hidden", "a");
  assert.deepEqual(told, [false, true]);
  assert.deepEqual(kept, ["log=true", "log=true&hidden=%5B%22a%22%5D", "log=true"]);
});
