import assert from "node:assert/strict";
import test from "node:test";

import { counted, duration, fixed, short } from "../../../../accel_trainer/report/page/assets/numbers.mjs";

test("numbers have as many digits as can be seen", () => {
  assert.deepEqual([0, 0.1 + 0.2, 123456, 2.5e7, -3e-7, null].map((value) => short(value)), ["0", "0.3", "123460", "2.50e+7", "\u22123.00e-7", ""]);
  assert.equal(short(0.5678, 2), "0.57");
  assert.deepEqual([fixed(1.005, 1), fixed(-2, 2), fixed(null, 2)], ["1.0", "\u22122.00", ""]);
  assert.deepEqual([counted(1, "run"), counted(1200, "run")], ["1 run", "1,200 runs"]);
});

test("durations are those of the terminal", () => {
  assert.deepEqual([45, 185, 7620, 273600].map(duration), ["45s", "3m 05s", "2h 07m", "3d 04h"]);
});
