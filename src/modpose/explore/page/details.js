// The pictures beside the scatter: an image, and what is drawn at a place of content.

import { scaleBar } from "explore/bits";
import { extent } from "explore/colours";

const $ = (id) => document.getElementById(id);
const KINDS = { particle: "as recorded", upright: "upright", reconstruction: "drawn by the model" };
const SHARP = "sharp map of its content";
const SLIDERS = 8; // of content; the rest of a place stays as it is
const SLICES = "Central slices across z, y and x. ";
const FRAMES = 24, PAUSE = 40;
const ALL_VALUES = 200000; // images up to which every column of the latents is read for its values
const short = (v) => (Number.isInteger(v) ? String(v) : v.toPrecision(4));

export class Details {
  // column(name): a promise of the numbers of a column
  constructor(source, run, about, column, say) {
    Object.assign(this, { source, run, about, column, say });
    this.kept = -1;
    this.pictures = Object.entries(about.volumes ? { particle: KINDS.particle, reconstruction: KINDS.reconstruction } : KINDS)
      .filter(([kind]) => about.images || kind === "reconstruction")
      .map(([kind, words]) => this.#figure(kind, kind === "reconstruction" && about.sharp ? SHARP : words));
    $("pictures").replaceChildren(...this.pictures.map((one) => one.figure));
    $("place").className = about.volumes ? "wide" : "";
    $("place").hidden = true;
    $("place").parentElement.replaceChildren($("place"), ...scaleBar(about, about.volumes ? 3 : 1));
    this.from = null;
    $("path-play").disabled = true;
    $("sharper").hidden = !about.quick || !source.live;
    $("surface-show").hidden = !about.volumes || !source.live;
    $("surface-part").hidden = true;
    $("surface-show").ariaPressed = "false";
    this.pose = about.volumes || !source.live ? null : [0, 0, 0];
  }

  #figure(kind, words) {
    const figure = document.createElement("figure"), image = document.createElement("img");
    const caption = document.createElement("figcaption");
    caption.textContent = words;
    const frame = Object.assign(document.createElement("div"), { className: "framed" });
    frame.append(image, ...scaleBar(this.about, this.about.volumes && (kind === "reconstruction" || this.about.stack === 3) ? 3 : 1));
    figure.append(frame, caption);
    figure.hidden = true;
    return { kind, words, figure, image };
  }

  async open() {
    this.z = await Promise.all(this.about.content.map((name) => this.column(name)));
    this.now = this.z.map((values) => values.reduce((a, b) => a + b, 0) / values.length);
    const content = this.z.map((values) => extent(values, 0.002)), shift = this.about.box / 4;
    const sliders = this.about.content.slice(0, SLIDERS).map((name, k) => this.#slider(name, content[k], (v) => this.now.splice(k, 1, v)));
    const reach = { "angle (°)": 180, "shift x (px)": shift, "shift y (px)": shift };
    const poses = this.pose && Object.entries(reach).map(([name, far], k) => this.#slider(name, [-far, far], (v) => this.pose.splice(k, 1, v), 0));
    $("sliders").replaceChildren(...sliders, ...(poses ?? []));
    await this.place(this.now);
    if (this.about.n <= ALL_VALUES) await Promise.all(this.about.columns.map(({ name }) => this.column(name)));
  }

  // moved(value): takes the new value, before the place is drawn
  #slider(name, [low, high], moved, start) {
    const label = document.createElement("label"), box = document.createElement("input"), value = document.createElement("output");
    Object.assign(box, { type: "range", min: low, max: high, step: (high - low) / 200 });
    if (start !== undefined) {
      box.value = start;
      value.textContent = start.toFixed(2);
    }
    box.addEventListener("input", () => {
      moved(+box.value);
      value.textContent = (+box.value).toFixed(2);
      this.place(this.now);
    });
    label.append(name, box, value);
    return label;
  }

  // Show an image: kept stays when the pointer goes away.
  async show(row, keep = false) {
    if (keep) this.kept = row;
    const shown = row >= 0 ? row : this.kept;
    if (shown < 0 || shown === this.shown) return;
    this.shown = shown;
    this.asked?.abort();
    this.asked = new AbortController();
    const signal = this.asked.signal;
    $("image-about").textContent = `Image ${shown + 1} of ${this.about.n.toLocaleString("en")}`;
    this.#values(shown);
    await Promise.all(this.pictures.map((one) => this.#draw(one, shown, signal)));
  }

  async #draw(one, row, signal) {
    try {
      const address = await this.source.image(this.run, row, one.kind, signal);
      if (signal.aborted) return;
      URL.revokeObjectURL(one.image.src);
      one.image.src = address;
      one.image.alt = `Image ${row + 1}, ${one.words}`;
      one.figure.hidden = false;
    } catch (error) {
      if (!signal.aborted) this.say(error.message);
    }
  }

  #values(row) {
    const parts = this.known().flatMap(({ name, values, names }) => {
      const term = document.createElement("dt"), text = document.createElement("dd"), v = values[row];
      term.textContent = name;
      text.textContent = Number.isNaN(v) ? "missing" : names ? names[v] : short(v);
      return [term, text];
    });
    $("values").replaceChildren(...parts);
  }

  // Draw a place of content; only the newest of many quick requests is answered.
  async place(z) {
    this.now = [...z];
    this.now.slice(0, SLIDERS).forEach((value, k) => {
      const [box, words] = $("sliders").children[k].children;
      box.value = value;
      words.textContent = value.toFixed(2);
    });
    this.wanted = this.now;
    if (this.placing) return;
    this.placing = true;
    while (this.wanted) {
      const asked = this.wanted;
      this.wanted = null;
      try {
        const started = performance.now(), drawn = await this.source.place(this.run, asked, this.pose);
        this.#placed(drawn, this.about.quick ? "Projections along z, y and x. " : SLICES);
        $("place").dataset.milliseconds = String(performance.now() - started);
        await this.#surface();
      } catch (error) {
        this.say(error.message);
      }
    }
    this.placing = false;
  }

  // The surface of the volume here, or none. Its drawing code is read when it is first asked for.
  async surface(shown) {
    $("surface-part").hidden = !shown;
    $("surface-show").ariaPressed = String(shown);
    if (!shown) return;
    const { Surface } = await import("modpose/surface");
    Details.drawn ??= new Surface($("surface"));
    await this.#surface();
  }

  async #surface() {
    if ($("surface-part").hidden) return;
    const height = +$("surface-level").value;
    $("surface-value").textContent = `${height.toFixed(1)} s.d.`;
    const packed = await this.source.surface(this.run, this.now, height);
    if (this.wanted) return; // a newer place is on its way
    Details.drawn.show(packed, this.about.box);
  }

  // The volume itself, which takes longer.
  async sharper() {
    this.say("Drawing the volume …");
    this.#placed(await this.source.slices(this.run, this.now), SLICES);
    this.say("");
  }

  #placed({ address, z }, views) {
    URL.revokeObjectURL($("place").src);
    $("place").src = address;
    $("place").hidden = false;
    const first = this.about.content.slice(0, SLIDERS), more = this.about.content.length > SLIDERS ? ", …" : "";
    const where = first.map((name, k) => `${name} = ${z[k].toFixed(2)}`).join(", ") + more;
    $("place").alt = `What ${this.about.sharp ? "the sharp maps draw" : "the model draws"} at ${where}`;
    $("place-about").textContent = (this.about.volumes ? views : "") + where;
  }

  // Between two places: where images are, or straight where no images join them.
  async #path(a, b) {
    try {
      return await this.source.path(this.run, a, b, FRAMES + 1);
    } catch (error) {
      this.say(`${error.message} The path is straight.`);
      return Array.from({ length: FRAMES + 1 }, (_, k) => a.map((v, i) => v + (k / FRAMES) * (b[i] - v)));
    }
  }

  pathFrom() {
    this.from = [...this.now];
    $("path-play").disabled = false;
    this.say("The path starts here. Choose another place, then play.");
  }

  async play() {
    const path = await this.#path(this.from, this.now);
    for (const z of [...path, ...path.toReversed(), ...path]) {
      await this.place(z);
      await new Promise((done) => setTimeout(done, PAUSE));
    }
  }
}
