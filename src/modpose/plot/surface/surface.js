// The surface of a volume, turned by the pointer or the arrow keys.

import { Camera, Geometry, Mesh, Orbit, Program, Renderer, Transform } from "modpose/ogl";

const VERTEX = `
  attribute vec3 position, normal;
  uniform mat4 modelViewMatrix, projectionMatrix;
  uniform mat3 normalMatrix;
  varying vec3 facing;
  void main() {
    facing = normalize(normalMatrix * normal);
    gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
  }`;
const FRAGMENT = `
  precision mediump float;
  varying vec3 facing;
  void main() {
    float light = 0.35 + 0.65 * abs(dot(normalize(facing), normalize(vec3(0.3, 0.5, 1.0))));
    gl_FragColor = vec4(light * vec3(0.56, 0.74, 0.92), 1.0);
  }`;
const FAR = 2.6; // distance of the eye, in sides of the box
const WIDEST = 350; // side of the picture, pixels of CSS
const STEP = 0.12; // of an arrow key, radians

export class Surface {
  constructor(canvas) {
    this.canvas = canvas;
    this.renderer = new Renderer({ canvas, alpha: true, dpr: Math.min(devicePixelRatio, 2) });
    this.camera = new Camera(this.renderer.gl, { fov: 30 });
    this.scene = new Transform();
    this.program = new Program(this.renderer.gl, { vertex: VERTEX, fragment: FRAGMENT, cullFace: false });
    this.orbit = new Orbit(this.camera, { element: canvas, enablePan: false, ease: 1, inertia: 0 });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const name of ["pointerdown", "pointermove", "mousedown", "mousemove", "touchmove", "wheel"])
      canvas.addEventListener(name, () => this.#soon());
    document.addEventListener("mousemove", (event) => event.buttons && this.#soon());
  }

  // packed: an ArrayBuffer, two counts, corners, normals and triangles; side: of the box, in voxels
  show(packed, side) {
    const [corners, faces] = new Uint32Array(packed, 0, 2), floats = 12 * corners;
    const position = new Float32Array(packed, 8, 3 * corners);
    const normal = new Float32Array(packed, 8 + floats, 3 * corners);
    const index = new Uint32Array(packed, 8 + 2 * floats, 3 * faces);
    this.canvas.dataset.triangles = String(faces);
    const { gl } = this.renderer, first = !this.mesh;
    if (this.mesh) {
      this.scene.removeChild(this.mesh);
      this.mesh.geometry.remove();
    }
    const geometry = new Geometry(gl, { position: { size: 3, data: position }, normal: { size: 3, data: normal }, index: { data: index } });
    this.mesh = new Mesh(gl, { geometry, program: this.program, frustumCulled: false });
    this.mesh.setParent(this.scene);
    if (first) {
      this.camera.position.set(0, 0, FAR * side);
      this.orbit.forcePosition();
    }
    this.camera.perspective({ near: side / 50, far: 20 * side, aspect: 1 });
    this.#soon();
  }

  #key(event) {
    const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!turn) return;
    const { x, y, z } = this.camera.position, far = Math.hypot(x, y, z);
    const around = Math.atan2(x, z) + STEP * turn[0];
    const up = Math.max(-1.5, Math.min(1.5, Math.asin(y / far) + STEP * turn[1]));
    this.camera.position.set(far * Math.cos(up) * Math.sin(around), far * Math.sin(up), far * Math.cos(up) * Math.cos(around));
    this.orbit.forcePosition();
    this.#soon();
    event.preventDefault();
    event.stopPropagation();
  }

  #soon() {
    this.due ||= requestAnimationFrame(() => {
      this.due = 0;
      this.orbit.update();
      const side = Math.max(1, Math.min(WIDEST, this.canvas.parentElement.clientWidth));
      if (this.renderer.height !== side) this.renderer.setSize(side, side);
      this.renderer.render({ scene: this.scene, camera: this.camera });
      const { x, y, z } = this.camera.position;
      Object.assign(this.canvas.dataset, { drawn: "yes", turned: [x, y, z].map((v) => v.toFixed(2)).join(" ") });
    });
  }
}
