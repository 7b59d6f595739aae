// The exponential moving average of wandb's panels, with its correction of the bias towards 0 at the beginning.

// weight: 0 (nothing is smoothed) to below 1. What is no number stays as it is, and is passed over.
export function smoothed(values, weight) {
  if (!weight) return values;
  let last = 0;
  let correction = 1;
  return values.map((value) => {
    if (typeof value !== "number") return value;
    last = last * weight + (1 - weight) * value;
    correction *= weight;
    return last / (1 - correction);
  });
}
