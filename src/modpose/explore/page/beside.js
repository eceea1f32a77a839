// A second run beside the first: its own content, with the colours and the selection of the first.

import { Scatter } from "explore/scatter";

const $ = (id) => document.getElementById(id);

// The columns to begin with: principal components of content, else the first two of it.
export function plane({ columns, content }) {
  const pca = columns.map((one) => one.name).filter((name) => /^pca_[01]$/.test(name));
  return pca.length === 2 ? pca : [content[0], content[1] ?? "elbo"];
}

export class Beside {
  // on: as of Scatter; drawn: called when the second scatter has new axes.  shown: it has columns.
  constructor(source, on, drawn) {
    Object.assign(this, { source, on, drawn, shown: false, turn: 0 });
    $("second-x").onchange = $("second-y").onchange = () => this.#axes();
  }

  async open(run, about) {
    this.close();
    this.run = run;
    $("second").hidden = false;
    this.scatter ??= new Scatter($("second-stage"), this.on);
    const names = about.columns.map((one) => one.name), first = plane(about);
    ["second-x", "second-y"].forEach((id, k) => {
      $(id).replaceChildren(...names.map((name) => new Option(name)));
      $(id).value = first[k];
    });
    await this.#axes();
  }

  // Columns come later than they are asked for: those of an older choice are left out.
  async #axes() {
    const axes = [$("second-x").value, $("second-y").value], turn = ++this.turn;
    const values = await Promise.all(axes.map((name) => this.source.column(this.run, name)));
    if (turn !== this.turn) return;
    this.axes = axes;
    this.scatter.set(...values);
    this.shown = true;
    await this.drawn();
  }

  close() {
    $("second").hidden = true;
    this.run = undefined;
    this.shown = false;
    this.turn++;
  }
}
