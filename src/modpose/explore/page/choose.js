// Which images lie in a polygon, and which are nearest in content.

// corners: [[x, y], ...]; x, y: Float32Array (N); shown: mask or null. Even-odd rule.
export function inside(corners, x, y, shown) {
  const mask = new Uint8Array(x.length);
  const xs = corners.map((c) => c[0]), ys = corners.map((c) => c[1]), m = corners.length;
  const left = Math.min(...xs), right = Math.max(...xs);
  const low = Math.min(...ys), high = Math.max(...ys);
  for (let i = 0; i < x.length; i++) {
    const px = x[i], py = y[i];
    if (!(px >= left && px <= right && py >= low && py <= high)) continue;
    if (shown && !shown[i]) continue;
    let odd = 0;
    for (let a = 0, b = m - 1; a < m; b = a++) {
      if (ys[a] > py !== ys[b] > py && px < ((xs[b] - xs[a]) * (py - ys[a])) / (ys[b] - ys[a]) + xs[a]) odd ^= 1;
    }
    mask[i] = odd;
  }
  return mask;
}

// The count images of the least distance to one image; columns: of content, (N) each.
export function nearest(columns, row, count, shown) {
  const n = columns[0].length, far = new Float32Array(n);
  for (const z of columns) {
    const here = z[row];
    for (let i = 0; i < n; i++) far[i] += (z[i] - here) ** 2;
  }
  if (shown) for (let i = 0; i < n; i++) if (!shown[i]) far[i] = Infinity;
  const most = far.slice().sort()[Math.min(count, n) - 1];
  const mask = new Uint8Array(n);
  let left = count;
  for (let i = 0; i < n && left; i++) if (far[i] < most) (mask[i] = 1), left--;
  for (let i = 0; i < n && left; i++) if (far[i] === most && most < Infinity) (mask[i] = 1), left--;
  return mask;
}
