// Numbers at the edges of a scatter: round values of its two columns, where they are in the view.

const APART = [90, 60]; // pixels between two numbers, at least: across, up

// Round numbers (1, 2 or 5 times a power of ten apart) from low to high, at most `most` of them.
export function ticks(low, high, most) {
  const least = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= least * (1 - 1e-9));
  if (!(step > 0 && step < Infinity)) return [];
  const first = Math.ceil(low / step), found = [];
  for (let k = first; k * step <= high; k++) found.push(+(k * step).toPrecision(12));
  return found;
}

// Write them into `edge`, an element over the scatter; ranges: those of x and y in the view.
export function drawTicks(edge, ranges) {
  const { width, height } = edge.getBoundingClientRect();
  const marks = [width, height].flatMap((size, axis) => {
    const [low, high] = ranges[axis];
    return ticks(low, high, Math.floor(size / APART[axis])).map((value) => {
      const mark = document.createElement("span"), at = `${(100 * (value - low)) / (high - low)}%`;
      mark.className = axis ? "up" : "across";
      mark.style[axis ? "bottom" : "left"] = at;
      mark.textContent = String(value).replace("-", "−");
      return mark;
    });
  });
  edge.replaceChildren(...marks);
}
