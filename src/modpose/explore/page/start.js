// The page: joins the scatter, the selection, the filters and the pictures of one run.

import * as source from "explore/source";
import { Beside, plane } from "explore/beside";
import { count } from "explore/bits";
import { inside, nearest } from "explore/choose";
import { encode } from "explore/colours";
import { Details } from "explore/details";
import { Histograms } from "explore/histograms";
import { listed } from "explore/saved";
import { Scatter } from "explore/scatter";
import { State } from "explore/state";

const $ = (id) => document.getElementById(id);
const say = (words) => ($("status").textContent = words);
const act = (promise) => Promise.resolve(promise).catch((error) => say(error.message));
const number = (n) => n.toLocaleString("en");

const runs = await source.runs();
$("run").append(...runs.map((one, i) => new Option(one.name, i)));
$("run").parentElement.hidden = runs.length < 2;

let page; // what belongs to the run that is shown: { about, state, details, histograms, columns, formats, coded }
const scatter = new Scatter($("stage"), {
  hover: (row) => page && act(page.details.show(row)),
  click: (row, place) => page && clicked(row, place),
  area: (corners) => page && area(corners, scatter, page.axes.join(", ")),
});
const beside = new Beside(source, {
  hover: (row) => pointed(row),
  click: (row) => row >= 0 && clicked(row),
  area: (corners) => area(corners, beside.scatter, `${beside.axes.join(", ")} of ${runs[beside.run].name}`),
}, () => draw());

async function open(index) {
  const about = runs[index], columns = new Map(about.columns.map((one) => [one.name, one]));
  page = { run: index, about, columns, formats: [".npy"] };
  $("run-name").textContent = about.name;
  $("facts").textContent = `${number(about.n)} images, recipe ${about.recipe}`;
  $("alarms").hidden = !about.alarms.length;
  $("alarms").textContent = about.alarms.join(" ");
  page.state = new State(source, index, about.n, changed);
  page.details = new Details(source, index, about, column, say);
  page.details.known = () => [...columns.values()].filter((one) => one.values);
  $("histograms").replaceChildren();
  page.histograms = new Histograms($("histograms"), about.n, filtered);
  choices();
  const [x, y] = plane(about);
  others(index);
  $("x").value = x;
  $("y").value = y;
  $("colour").value = ["label", "cluster", "elbo"].find((name) => columns.has(name)) ?? x;
  await axes();
  await coloured();
  say(`${number(about.n)} images.`);
  window.performance.mark("first picture");
  await Promise.all([page.state.open(say), page.details.open()]);
  if (about.images && source.live) act(more(page));
  changed();
}

// The table of the input, which takes longer to open.
async function more(of) {
  of.formats = await source.formats(of.run);
  for (const one of await source.inputColumns(of.run)) of.columns.set(one.name, one);
  if (page !== of) return;
  choices();
  changed();
}

function choices() {
  for (const id of ["x", "y", "colour", "filter-column"]) {
    const before = $(id).value, groups = new Map();
    for (const one of page.columns.values()) {
      if (!groups.has(one.group)) groups.set(one.group, Object.assign(document.createElement("optgroup"), { label: one.group }));
      groups.get(one.group).append(new Option(one.name));
    }
    $(id).replaceChildren(...groups.values());
    if (page.columns.has(before)) $(id).value = before;
  }
}

async function column(name) {
  const one = page.columns.get(name);
  one.values ??= await source.column(page.run, name);
  return one.values;
}

async function axes() {
  const chosen = () => [$("x").value, $("y").value], names = chosen(), of = page;
  const values = await Promise.all(names.map(column));
  if (of !== page || String(names) !== String(chosen())) return; // chosen anew meanwhile
  scatter.set(...values);
  page.axes = names;
}

async function coloured() {
  const name = $("colour").value;
  page.coded = encode(await column(name), page.columns.get(name).names);
  legend(name);
  await draw();
}

function draw() {
  const { coded, state } = page, look = [coded.codes, coded.colours, state.selected, state.shown];
  return Promise.all([scatter.show(...look), beside.shown && beside.scatter.show(...look)]);
}

// The runs that can stand beside this one: those of the same images.
function others(index) {
  const { same, n } = runs[index];
  const alike = runs.map((one, i) => [one, i]).filter(([one, i]) => i !== index && one.n === n && one.same === same);
  beside.close();
  $("beside").replaceChildren(new Option("none", ""), ...alike.map(([one, i]) => new Option(one.name, i)));
  $("beside").parentElement.hidden = !alike.length;
}

function legend(name) {
  const { labels, colours, extent, known } = page.coded;
  if (!labels) {
    const ramp = document.createElement("span");
    ramp.className = "ramp";
    // a stylesheet rule for each ramp would need a nonce; a canvas does not
    const canvas = Object.assign(document.createElement("canvas"), { className: "ramp", width: colours.length - 1, height: 1 });
    const context = canvas.getContext("2d");
    colours.slice(0, -1).forEach((c, i) => ((context.fillStyle = c), context.fillRect(i, 0, 1, 1)));
    $("legend").replaceChildren(name, " ", extent[0].toPrecision(4), canvas, extent[1].toPrecision(4));
    return;
  }
  const buttons = labels.slice(0, 60).map((label, i) => {
    const one = Object.assign(document.createElement("button"), { type: "button", title: `Select ${name} ${label}` });
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = colours[i];
    one.append(swatch, label);
    one.onclick = () => {
      const values = page.columns.get(name).values;
      choose(values.map === undefined ? [] : Uint8Array.from(values, (v) => (v === known[i] ? 1 : 0)), `${name} ${label}`);
    };
    return one;
  });
  $("legend").replaceChildren(name, " ", ...buttons);
}

// --- selecting ---------------------------------------------------------------------------------

function choose(mask, words) {
  const { state } = page;
  if (state.shown) for (let i = 0; i < mask.length; i++) mask[i] &= state.shown[i];
  const filters = page.histograms.describe();
  state.select(mask, filters ? `${words} where ${filters}` : words, $("combine").value);
  say(`${number(count(state.mask))} images are selected.`);
}

function area(corners, plot, words) {
  const shape = $("box").ariaPressed === "true" ? "box" : "lasso";
  choose(inside(corners, plot.x, plot.y, page.state.shown), `${shape} in ${words}`);
}

// An image under the pointer in the second scatter: shown, and marked in the first.
function pointed(row) {
  act(page.details.show(row));
  scatter.mark(row);
}

function clicked(row, place) {
  const { details, about } = page;
  if (row >= 0) {
    act(details.show(row, true));
    act(details.place(details.z.map((values) => values[row])));
    return;
  }
  const z = [...details.now];
  page.axes.forEach((name, axis) => {
    const k = about.content.indexOf(name);
    if (k >= 0) z[k] = place[axis];
  });
  act(details.place(z));
}

function changed() {
  const { state } = page;
  $("count").textContent = number(count(state.mask));
  $("undo").disabled = !state.past.length;
  $("redo").disabled = !state.future.length;
  listed($("saved"), state, page.formats, () => $("combine").value, act, say);
  if (page.coded) act(draw());
}

function filtered(mask) {
  page.state.shown = mask;
  say(mask ? `The filters leave ${number(count(mask))} of ${number(mask.length)} images.` : "No filter.");
  if (page.coded) act(draw());
}

const current = () => ["pan", "lasso", "box"].find((id) => $(id).ariaPressed === "true");

function tool(name) {
  for (const id of ["pan", "lasso", "box"]) $(id).ariaPressed = String(id === name);
  scatter.tool(name);
  beside.scatter?.tool(name);
}

// From image to image, by the keyboard: those selected, or shown, or all.
function step(way) {
  const { state, details, about } = page, among = state.selected ?? state.shown;
  let row = details.kept;
  for (let tries = 0; tries < about.n; tries++) {
    row = (row + way + about.n) % about.n;
    if (!among || among[row]) break;
  }
  act(details.show(row, true));
  act(details.place(details.z.map((values) => values[row])));
  scatter.mark(row);
}

// --- controls ----------------------------------------------------------------------------------

$("run").onchange = () => act(open(+$("run").value));
$("beside").onchange = () => {
  const chosen = $("beside").value;
  act(chosen === "" ? beside.close() : beside.open(+chosen, runs[chosen]).then(() => tool(current())));
};
$("x").onchange = $("y").onchange = () => act(axes().then(draw));
$("colour").onchange = () => act(coloured());
for (const id of ["pan", "lasso", "box"]) $(id).onclick = () => tool(id);
$("whole").onclick = () => scatter.whole();
$("undo").onclick = () => act(page.state.undo());
$("redo").onclick = () => act(page.state.redo());
$("invert").onclick = () => page.state.invert();
$("none").onclick = () => page.state.clear();
$("shown").onclick = () => choose(new Uint8Array(page.about.n).fill(1), "all");
$("filter-add").onclick = () => act(filter($("filter-column").value));
$("filter-clear").onclick = () => page.histograms.clear();
$("surface-show").onclick = () => act(page.details.surface($("surface-part").hidden));
$("surface-level").oninput = () => act(page.details.place(page.details.now));
$("sharper").onclick = () => act(page.details.sharper());
$("path-from").onclick = () => page.details.pathFrom();
$("path-play").onclick = () => act(page.details.play());
$("theme").onclick = () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, root = document.documentElement;
  root.dataset.theme = (root.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  for (const one of page.histograms.all) one.draw();
};

async function filter(name) {
  page.histograms.add(name, await column(name), page.columns.get(name).names);
}

const form = (id, submitted) =>
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    act(submitted());
  });
form("save", async () => {
  const name = $("name").value.trim();
  await page.state.keep(name);
  say(`Kept ${name}.`);
});
form("where", async () => {
  const bits = await source.where(page.run, $("expression").value);
  choose(Uint8Array.from({ length: page.about.n }, (_, i) => (bits[i >> 3] >> (i & 7)) & 1), $("expression").value);
});
form("near", async () => {
  const { kept, z } = page.details;
  if (kept < 0) return say("Click an image first.");
  const some = +$("near-count").value;
  choose(nearest(z, kept, some, page.state.shown), `the ${some} nearest to image ${kept + 1}`);
});
$("where").hidden = !source.live;

const KEYS = {
  l: () => tool("lasso"), b: () => tool("box"), p: () => tool("pan"), 0: () => scatter.whole(), Escape: () => page.state.clear(),
  z: () => act(page.state.undo()), y: () => act(page.state.redo()), n: () => step(1), N: () => step(-1),
};
const MOVES = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
document.addEventListener("keydown", (event) => {
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (MOVES[event.key] && document.activeElement === $("stage")) scatter.move(...MOVES[event.key]);
  else if (event.key === "+" || event.key === "=") scatter.move(0, 0, 1.3);
  else if (event.key === "-") scatter.move(0, 0, 1 / 1.3);
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
});

await open(0);
document.documentElement.dataset.ready = "yes";
