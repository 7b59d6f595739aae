// Numbers as texts.

const MINUS = "\u2212";

export function fixed(value, decimals) {
  return value === null || value === undefined ? "" : value.toFixed(decimals).replace(/^-/, MINUS);
}

// With as many digits as tell neighbors apart, without zeros at the end.
export function short(value, digits = 5) {
  if (value === null || value === undefined) return "";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-4 ? value.toExponential(2) : String(Number(value.toPrecision(digits)));
  return text.replace(/^-/, MINUS);
}

// As the terminal has durations: 45s, 3m 05s, 2h 07m, 3d 04h.
export function duration(seconds) {
  const whole = Math.round(seconds);
  const padded = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${padded(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h ${padded(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86400)}d ${padded(Math.floor((whole % 86400) / 3600))}h`;
}

export function counted(number, what) {
  return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
}
