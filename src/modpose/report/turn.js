// The surfaces of the page: one of them, chosen by the slider, turned by the pointer.
import { Surface } from "modpose/surface";

const byId = (name) => document.getElementById(name);
const data = JSON.parse(byId("surface-data").textContent);
const packed = data.steps.map((step) => Uint8Array.from(atob(step.packed), (sign) => sign.charCodeAt(0)).buffer);
byId("turned").hidden = false;
const drawn = new Surface(byId("surface-canvas"));

function show() {
  const step = Number(byId("step").value);
  byId("step-name").textContent = data.steps[step].name;
  drawn.show(packed[step], data.side);
}

byId("step").oninput = show;
show();
