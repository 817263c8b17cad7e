// The component: one alpha for all, or each task's own; small charts with a cursor, and readouts.

const WIDTH = 220, HEIGHT = 74; // of a chart, in its own units
const PAUSE = 300; // ms after the last key before alpha is committed
const down = (fraction) => (HEIGHT - 4 - fraction * (HEIGHT - 8)).toFixed(2);

class NegationGrid {
  constructor(root) {
    this.root = root;
  }

  receive(component) {
    this.component = component;
    const text = JSON.stringify({ ...component.data, alpha: 0 });
    this.data = component.data;
    if (!this.dragging) this.alpha = this.data.alpha;
    if (text !== this.text) {
      this.text = text;
      this.build();
    }
    markTheme(this.root);
    this.update();
  }

  unmount() {
    clearTimeout(this.timer);
  }

  // ---- building

  build() {
    const { alphas, readings, tasks } = this.data;
    this.slider = el("input", {
      type: "range", min: 0, max: alphas.length - 1, step: 1, "data-testid": "negation-slider",
      "aria-label": "alpha, how much of each task vector is subtracted",
      oninput: () => this.move(alphas[Number(this.slider.value)]),
      onchange: () => this.commitSoon(),
      onpointerdown: () => (this.dragging = true),
      onpointerup: () => (this.dragging = false),
    });
    this.value = el("output", { "data-testid": "negation-alpha" });
    this.each = el("button", { type: "button", "data-testid": "negation-each", onclick: () => this.chooseEach() }, "Chosen α of each task");
    const bar = el("div", { class: "bar" }, el("label", {}, "α subtracted"), this.slider, this.value, this.each);
    const head = el("div", { class: "row head" }, el("div", {}), ...readings.map((reading) => this.buildHead(reading)));
    this.rows = tasks.map((task) => this.buildRow(task));
    const grid = el("div", { class: "grid", style: `--columns: ${readings.length}` }, head, ...this.rows.map((row) => row.node));
    const legend = el("div", { class: "legend" },
      key("target", "target task"), key("control", this.data.control), key("line", `${Math.round(100 * this.data.keep)} % of the control`), key("chosen", "chosen α"),
      el("span", {}, `accuracy in %, from 0 to 100, over α from ${alphas[0]} to ${alphas.at(-1)}; validation`));
    this.tip = el("div", { class: "tip", hidden: true, role: "presentation" });
    this.root.replaceChildren(bar, legend, grid, this.tip);
    for (const row of this.rows) for (const cell of row.cells) if (cell) attachTooltip(this.root, this.tip, cell.chart, (event) => this.describe(row, cell, event));
  }

  buildHead(reading) {
    const target = el("b", { "data-testid": `mean-target-${reading.key}` });
    const control = el("b", { "data-testid": `mean-control-${reading.key}` });
    const held = el("span", { class: "held", "data-testid": `held-${reading.key}` });
    (this.heads ??= {})[reading.key] = { target, control, held };
    return el("div", { class: "cell" }, el("h4", {}, reading.title),
      el("div", { class: "means" }, el("span", {}, "mean target ", target, " %"), el("span", {}, "control ", control, " %"), held));
  }

  buildRow(task) {
    const cells = this.data.readings.map((reading) => (task.cells[reading.key] ? this.buildCell(task, reading) : null));
    const node = el("div", { class: "row", "data-testid": `negation-${task.name}` }, el("div", { class: "name" }, task.title),
      ...cells.map((cell, place) => (cell ? cell.node : el("div", { class: "cell none" }, this.which(this.data.readings[place]), " not run yet"))));
    return { task, cells, node };
  }

  /** The reading's name beside its chart, where columns have become rows. */
  which(reading) {
    return el("div", { class: "which" }, reading.title);
  }

  buildCell(task, reading) {
    const values = task.cells[reading.key];
    const across = (place) => (4 + (place / Math.max(1, this.data.alphas.length - 1)) * (WIDTH - 8)).toFixed(2);
    const path = (numbers) => numbers.map((value, place) => `${place ? "L" : "M"}${across(place)} ${down(value)}`).join("");
    const bound = down(this.data.keep * values.intact);
    const chosen = this.data.alphas.findIndex((alpha) => Math.abs(alpha - values.chosen) < 1e-9);
    const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT });
    const dots = { target: svg("circle", { class: "dot target", r: 3.4 }), control: svg("rect", { class: "dot control", width: 6, height: 6 }) };
    const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${task.title}, ${reading.title}: target and control accuracy against alpha` },
      svg("rect", { class: "frame", x: 0.5, y: 0.5, width: WIDTH - 1, height: HEIGHT - 1, rx: 3 }),
      svg("line", { class: "bound", x1: 0, x2: WIDTH, y1: bound, y2: bound }),
      svg("line", { class: "chosen", x1: across(chosen), x2: across(chosen), y1: 0, y2: HEIGHT }),
      svg("path", { class: "control", d: path(values.control) }), svg("path", { class: "target", d: path(values.target) }),
      cursor, dots.control, dots.target);
    const target = el("b", { "data-testid": `target-${task.name}-${reading.key}` }), control = el("span", { "data-testid": `control-${task.name}-${reading.key}` });
    const node = el("div", { class: "cell" }, this.which(reading), chart, el("div", { class: "readout" }, target, control));
    return { node, chart, cursor, dots, values, across, target, control, reading };
  }

  // ---- moving

  move(alpha) {
    this.alpha = alpha;
    this.update();
  }

  chooseEach() {
    this.alpha = this.alpha === null ? this.data.alphas[Number(this.slider.value)] : null;
    this.update();
    this.commit();
  }

  commitSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.commit(), PAUSE);
  }

  commit() {
    this.component.setStateValue("alpha", this.alpha);
  }

  placeOf(cell) {
    const alpha = this.alpha ?? cell.values.chosen;
    return this.data.alphas.findIndex((stop) => Math.abs(stop - alpha) < 1e-9);
  }

  update() {
    const own = this.alpha === null;
    this.each.setAttribute("aria-pressed", own);
    if (own && this.first !== false) this.slider.value = 0;
    this.first = false;
    if (!own) this.slider.value = this.data.alphas.findIndex((stop) => Math.abs(stop - this.alpha) < 1e-9);
    this.slider.classList.toggle("idle", own);
    setText(this.value, own ? "own" : this.alpha.toFixed(2));
    const sums = {};
    for (const row of this.rows) for (const cell of row.cells) if (cell) this.place(cell, sums);
    for (const reading of this.data.readings) this.total(reading, sums[reading.key]);
  }

  place(cell, sums) {
    const place = this.placeOf(cell), x = cell.across(place);
    const target = cell.values.target[place], control = cell.values.control[place];
    cell.cursor.setAttribute("x1", x);
    cell.cursor.setAttribute("x2", x);
    cell.dots.target.setAttribute("cx", x);
    cell.dots.target.setAttribute("cy", down(target));
    cell.dots.control.setAttribute("x", x - 3);
    cell.dots.control.setAttribute("y", down(control) - 3);
    const held = control >= this.data.keep * cell.values.intact;
    setText(cell.target, percent(target));
    setText(cell.control, `${held ? "✓" : "✗"} ${percent(control)}`);
    cell.node.classList.toggle("lost", !held);
    const sum = (sums[cell.reading.key] ??= { target: 0, control: 0, held: 0, n: 0 });
    sum.target += target;
    sum.control += control;
    sum.held += held;
    sum.n += 1;
  }

  total(reading, sum) {
    const head = this.heads[reading.key];
    setText(head.target, sum ? percent(sum.target / sum.n) : "–");
    setText(head.control, sum ? percent(sum.control / sum.n) : "–");
    setText(head.held, sum ? `kept for ${sum.held} of ${sum.n}` : "");
  }

  describe(row, cell, event) {
    const box = cell.chart.getBoundingClientRect();
    const last = this.data.alphas.length - 1;
    const place = Math.min(last, Math.max(0, Math.round(((event.clientX - box.left) / box.width) * last)));
    const kept = cell.values.control[place] / cell.values.intact;
    return [`${row.task.title}, ${cell.reading.title}`, `α = ${this.data.alphas[place].toFixed(2)}`,
      `target ${percent(cell.values.target[place])} %`, `control ${percent(cell.values.control[place])} %, ${percent(kept)} % of before`];
  }
}

const key = (kind, text) => el("span", { class: `key ${kind}` }, el("i", {}), text);

export default mounted(NegationGrid);
