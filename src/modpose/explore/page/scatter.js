// The scatter.  Of more than MANY images the component draws at most MOST points, taken at random
// from those in view, so that it stays fluid; a picture of the density shows all of them.

import createScatterplot, { createRenderer } from "explore/regl-scatterplot";
import { toRgb } from "explore/colours";
import { drawTicks } from "explore/ticks";

const MANY = 30000, MOST = 10000, CELL = 4, REST = 250;

function order(n) {
  const rows = new Uint32Array(n);
  let seed = 1;
  for (let i = 0; i < n; i++) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((seed / 4294967296) * (i + 1));
    rows[i] = rows[j];
    rows[j] = i;
  }
  return rows;
}

function range(values) {
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (v < low && v > -Infinity) low = v;
    if (v > high && v < Infinity) high = v;
  }
  if (!(low <= high)) return [-1, 1];
  return low < high ? [low, high] : [low - 1, high + 1];
}

const scale = (domain) => {
  let now = domain, reach = [0, 1];
  return { domain: (d) => (d ? (now = d) : now), range: (r) => (r ? (reach = r) : reach) };
};

export class Scatter {
  // on: { hover(row or -1), click(row or -1, [x, y]), area(corners) } in numbers of the columns
  constructor(stage, on) {
    this.stage = stage;
    this.on = on;
    [this.density, this.canvas] = stage.querySelectorAll("canvas");
    this.edge = stage.querySelector(".ticks");
    this.rows = [];
    const { width, height } = stage.getBoundingClientRect();
    const canvas = document.createElement("canvas");
    canvas.getContext("webgl", { antialias: false, depth: false }); // squares need neither
    this.renderer = createRenderer({ canvas });
    this.renderer.resize(width, height); // not the size of the window, which costs frames
    this.plot = createScatterplot({
      renderer: this.renderer, renderPointsAsSquares: true, canvas: this.canvas, width, height, aspectRatio: width / height, syncEvents: true,
      xScale: scale([-1, 1]), yScale: scale([-1, 1]), lassoColor: "#d9482b", lassoLineWidth: 2,
      colorBy: "valueA", opacityBy: "valueB", sizeBy: "valueB", opacity: [0.25, 0.85], pointSize: [3, 4],
      deselectOnDblClick: false, showReticle: false, pointColorHover: "#d9482b",
    });
    this.view = [-1, 1, -1, 1];
    this.plot.subscribe("pointover", (i) => this.held || on.hover(this.rows[i]));
    this.plot.subscribe("pointout", () => on.hover(-1));
    this.plot.subscribe("select", () => this.plot.deselect({ preventEvent: true }));
    this.plot.subscribe("lassoEnd", ({ coordinates }) => this.#area(coordinates));
    this.plot.subscribe("view", ({ xScale, yScale }) => this.#moved([...xScale.domain(), ...yScale.domain()]));
    this.#clicks();
    new ResizeObserver(() => this.#resize()).observe(stage);
  }

  set(x, y) {
    if (!this.order || this.order.length !== x.length) this.order = order(x.length);
    this.ranges = [range(x), range(y)];
    [this.x, this.y] = [x, y].map((values, axis) => {
      const [low, high] = this.ranges[axis];
      return values.map((v) => ((v - low) / (high - low)) * 1.9 - 0.95);
    });
    this.#ticks();
  }

  // codes (N) into colours; selected and shown: masks or null for all
  show(codes, colours, selected, shown) {
    Object.assign(this, { codes, colours, selected, shown });
    return this.draw();
  }

  async draw() {
    if (this.drawing) return (this.again = true);
    this.drawing = true;
    try {
      do {
        this.again = false;
        this.#density();
        await this.#points();
      } while (this.again);
    } finally {
      this.drawing = false;
    }
    this.stage.dataset.drawn = String(this.rows.length);
  }

  async #points() {
    const { x, y, codes, selected, shown, order } = this, [l, r, b, t] = this.view, rows = [];
    const most = order.length > MANY ? MOST : MANY;
    for (let i = 0; i < order.length && rows.length < most; i++) {
      const row = order[i];
      if (shown && !shown[row]) continue;
      if (x[row] >= l && x[row] <= r && y[row] >= b && y[row] <= t) rows.push(row);
    }
    this.rows = rows;
    if (!rows.length) return this.plot.clear();
    this.plot.set({ pointColor: this.colours });
    const points = { x: rows.map((i) => x[i]), y: rows.map((i) => y[i]), z: rows.map((i) => codes[i]) };
    points.w = rows.map((i) => (selected && !selected[i] ? 0 : 1));
    await this.plot.draw(points, { zDataType: "categorical", wDataType: "categorical" });
  }

  // All rows, counted in cells; a cell has the mean colour of its rows.
  #density() {
    const { x, y, codes, selected, shown } = this, [l, r, b, t] = this.view, n = x.length;
    this.cells = null;
    if (n > MANY) {
      const { width: w, height: h } = this.density;
      const sum = new Float32Array(4 * w * h), lut = Float32Array.from(this.colours.flatMap(toRgb));
      const sx = w / (r - l), sy = h / (t - b);
      for (let i = 0; i < n; i++) {
        if (shown && !shown[i]) continue;
        const cx = Math.floor((x[i] - l) * sx), cy = Math.floor((t - y[i]) * sy);
        if (!(cx >= 0 && cx < w && cy >= 0 && cy < h)) continue;
        const k = 4 * (cy * w + cx), weight = selected && !selected[i] ? 0.03 : 1, c = 3 * codes[i];
        sum[k] += weight * lut[c];
        sum[k + 1] += weight * lut[c + 1];
        sum[k + 2] += weight * lut[c + 2];
        sum[k + 3] += weight;
      }
      this.cells = this.#picture(sum, w, h);
      this.cellsView = [...this.view];
    }
    this.#place();
  }

  #picture(sum, w, h) {
    let most = 0;
    for (let k = 3; k < sum.length; k += 4) most = Math.max(most, sum[k]);
    const image = new ImageData(w, h), full = Math.log1p(most) || 1;
    for (let k = 0; k < sum.length; k += 4) {
      const weight = sum[k + 3];
      if (!weight) continue;
      for (let c = 0; c < 3; c++) image.data[k + c] = sum[k + c] / weight;
      image.data[k + 3] = 255 * Math.min(1, 0.1 + 0.75 * (Math.log1p(weight) / full));
    }
    const canvas = new OffscreenCanvas(w, h);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  #place() {
    const context = this.density.getContext("2d"), { width, height } = this.density;
    context.clearRect(0, 0, width, height);
    if (!this.cells) return;
    const [l, r, b, t] = this.view, [cl, cr, cb, ct] = this.cellsView;
    const sx = width / (r - l), sy = height / (t - b);
    context.drawImage(this.cells, (cl - l) * sx, (t - ct) * sy, (cr - cl) * sx, (ct - cb) * sy);
  }

  #moved(view) {
    this.view = view;
    this.#place();
    this.#ticks();
    this.#rest();
  }

  // Once the view is at rest, draw the points in it.
  #rest() {
    clearTimeout(this.waiting);
    if (!this.x || this.x.length <= MANY) return;
    this.waiting = setTimeout(() => (this.held ? this.#rest() : this.draw()), REST);
  }

  #ticks() {
    if (!this.ranges) return;
    const [l, r, b, t] = this.view, [[left, bottom], [right, top]] = [[l, b], [r, t]].map((at) => this.numbers(at));
    drawTicks(this.edge, [[left, right], [bottom, top]]);
  }

  #area(coordinates) {
    if (coordinates.length > 2) this.on.area(coordinates);
  }

  #clicks() {
    let down = [0, 0], hovered = -1;
    this.plot.subscribe("pointover", (i) => (hovered = this.rows[i]));
    this.plot.subscribe("pointout", () => (hovered = -1));
    this.canvas.addEventListener("pointerdown", (event) => {
      down = [event.clientX, event.clientY];
      this.held = true;
    });
    for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => (this.held = false));
    this.canvas.addEventListener("click", (event) => {
      if (Math.hypot(event.clientX - down[0], event.clientY - down[1]) > 4) return;
      const box = this.canvas.getBoundingClientRect(), [l, r, b, t] = this.view;
      const u = (event.clientX - box.left) / box.width, v = (event.clientY - box.top) / box.height;
      this.on.click(hovered, this.numbers([l + u * (r - l), t - v * (t - b)]));
    });
  }

  // From places of the plot to numbers of the two columns.
  numbers(place) {
    return place.map((v, axis) => {
      const [low, high] = this.ranges[axis];
      return low + ((v + 0.95) / 1.9) * (high - low);
    });
  }

  tool(name) {
    this.plot.set({ mouseMode: name === "pan" ? "panZoom" : "lasso", lassoType: name === "box" ? "rectangle" : "freeform" });
  }

  mark(row) {
    const i = this.rows.indexOf(row);
    this.plot.hover(i, { preventEvent: true });
  }

  move(dx, dy, zoom = 1) {
    const camera = this.plot.get("camera");
    if (zoom === 1) camera.pan([dx, dy]);
    else camera.scale(zoom, [0, 0]);
    this.plot.redraw();
  }

  whole() {
    this.plot.reset();
  }

  #resize() {
    const { width, height } = this.stage.getBoundingClientRect();
    if (!width || !height) return;
    this.density.width = Math.ceil(width / CELL); // a pixel a cell; the browser enlarges them
    this.density.height = Math.ceil(height / CELL);
    this.renderer.resize(width, height);
    this.plot.set({ width, height, aspectRatio: width / height });
    this.plot.redraw();
    this.#ticks();
    if (this.x && this.codes) this.draw();
  }
}
