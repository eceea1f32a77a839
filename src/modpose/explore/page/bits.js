// Masks: one byte an image here, one bit an image on the way.

export function pack(mask) {
  const bits = new Uint8Array(Math.ceil(mask.length / 8));
  for (let i = 0; i < mask.length; i++) if (mask[i]) bits[i >> 3] |= 1 << (i & 7);
  return bits;
}

export function unpack(bits, n) {
  const mask = new Uint8Array(n);
  for (let i = 0; i < n; i++) mask[i] = (bits[i >> 3] >> (i & 7)) & 1;
  return mask;
}

export function count(mask) {
  let total = 0;
  for (let i = 0; i < mask.length; i++) total += mask[i];
  return total;
}

// What a new choice makes of the selection: "replace", "or", "and", "not".
export function combine(before, chosen, how) {
  const mask = new Uint8Array(before.length);
  for (let i = 0; i < mask.length; i++) {
    if (how === "or") mask[i] = before[i] | chosen[i];
    else if (how === "and") mask[i] = before[i] & chosen[i];
    else if (how === "not") mask[i] = before[i] & (1 - chosen[i]);
    else mask[i] = chosen[i];
  }
  return mask;
}

// A bar as long as a round number of angstrom, for a picture of some boxes side by side; none if
// the pixel size is unknown.
export function scaleBar({ pixel_size: size, box }, boxes) {
  if (!size) return [];
  const most = 0.45 * box * size, decade = 10 ** Math.floor(Math.log10(most));
  const length = Math.max(...[1, 2, 5].map((step) => step * decade).filter((one) => one <= most * (1 + 1e-9)));
  const bar = Object.assign(document.createElement("span"), { className: "scale", textContent: length < 1000 ? `${length} Å` : `${length / 10} nm` });
  bar.style.width = `${(100 * length) / (size * box * boxes)}%`;
  return [bar];
}
