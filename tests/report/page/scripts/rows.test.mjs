import assert from "node:assert/strict";
import test from "node:test";

import { fitting, groupsOf, inOrder } from "../../../../accel_trainer/report/page/assets/rows.mjs";

const page = {
  runs: [{ label: "net-0" }, { label: "net-1" }, { label: "other-0" }],
  table: { cells: [["net-0", "0.1"], ["net-1", "0.05"], ["other-0", "0.1"]] },
  differences: [
    { key: "lr", values: [{ text: "0.05", runs: [1] }, { text: "0.1", runs: [0, 2] }] },
    { key: "Blur", values: [{ text: "on", runs: [0] }, { text: null, runs: [1, 2] }] },
  ],
  metrics: [["best", 2]],
  metric_values: [[80, 82, null]],
  quantiles: [12.7062, 4.302653],
  groupings: [{ name: "job", groups: [
    { name: "net", runs: [0, 1], estimates: [[2, 81, 1.5, 68, 94]] },
    { name: "other", runs: [2], estimates: [[0, null, null, null, null]] },
  ] }],
};

test("rows are sorted by numbers, then words, and what is missing comes last both ways", () => {
  const values = ["b", 10, null, 9, "a"];
  assert.deepEqual(inOrder(values, (value) => value, false), [9, 10, "a", "b", null]);
  assert.deepEqual(inOrder(values, (value) => value, true), ["b", "a", 10, 9, null]);
});

test("all words have to be somewhere in a row, and of each parameter one of the values", () => {
  assert.deepEqual(fitting(page, "", {}), [0, 1, 2]);
  assert.deepEqual(fitting(page, "NET 0.1", {}), [0]);
  assert.deepEqual(fitting(page, "", { lr: ["0.1"] }), [0, 2]);
  assert.deepEqual(fitting(page, "", { lr: ["0.1", "0.05"], Blur: [null] }), [1, 2]);
  assert.deepEqual(fitting(page, "", { unknown: ["1"] }), []);
});

test("a group has what was computed of it, and of some of its runs what they give", () => {
  const [net, other] = groupsOf(page, "job", [0, 1, 2]);
  assert.deepEqual([net.estimates, net.number], [[[2, 81, 1.5, 68, 94]], 0]);
  assert.equal(other.name, "other");
  const [part] = groupsOf(page, "job", [1]);
  assert.deepEqual([part.runs, part.all, part.estimates], [[1], [0, 1], [[1, 82, null, null, null]]]);
  assert.deepEqual(groupsOf(page, "nothing", [0]), []);
});
