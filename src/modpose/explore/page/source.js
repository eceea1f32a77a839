// Where the page gets its data: the server that gave the page.

async function ask(path, options = {}) {
  const answer = await fetch(new URL(path, document.baseURI), options);
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer;
}

const json = async (path, options) => (await ask(path, options)).json();
const bytes = async (path, options) => new Uint8Array(await (await ask(path, options)).arrayBuffer());
const selection = (run, name) => `runs/${run}/selections/${encodeURIComponent(name)}`;

export const live = true;
export const runs = () => json("runs");
export const inputColumns = (run) => json(`runs/${run}/input`);
export const formats = (run) => json(`runs/${run}/formats`);
export const where = (run, expression) =>
  bytes(`runs/${run}/where?expression=${encodeURIComponent(expression)}`);

export async function column(run, name) {
  const raw = await bytes(`runs/${run}/column?name=${encodeURIComponent(name)}`);
  return new Float32Array(raw.buffer);
}

async function picture(path, signal) {
  return URL.createObjectURL(await (await ask(path, { signal })).blob());
}
export const image = (run, row, kind, signal) =>
  picture(`runs/${run}/picture?row=${row}&kind=${kind}`, signal);
export async function place(run, z, pose) {
  const posed = pose ? `&pose=${numbers(pose)}` : "";
  return { address: await picture(`runs/${run}/place?z=${numbers(z)}${posed}`), z };
}

// Corners, normals and triangles, as the server packs them.
export const surface = async (run, z, height) =>
  (await bytes(`runs/${run}/surface?z=${numbers(z)}&height=${height}`)).buffer;

export async function slices(run, z) {
  return { address: await picture(`runs/${run}/slices?z=${numbers(z)}`), z };
}

const numbers = (z) => [...z].map((v) => v.toPrecision(7)).join();
export const path = (run, a, b, steps) => json(`runs/${run}/path?from=${numbers(a)}&to=${numbers(b)}&steps=${steps}`);

export const selections = (run) => json(`runs/${run}/selections`);
export const load = (run, name) => bytes(selection(run, name));
export const save = (run, name, bits, how) =>
  json(`${selection(run, name)}?how=${encodeURIComponent(how)}`, { method: "PUT", body: bits });
export const remove = (run, name) => json(selection(run, name), { method: "DELETE" });
export const write = (run, name, suffix) =>
  json(`${selection(run, name)}/write?suffix=${suffix}`, { method: "POST" });
export const written = (run, file) =>
  ({ href: new URL(`runs/${run}/written/${encodeURIComponent(file)}`, document.baseURI).href, file });
