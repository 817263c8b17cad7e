// The component: a map that is pointed at, walked through with arrow keys, and picked from.

const POINTED = "tauscope:xi-pointed", PICKED = "tauscope:xi-picked"; // the maps of a page tell each other
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
let maps = 0; // so far: each needs a name of its own for its clip path

class XiMap {
  constructor(root) {
    this.root = root;
    this.clip = `xi-clip-${++maps}`;
    this.cell = null;
    this.heard = {
      [POINTED]: (event) => this.outline(event.detail && this.map && cellAt(this.map, this.at, event.detail)),
      [PICKED]: (event) => this.choose(event.detail),
    };
    for (const [name, hear] of Object.entries(this.heard)) window.addEventListener(name, hear);
    this.build();
    this.watcher = new ResizeObserver(() => this.fit());
    this.watcher.observe(root);
  }

  unmount() {
    this.watcher.disconnect();
    for (const [name, hear] of Object.entries(this.heard)) window.removeEventListener(name, hear);
  }

  // ---- data from Python

  receive(component) {
    this.component = component;
    const { header, length } = readHeader(component.data);
    const fresh = header.digest !== this.map?.digest;
    const tables = fresh ? this.unpack(component.data, header, length) : this.map.tables;
    this.map = { ...header, tables };
    this.chosen = header.chosen;
    this.width = 0; // everything but the cells is drawn anew
    paint(this.canvas, this.map);
    this.fit();
  }

  unpack(bytes, header, length) {
    const body = readBody(bytes, length);
    return Object.fromEntries(Object.entries(header.tables).map(([key, place]) => [key, readArray(body, place)]));
  }

  // ---- building

  build() {
    this.heading = el("div", { class: "heading" });
    const save = (kind) => el("button", { type: "button", class: "save", "data-testid": `save-${kind}`, "aria-label": `Save this map as ${kind.toUpperCase()}`, onclick: () => savePicture(this.map, this.chosen, this.at.width, kind) }, kind.toUpperCase());
    this.canvas = el("canvas");
    this.cells = el("div", { class: "cells" }, this.canvas);
    this.drawing = svg("svg", { class: "drawing", "aria-hidden": "true" });
    this.pointer = el("div", { class: "pointer", hidden: true });
    this.plot = el("div", { class: "plot", tabindex: "0", role: "application", "aria-roledescription": "map" }, this.pointer);
    this.tip = el("div", { class: "tip", hidden: true, role: "presentation" });
    this.said = el("output", { class: "said", "aria-live": "polite" });
    this.stage = el("div", { class: "stage" }, this.cells, this.drawing, this.plot);
    this.root.replaceChildren(el("header", {}, this.heading, el("div", { class: "saves" }, save("png"), save("svg"))), this.stage, this.tip, this.said);
    this.plot.addEventListener("pointermove", (event) => this.point(this.under(event)));
    this.plot.addEventListener("pointerleave", () => this.point(null));
    this.plot.addEventListener("blur", () => this.point(null));
    this.plot.addEventListener("click", (event) => this.pick(this.under(event)));
    this.plot.addEventListener("keydown", (event) => this.key(event));
  }

  /** Draw for the width there is; nothing happens where that is as before. */
  fit() {
    const width = Math.floor(this.root.clientWidth);
    if (!this.map || !width || width === this.width) return;
    this.width = width;
    const { map } = this, at = (this.at = measure(map, width));
    this.heading.replaceChildren(...map.heading.map((line) => el("div", {}, line)));
    this.stage.style.cssText = `width:${at.width}px;height:${at.height}px`;
    const place = `left:${LEFT}px;top:${TOP}px;width:${at.side}px;height:${at.side}px`;
    this.cells.style.cssText = this.plot.style.cssText = place;
    const first = map.alphas[0] - at.half, last = map.alphas[map.alphas.length - 1] + at.half;
    const size = ((last - first) / (at.high - at.low)) * at.side;
    this.canvas.style.cssText = `left:${at.x(first) - LEFT}px;top:${at.y(last) - TOP}px;width:${size}px;height:${size}px`;
    for (const [name, value] of Object.entries({ width: at.width, height: at.height, viewBox: `0 0 ${at.width} ${at.height}` })) this.drawing.setAttribute(name, value);
    this.marks = marksOf(map, at, this.chosen, this.clip);
    this.drawing.replaceChildren(...frameOf(map, at, "currentColor"), this.marks);
    this.plot.setAttribute("aria-label", `${map.alt}. Arrow keys move from cell to cell, Enter sets the alphas.`);
    Object.assign(this.root.dataset, { grid: map.alphas.length, low: at.low, high: at.high, titles: map.titles.join(" / "), drawn: Number(this.root.dataset.drawn ?? 0) + 1 });
    if (this.cell) this.point(null);
  }

  // ---- acting

  /** The cell under the pointer. */
  under(event) {
    const box = this.plot.getBoundingClientRect();
    const fractions = [(event.clientX - box.left) / box.width, (box.bottom - event.clientY) / box.height];
    return cellAt(this.map, this.at, fractions.map((fraction) => this.at.alpha(fraction)));
  }

  /** Arrow keys walk from cell to cell, with Shift five at a time; Enter or space picks. */
  key(event) {
    const move = MOVES[event.key], { map, at } = this;
    if (event.key === "Escape") return this.point(null);
    if (!move && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    const from = this.cell ?? this.nearest(this.chosen);
    if (!move) return this.pick(from);
    const step = event.shiftKey ? 5 : 1, last = map.alphas.length - 1;
    const [i, j] = from.map((place, k) => Math.min(last, Math.max(0, place + step * move[k])));
    const shown = (alpha) => alpha >= at.low && alpha <= at.high;
    if (!shown(map.alphas[i]) || !shown(map.alphas[j])) return;
    this.point([i, j]);
    setText(this.said, Number.isNaN(map.tables[map.shown][i * (last + 1) + j]) ? "not computed yet" : wordsOf(map, [i, j]).join("; "));
  }

  nearest(alphas) {
    const last = this.map.alphas.length - 1;
    return alphas.map((alpha) => Math.min(last, Math.max(0, Math.round((alpha - this.map.alphas[0]) / (2 * this.at.half)))));
  }

  /** Show a cell's words, here; the other maps outline theirs. */
  point(cell) {
    this.cell = cell;
    this.tip.hidden = !cell || Number.isNaN(this.map.tables[this.map.shown][cell[0] * this.map.alphas.length + cell[1]]);
    const alphas = cell && cell.map((place) => this.map.alphas[place]);
    window.dispatchEvent(new CustomEvent(POINTED, { detail: alphas }));
    this.outline(cell);
    if (this.tip.hidden) return;
    this.tip.replaceChildren(...wordsOf(this.map, cell).map((line) => el("div", {}, line)));
    const [x, y] = [this.at.x(alphas[0]) , this.at.y(alphas[1]) + this.stage.offsetTop];
    const left = Math.min(x + 14, this.root.clientWidth - this.tip.offsetWidth - 2);
    const above = y - this.tip.offsetHeight - 14;
    this.tip.style.transform = `translate(${Math.max(0, left)}px, ${above > 0 ? above : y + 18}px)`;
  }

  outline(cell) {
    this.pointer.hidden = !cell;
    if (!cell) return;
    const [x, y] = [this.at.x(this.map.alphas[cell[0]] - this.at.half), this.at.y(this.map.alphas[cell[1]] + this.at.half)];
    const size = Math.max(3, this.at.x(2 * this.at.half) - this.at.x(0));
    this.pointer.style.cssText = `left:${x - LEFT}px;top:${y - TOP}px;width:${size}px;height:${size}px`;
  }

  pick(cell) {
    if (!cell) return;
    const alphas = cell.map((place) => this.map.alphas[place]);
    window.dispatchEvent(new CustomEvent(PICKED, { detail: alphas }));
    this.component.setTriggerValue("pick", alphas);
  }

  /** Move the mark at once; what Python answers comes later. */
  choose(alphas) {
    if (!this.map) return;
    this.chosen = alphas;
    const marks = marksOf(this.map, this.at, alphas, this.clip);
    this.marks.replaceWith(marks);
    this.marks = marks;
  }
}

export default mounted(XiMap);
