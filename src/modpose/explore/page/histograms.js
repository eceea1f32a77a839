// Histograms with brushes: each shows the images that all other brushes leave.

import { extent } from "explore/colours";

const BINS = 60;

class Histogram {
  constructor(name, values, names, changed, close) {
    Object.assign(this, { name, values, names, changed });
    this.range = null; // [low, high] of the brush; null for all
    this.ends = names ? [-0.5, names.length - 0.5] : extent(values, 0.001);
    this.element = document.createElement("div");
    this.element.className = "histogram";
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    const bar = document.createElement("div");
    bar.className = "bar";
    const title = document.createElement("strong");
    title.textContent = name;
    this.boxes = ["from", "to"].map((word) => {
      const label = document.createElement("label"), box = document.createElement("input");
      Object.assign(box, { type: "number", step: "any" });
      box.setAttribute("aria-label", `${name} ${word}`);
      box.addEventListener("change", () => this.#typed());
      label.append(word, " ", box);
      return label;
    });
    const all = document.createElement("button");
    Object.assign(all, { type: "button", textContent: "Remove" });
    all.setAttribute("aria-label", `Remove the filter ${name}`);
    all.addEventListener("click", close);
    bar.append(title, ...this.boxes, all);
    this.element.append(this.canvas, bar);
    this.#brush();
  }

  passes(i) {
    return !this.range || (this.values[i] >= this.range[0] && this.values[i] <= this.range[1]);
  }

  #typed() {
    const [from, to] = this.boxes.map((label) => label.lastChild.value);
    this.range = from === "" && to === "" ? null : [from === "" ? -Infinity : +from, to === "" ? Infinity : +to];
    this.changed();
  }

  set(range) {
    this.range = range;
    this.boxes.forEach((label, k) => (label.lastChild.value = range ? +range[k].toPrecision(6) : ""));
    this.changed();
  }

  #brush() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      const t = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
      return this.ends[0] + t * (this.ends[1] - this.ends[0]);
    };
    let start = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      start = at(event);
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const now = at(event);
      this.range = [Math.min(start, now), Math.max(start, now)];
      this.draw();
    });
    this.canvas.addEventListener("pointerup", (event) => {
      if (start === null) return;
      const now = at(event), wide = Math.abs(now - start) > 0.01 * (this.ends[1] - this.ends[0]);
      this.set(wide ? [Math.min(start, now), Math.max(start, now)] : null);
      start = null;
    });
  }

  count(left) {
    const counts = new Uint32Array(BINS), [low, high] = this.ends;
    for (let i = 0; i < this.values.length; i++) {
      if (left && !left[i]) continue;
      const k = Math.floor(((this.values[i] - low) / (high - low)) * BINS);
      if (k >= 0 && k < BINS) counts[k]++;
    }
    this.counts = counts;
  }

  draw() {
    const { canvas, counts } = this, width = canvas.clientWidth || 300, height = 64;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const most = Math.max(1, ...counts), [low, high] = this.ends, x = (v) => ((v - low) / (high - low)) * width;
    if (this.range) {
      context.fillStyle = style.getPropertyValue("--rule") && style.color;
      context.globalAlpha = 0.15;
      const [a, b] = this.range.map((v) => Math.max(0, Math.min(width, x(v))));
      context.fillRect(a, 0, b - a, height);
    }
    context.globalAlpha = 0.75;
    context.fillStyle = style.color;
    counts.forEach((n, k) => {
      const tall = n ? 1 + ((height - 3) * n) / most : 0;
      context.fillRect((k * width) / BINS, height - tall, width / BINS - 1, tall);
    });
  }
}

export class Histograms {
  constructor(element, n, changed) {
    Object.assign(this, { element, n, changed });
    this.all = [];
  }

  add(name, values, names) {
    if (this.all.some((one) => one.name === name)) return;
    const one = new Histogram(name, values, names, () => this.update(), () => this.remove(one));
    this.all.push(one);
    this.element.append(one.element);
    this.update();
    return one;
  }

  remove(one) {
    this.all = this.all.filter((other) => other !== one);
    one.element.remove();
    this.update();
  }

  clear() {
    for (const one of this.all) one.element.remove();
    this.all = [];
    this.update();
  }

  // A mask of the rows that pass every brush (but one); null where all pass.
  mask(without = null) {
    const active = this.all.filter((one) => one.range && one !== without);
    if (!active.length) return null;
    const mask = new Uint8Array(this.n);
    for (let i = 0; i < this.n; i++) mask[i] = active.every((one) => one.passes(i)) ? 1 : 0;
    return mask;
  }

  update() {
    for (const one of this.all) {
      one.count(this.mask(one));
      one.draw();
    }
    this.changed(this.mask());
  }

  describe() {
    return this.all
      .filter((one) => one.range)
      .map((one) => `${one.name} between ${one.range[0]} and ${one.range[1]}`)
      .join(" and ");
  }
}
