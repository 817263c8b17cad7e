// The component: two sliders, a bar a task, the mean against epochs, and the plane beside them.

const PAUSE = 300; // ms after the last key before the view is committed
const CHART = { width: 320, height: 110, left: 34, right: 10, top: 8, bottom: 28 };

class EpochsExplorer {
  constructor(root) {
    this.root = root;
    this.release = () => (this.dragging = false);
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, this.release);
  }

  unmount() {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    for (const name of ["pointerup", "pointercancel"]) window.removeEventListener(name, this.release);
  }

  receive(component) {
    this.component = component;
    const { revision, epoch, alpha, ...rest } = component.data;
    const text = JSON.stringify(rest);
    const fresh = text !== this.text;
    this.data = component.data;
    if (fresh || (revision !== this.revision && !this.dragging)) {
      this.e = this.data.epochs.indexOf(epoch);
      this.own = alpha === null;
      this.a = this.own ? this.data.chosen[this.e] : this.data.alphas.indexOf(alpha);
      this.revision = revision;
    }
    if (fresh) {
      this.text = text;
      this.build();
    }
    markTheme(this.root);
    this.update();
  }

  // ---- building

  build() {
    const { epochs, alphas, tasks } = this.data;
    this.epochs = this.buildSlider("epoch", "Epochs a task", epochs.length, (place) => (this.e = place));
    this.alphas = this.buildSlider("alpha", "α", alphas.length, (place) => {
      this.a = place;
      this.own = false;
    });
    this.chosen = this.buildButton("own", "Chosen on validation", () => (this.own = !this.own));
    this.mean = this.buildButton("mean", `Mean, α = 1/${tasks.length}`, () => {
      this.own = false;
      this.a = this.data.mean;
    });
    const bar = el("div", { class: "bar" }, this.epochs.node, this.alphas.node, el("div", { class: "buttons" }, this.chosen, this.mean));
    this.totals = ["absolute", "normalized", "converged"].map((name) => el("b", { "data-testid": `epochs-${name}` }));
    const words = ["mean accuracy", "normalized by own τ⁽ᵏ⁾", "normalized by own last τ"];
    const totals = el("div", { class: "totals", role: "status" }, ...words.map((word, place) => el("span", {}, this.totals[place], ` % ${word}`)));
    this.rows = tasks.map((task, place) => this.buildRow(task, place));
    this.tip = el("div", { class: "tip", hidden: true, role: "presentation" });
    this.buildChart();
    const legend = el("div", { class: "legend" }, el("span", { class: "key zero" }, "zero-shot"), el("span", { class: "key single" }, "own vector, α = 1"), el("span", {}, this.data.note));
    const right = el("div", { class: "accuracies" }, totals, el("div", { class: "rows" }, ...this.rows.map((row) => row.node)), legend, this.chart);
    this.plane = this.data.plane && new Plane(this.data.plane, tasks);
    const left = this.plane && el("div", { class: "paths" }, this.plane.node, this.buildKeys());
    this.root.replaceChildren(bar, el("div", { class: left ? "body" : "body alone" }, ...(left ? [left] : []), right), this.tip);
    if (this.plane) attachTooltip(this.root, this.tip, this.plane.node, (event) => this.plane.describe(event));
    for (const row of this.rows) attachTooltip(this.root, this.tip, row.node, () => this.describe(row));
    attachTooltip(this.root, this.tip, this.chart, (event) => this.describeChart(event));
  }

  buildKeys() {
    const alpha = this.data.plane.alpha.toFixed(3).replace(/0+$/, "");
    return el("div", { class: "legend" }, el("span", { class: "key tasks" }, "a task’s path, numbered as beside"), el("span", { class: "key joint" }, `joint training, α = ${alpha}`), el("span", { class: "key merge" }, "merge at the α above"), el("span", {}, "+ θ₀"));
  }

  buildSlider(name, title, count, take) {
    const range = el("input", { type: "range", min: 0, max: count - 1, step: 1, "aria-label": title, "data-testid": `epochs-slider-${name}` });
    const value = el("output", { "data-testid": `epochs-value-${name}` });
    range.addEventListener("pointerdown", () => (this.dragging = true));
    range.addEventListener("keydown", () => (this.byKeyboard = true));
    range.addEventListener("input", () => {
      take(Number(range.value));
      this.schedule();
    });
    range.addEventListener("change", () => {
      this.commit(this.byKeyboard ? PAUSE : 0);
      this.byKeyboard = false;
    });
    return { node: el("label", { class: "slider" }, el("span", {}, title), range, value), range, value };
  }

  buildButton(name, text, act) {
    return el("button", { type: "button", "data-testid": `epochs-${name}`, onclick: () => {
      act();
      this.update();
      this.commit(0);
    } }, text);
  }

  buildRow(task, place) {
    const fill = el("div", { class: "fill" }), zero = el("i", { class: "zero" }), single = el("i", { class: "single" });
    zero.style.left = `${100 * task.zeroshot}%`;
    const value = el("output", { "data-testid": `epochs-merged-${task.name}` });
    const number = el("span", { class: `number c${place % 8}` }, String(place + 1));
    const node = el("div", { class: "row" }, el("span", { class: "name" }, number, task.title), el("div", { class: "track" }, fill, zero, single), value);
    return { task, node, fill, single, value };
  }

  buildChart() {
    const { width, height, left, right, top, bottom } = CHART;
    const { epochs, tasks } = this.data;
    const zero = tasks.reduce((sum, task) => sum + task.zeroshot, 0) / tasks.length;
    const values = [zero, ...this.data.absolute.flat()];
    const low = Math.floor(10 * Math.min(...values)) / 10, high = Math.max(low + 0.1, Math.ceil(10 * Math.max(...values)) / 10);
    this.across = (place) => left + ((width - left - right) * (place + 0.5)) / epochs.length;
    this.up = (value) => top + (height - top - bottom) * (1 - (value - low) / (high - low));
    const labels = epochs.map((epoch, place) => svg("text", { x: this.across(place), y: height - 16, "text-anchor": "middle" }, String(epoch)));
    const ends = [low, high].map((value) => svg("text", { x: left - 4, y: this.up(value), dy: "0.35em", "text-anchor": "end" }, `${Math.round(100 * value)} %`));
    const frame = svg("rect", { class: "frame", x: left, y: top, width: width - left - right, height: height - top - bottom });
    const base = svg("path", { class: "zeroline", d: `M${left} ${this.up(zero)}H${width - right}` });
    this.line = svg("path", { class: "line" });
    this.dots = epochs.map(() => svg("circle", { class: "dot", r: 3 }));
    this.here = svg("circle", { class: "here", r: 6 });
    const title = svg("text", { class: "title", x: (left + width - right) / 2, y: height - 2, "text-anchor": "middle" }, "epochs a task; mean merged accuracy at this α, test");
    this.chart = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Mean merged accuracy against epochs a task; dotted: zero-shot", "data-testid": "epochs-chart" }, frame, base, this.line, ...this.dots, this.here, ...labels, ...ends, title);
  }

  // ---- acting

  commit(pause) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const view = { revision: this.revision, epoch: this.data.epochs[this.e], alpha: this.own ? null : this.data.alphas[this.a] };
      const said = JSON.stringify(view);
      if (said !== this.said) this.component.setStateValue("view", view);
      this.said = said;
    }, pause);
  }

  schedule() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.update());
  }

  /** Place of the alpha in force at an epoch. */
  placeAt(e) {
    return this.own ? this.data.chosen[e] : this.a;
  }

  // ---- showing

  update() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { epochs, alphas, tasks, last } = this.data;
    const e = this.e, a = this.placeAt(e);
    this.a = a;
    this.epochs.range.value = String(e);
    this.alphas.range.value = String(a);
    setText(this.epochs.value, `${epochs[e]} of ${last}`);
    setText(this.alphas.value, alphas[a].toFixed(3).replace(/0$/, ""));
    this.epochs.range.setAttribute("aria-valuetext", `${epochs[e]} epochs`);
    this.alphas.range.setAttribute("aria-valuetext", alphas[a].toFixed(3));
    this.chosen.setAttribute("aria-pressed", String(this.own));
    this.mean.setAttribute("aria-pressed", String(!this.own && a === this.data.mean));
    ["absolute", "normalized", "converged"].forEach((name, place) => setText(this.totals[place], percent(this.data[name][e][a])));
    for (const row of this.rows) {
      const merged = row.task.merged[e][a];
      row.fill.style.width = `${100 * merged}%`;
      row.single.style.left = `${100 * row.task.single[e]}%`;
      setText(row.value, percent(merged));
    }
    this.showChart();
    this.plane?.show(epochs[e], alphas[a]);
    this.root.dataset.epoch = String(epochs[e]);
    this.root.dataset.alpha = String(alphas[a]);
  }

  showChart() {
    const values = this.data.epochs.map((_, e) => this.data.absolute[e][this.placeAt(e)]);
    this.line.setAttribute("d", values.map((value, e) => `${e ? "L" : "M"}${this.across(e).toFixed(1)} ${this.up(value).toFixed(1)}`).join(""));
    values.forEach((value, e) => {
      this.dots[e].setAttribute("cx", this.across(e));
      this.dots[e].setAttribute("cy", this.up(value));
    });
    this.here.setAttribute("cx", this.across(this.e));
    this.here.setAttribute("cy", this.up(values[this.e]));
  }

  describe(row) {
    const { task } = row, a = this.placeAt(this.e), merged = task.merged[this.e][a];
    return [`${task.title}, ${this.data.epochs[this.e]} epochs, α = ${this.data.alphas[a].toFixed(3)}`, `merged ${percent(merged)} %, n = ${task.n}`,
      `zero-shot ${percent(task.zeroshot)} %`, `own vector alone ${percent(task.single[this.e])} %`];
  }

  describeChart(event) {
    const box = this.chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) * CHART.width) / box.width;
    const share = (x - CHART.left) / (CHART.width - CHART.left - CHART.right);
    const e = Math.min(this.data.epochs.length - 1, Math.max(0, Math.floor(share * this.data.epochs.length)));
    const a = this.placeAt(e);
    return [`${this.data.epochs[e]} epochs a task, α = ${this.data.alphas[a].toFixed(3)}`, `mean merged accuracy ${percent(this.data.absolute[e][a])} %`, `normalized ${percent(this.data.normalized[e][a])} %`];
  }
}

export default mounted(EpochsExplorer);
