// From the numbers of a column to colours: a ramp for numbers, a palette for a few classes.

const RAMP = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const PALETTE = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#44bb99", "#997700", "#6699cc",
  "#cc3311", "#009988", "#ee3377", "#bbcc33", "#77aadd", "#882255", "#ddcc77", "#117733", "#88ccee", "#332288"];
const MISSING = "#999999", STEPS = 128, MOST = 20;

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const hex = (c) => "#" + c.map((v) => Math.round(v).toString(16).padStart(2, "0")).join("");

function ramp(steps) {
  const stops = RAMP.map(rgb);
  return Array.from({ length: steps }, (_, i) => {
    const t = (i / (steps - 1)) * (stops.length - 1), k = Math.min(Math.floor(t), stops.length - 2);
    return hex(stops[k].map((v, c) => v + (t - k) * (stops[k + 1][c] - v)));
  });
}

// The 1 % and 99 % quantiles of the finite values, from a sample.
export function extent(values, low = 0.01) {
  const step = Math.max(1, Math.floor(values.length / 50000)), some = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) some.push(values[i]);
  some.sort((a, b) => a - b);
  if (!some.length) return [0, 1];
  const a = some[Math.floor(low * (some.length - 1))], b = some[Math.ceil((1 - low) * (some.length - 1))];
  return a < b ? [a, b] : [a - 0.5, b + 0.5];
}

// The different whole numbers of a column if they are few; null otherwise.
function classes(values) {
  const found = new Set();
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (Number.isNaN(v)) continue;
    if (!Number.isInteger(v)) return null;
    found.add(v);
    if (found.size > MOST) return null;
  }
  return [...found].sort((a, b) => a - b);
}

// { codes (N) into colours, colours, labels or null, extent }; the last colour is "missing".
export function encode(values, names) {
  const codes = new Uint16Array(values.length), known = names ? names.map((_, i) => i) : classes(values);
  if (known) {
    const place = new Map(known.map((v, i) => [v, i]));
    for (let i = 0; i < codes.length; i++) codes[i] = place.get(values[i]) ?? known.length;
    const colours = known.map((_, i) => PALETTE[i % PALETTE.length]);
    return { codes, colours: [...colours, MISSING], labels: known.map((v) => (names ? names[v] : String(v))), known };
  }
  const [low, high] = extent(values);
  for (let i = 0; i < codes.length; i++) {
    const t = Math.round(((values[i] - low) / (high - low)) * (STEPS - 1));
    codes[i] = Number.isNaN(t) ? STEPS : Math.max(0, Math.min(STEPS - 1, t));
  }
  return { codes, colours: [...ramp(STEPS), MISSING], labels: null, extent: [low, high] };
}

export const toRgb = rgb;
