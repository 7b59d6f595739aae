// What a person has chosen, kept in the address of the page: a link, and a page that is read again, show the same.

const STARTS = {
  filter: "",
  chosen: {},
  sort: "",
  group: "",
  series: [],
  x: "epoch",
  log: false,
  smoothing: 0,
  hidden: [],
  compared: [],
  confusion: "",
};

export function toHash(state, start) {
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    const text = JSON.stringify(value);
    if (text !== JSON.stringify(start[key])) words.set(key, typeof value === "string" ? value : text);
  }
  return String(words);
}

// A link may be anybody's: what is not of the kind that a choice is of is left out.
export function fromHash(hash, start) {
  const state = { ...start };
  for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (!Object.hasOwn(STARTS, key)) continue;
    const value = typeof STARTS[key] === "string" ? text : parsed(text);
    if (isOfKind(value, STARTS[key])) state[key] = value;
  }
  state.smoothing = Math.min(Math.max(state.smoothing, 0), 0.99);
  if (state.x !== "seconds") state.x = "epoch";
  return state;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isOfKind(value, start) {
  if (Array.isArray(start)) return Array.isArray(value);
  if (typeof start !== "object") return typeof value === typeof start;
  return typeof value === "object" && value !== null && Object.values(value).every(Array.isArray);
}

// The choices at first, and who wants to know of each change.
export class Choices {
  constructor(start, place) {
    this.start = { ...STARTS, ...start };
    this.place = place;
    this.state = fromHash(place.hash, this.start);
    this.watchers = [];
  }

  watch(keys, tell) {
    this.watchers.push({ keys, tell });
    tell(this.state);
  }

  set(changes) {
    const changed = Object.keys(changes).filter(
      (key) => JSON.stringify(changes[key]) !== JSON.stringify(this.state[key]),
    );
    if (!changed.length) return;
    this.state = { ...this.state, ...changes };
    this.place.keep(toHash(this.state, this.start));
    for (const { keys, tell } of this.watchers) {
      if (keys.some((key) => changed.includes(key))) tell(this.state);
    }
  }

  toggle(key, value) {
    const list = this.state[key];
    this.set({ [key]: list.includes(value) ? list.filter((one) => one !== value) : [...list, value] });
  }
}
