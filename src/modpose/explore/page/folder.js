// Where the page gets its data in a folder that needs no server: scripts and pictures beside it.

const about = window.MODPOSE;
const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const rows = about.map((one) => new Set(one.rows)); // images with pictures
const fresh = new Map(); // selections that were made here: name to bits

export const live = false;
export const runs = async () => about.map((one) => one.about);
export const inputColumns = async () => [];
export const formats = async () => [];

// Each column is a script, because a page from a disk may not read other files.  One at a time.
let before = Promise.resolve();
export function column(run, name) {
  const script = document.createElement("script");
  script.src = about[run].columns[name];
  before = before.then(() => new Promise((resolve, reject) => {
    script.onload = () => resolve(new Float32Array(decode(window.MODPOSE_COLUMN).buffer));
    script.onerror = () => reject(new Error(`The file of the column ${name} is missing.`));
    document.head.append(script);
  }));
  const read = before;
  before = read.catch(() => {});
  return read;
}

export async function image(run, row, kind) {
  if (!rows[run].has(row)) throw new Error(`This folder has no picture of image ${row + 1}.`);
  return `run${run}/images/${row}-${kind}.png`;
}

// The nearest of the places that were drawn.
export async function place(run, z) {
  const far = about[run].places.map((at) => at.reduce((sum, v, k) => sum + (v - z[k]) ** 2, 0));
  const k = far.indexOf(Math.min(...far));
  return { address: `run${run}/places/${k}.png`, z: about[run].places[k] };
}

export const path = async () => Promise.reject(new Error("This folder holds no path through images."));

export const selections = async (run) => about[run].selections.map(({ name, how, count }) => ({ name, how, count }));
export const load = async (run, name) => decode(about[run].selections.find((one) => one.name === name).bits);
export const save = async (run, name, bits) => void fresh.set(`${run}/${name}`, bits);
export const remove = async (run, name) => void fresh.delete(`${run}/${name}`);

// A file of positions: the one in the folder, or a new one.
export function written(run, name) {
  const bits = fresh.get(`${run}/${name}`);
  if (!bits) return { href: `run${run}/selections/${name}.npy`, file: `${name}.npy` };
  const positions = decode(about[run].positions), at = new Int32Array(positions.buffer), lines = [];
  for (let i = 0; i < at.length; i++) if ((bits[i >> 3] >> (i & 7)) & 1) lines.push(at[i]);
  const file = new Blob([lines.join("\n") + "\n"], { type: "text/plain" });
  return { href: URL.createObjectURL(file), file: `${name}.txt` };
}
