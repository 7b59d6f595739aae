import assert from "node:assert/strict";
import test from "node:test";

import { deviation, estimate, mean } from "../../../../accel_trainer/report/page/assets/statistics.mjs";

test("mean and standard deviation, with n - 1, of few values", () => {
  assert.equal(mean([1, 2, 6]), 3);
  assert.ok(Math.abs(deviation([1, 2, 6]) - Math.sqrt(7)) < 1e-12);
  assert.deepEqual([mean([]), deviation([]), deviation([5])], [null, null, null]);
});

test("an interval is as wide as Student's t for so many values makes it", () => {
  const [n, center, sd, low, high] = estimate([80, 81, 82], [12.7062, 4.302653]);
  assert.deepEqual([n, center, sd], [3, 81, 1]);
  assert.ok(Math.abs(high - (81 + 4.302653 / Math.sqrt(3))) < 1e-9);
  assert.ok(Math.abs(low + high - 162) < 1e-9);
  assert.deepEqual(estimate([7], []), [1, 7, null, null, null]);
});
