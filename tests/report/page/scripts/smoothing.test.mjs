import assert from "node:assert/strict";
import test from "node:test";

import { smoothed } from "../../../../accel_trainer/report/page/assets/smoothing.mjs";

test("an average of equal values is that value from the first one on", () => {
  for (const value of smoothed([3, 3, 3, 3], 0.9)) assert.ok(Math.abs(value - 3) < 1e-12);
});

test("values weigh less the older they are, as in wandb's panels", () => {
  // (1 - w) sum of w^(n-i) y_i, over 1 - w^n: of 0, 1 with w 0.5 that is 0.5 / 0.75.
  assert.deepEqual(smoothed([0, 1], 0.5), [0, 0.5 / 0.75]);
});

test("what was not measured stays so, and the average goes on behind it", () => {
  assert.deepEqual(smoothed([4, null, undefined, 4], 0.5), [4, null, undefined, 4]);
  const values = [1, 2];
  assert.equal(smoothed(values, 0), values);
});
