// What is selected and kept, and how to go back.

import { combine, count, pack, unpack } from "explore/bits";

const DEEPEST = 50;

export class State {
  // source: where selections are kept; changed: called after each change
  constructor(source, run, n, changed) {
    Object.assign(this, { source, run, n, changed });
    this.mask = new Uint8Array(n);
    this.how = "";
    this.shown = null; // mask of the rows that the filters leave, or null for all
    this.saved = []; // { name, how, count, bits }
    this.past = [];
    this.future = [];
  }

  // Reads the kept selections; say: called with what is wrong with one that cannot be read.
  async open(say) {
    for (const one of await this.source.selections(this.run)) {
      try {
        this.saved.push({ ...one, bits: await this.source.load(this.run, one.name) });
      } catch (error) {
        say(error.message);
      }
    }
  }

  get selected() {
    return this.any ? this.mask : null;
  }

  get any() {
    return this.mask.includes(1);
  }

  #remember() {
    this.past.push(this.#now());
    if (this.past.length > DEEPEST) this.past.shift();
    this.future = [];
  }

  #now() {
    return { mask: this.mask, how: this.how, saved: this.saved };
  }

  select(chosen, words, how) {
    this.#remember();
    const joint = { or: "or", and: "and", not: "and not" }[how];
    this.how = joint && this.how ? `(${this.how}) ${joint} ${words}` : words;
    this.mask = combine(this.mask, chosen, how);
    this.changed();
  }

  invert() {
    this.#remember();
    this.mask = this.mask.map((v) => 1 - v);
    this.how = `not (${this.how || "none"})`;
    this.changed();
  }

  clear() {
    if (!this.any) return;
    this.#remember();
    this.mask = new Uint8Array(this.n);
    this.how = "";
    this.changed();
  }

  async keep(name) {
    const bits = pack(this.mask);
    const saved = { name, how: this.how, count: count(this.mask), bits };
    await this.source.save(this.run, name, bits, this.how);
    this.#remember();
    const there = this.saved.some((one) => one.name === name);
    this.saved = there ? this.saved.map((one) => (one.name === name ? saved : one)) : [...this.saved, saved];
    this.changed();
  }

  async rename(name, other) {
    const one = this.saved.find((s) => s.name === name);
    if (this.saved.some((s) => s.name === other)) throw new Error(`There is a selection ${other} already.`);
    await this.source.save(this.run, other, one.bits, one.how);
    await this.source.remove(this.run, name);
    this.#remember();
    this.saved = this.saved.map((s) => (s === one ? { ...one, name: other } : s));
    this.changed();
  }

  async remove(name) {
    await this.source.remove(this.run, name);
    this.#remember();
    this.saved = this.saved.filter((one) => one.name !== name);
    this.changed();
  }

  use(name, how) {
    const one = this.saved.find((s) => s.name === name);
    this.select(unpack(one.bits, this.n), name, how);
  }

  async undo() {
    if (this.past.length) await this.#go(this.past, this.future);
  }

  async redo() {
    if (this.future.length) await this.#go(this.future, this.past);
  }

  async #go(from, to) {
    const before = from.pop(), now = this.#now();
    to.push(now);
    Object.assign(this, before);
    this.changed();
    try {
      for (const one of this.saved) {
        if (!now.saved.includes(one)) await this.source.save(this.run, one.name, one.bits, one.how);
      }
      for (const one of now.saved) {
        if (!this.saved.some((s) => s.name === one.name)) await this.source.remove(this.run, one.name);
      }
    } catch (error) { // it was not kept again: its name has a file of other images
      Object.assign(this, now);
      from.push(before);
      to.pop();
      this.changed();
      throw error;
    }
  }
}
