import assert from "node:assert/strict";
import test from "node:test";

import { curveOf, nearestPlace, plotted, positive, resampled } from "../../../../accel_trainer/report/page/assets/lines.mjs";

const split = (epochs, acc1) => ({ epochs, seconds: epochs.map((epoch) => 10 * epoch), scores: { acc1 } });
const page = {
  runs: [
    { splits: { val: split([1, 2, 3], [50, 60, 70]), train: split([1, 2, 3], [1, 2, 3]) } },
    { splits: { val: split([1, 3], [54, 72]) } },
    { splits: { val_ema: split([1], [9]) } },
  ],
};
const items = [{ label: "a", runs: [0] }, { label: "both", runs: [0, 1] }, { label: "c", runs: [2] }];
const view = { x: "epoch", smoothing: 0 };

test("a series is of the validation, or of the split that its name begins with", () => {
  assert.deepEqual(curveOf(page.runs[0], "acc1", "epoch").y, [50, 60, 70]);
  assert.deepEqual(curveOf(page.runs[0], "train/acc1", "seconds"), { x: [10, 20, 30], y: [1, 2, 3] });
  assert.deepEqual(curveOf(page.runs[2], "val_ema/acc1", "epoch").y, [9]);
  assert.equal(curveOf(page.runs[2], "acc1", "epoch"), null);
});

test("a group is the mean of what was measured at each epoch, with one standard deviation to each side", () => {
  const { x, lines } = plotted(page, items, "acc1", view);
  assert.deepEqual(x, [1, 2, 3]);
  assert.deepEqual(lines.map((line) => line.label), ["a", "both"]);
  const [a, both] = lines;
  assert.deepEqual([a.y, a.low], [[50, 60, 70], null]);
  assert.deepEqual([both.y, both.n], [[52, 60, 71], [2, 1, 2]]);
  const sd = Math.sqrt(8);
  assert.ok(Math.abs(both.high[0] - 52 - sd) < 1e-12 && Math.abs(52 - sd - both.low[0]) < 1e-12);
  assert.equal(both.high[1], 60);
});

test("over seconds a line is where it is straight between two measurements, and nowhere else", () => {
  const curve = { x: [10, 20, 40], y: [1, 3, null] };
  assert.deepEqual(resampled(curve, [0, 10, 15, 20, 30, 50]), [undefined, 1, 2, 3, null, undefined]);
  const { x, lines } = plotted(page, items, "acc1", { x: "seconds", smoothing: 0 });
  assert.equal(x.at(-1), 30);
  assert.equal(lines[0].y.at(-1), 70);
});

test("smoothing makes no band narrower than what was measured", () => {
  const { lines } = plotted(page, items.slice(1, 2), "acc1", { x: "epoch", smoothing: 0.5 });
  assert.ok(lines[0].high[2] - lines[0].y[2] > 0.5);
});

test("on a logarithmic axis nothing is at or below 0", () => {
  const [line] = positive([{ y: [0, 2, 4], low: [-1, 1, 3], high: [1, 3, 5] }]);
  assert.deepEqual([line.y, line.low], [[null, 2, 4], [2, 2, 3]]);
});

test("the nearest measured place is found, if there is any", () => {
  assert.equal(nearestPlace([undefined, 1, null, undefined], 3), 1);
  assert.equal(nearestPlace([null, undefined], 0), null);
});
