// Means and intervals of the runs that a filter leaves, as report/groups.py computes them of all.

export function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

// Standard deviation with n - 1; null of fewer than two values.
export function deviation(values) {
  if (values.length < 2) return null;
  const center = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - center) ** 2, 0) / (values.length - 1));
}

// [n, mean, sd, low, high], the last two the 95% interval of the mean. quantiles: of Student's t, the first of one degree.
export function estimate(values, quantiles) {
  const [n, center, sd] = [values.length, mean(values), deviation(values)];
  if (sd === null) return [n, center, null, null, null];
  const half = (quantiles[n - 2] * sd) / Math.sqrt(n);
  return [n, center, sd, center - half, center + half];
}
