// The component: state, events, and one readout a frame while a slider moves.

const KEYBOARD_PAUSE = 300; // ms after the last key before alphas are committed
const PAGE_STEP = 0.1;

/** One mounted widget. Streamlit calls `receive` again whenever data or theme change. */
class AlphaWidget {
  constructor(root) {
    this.root = root;
    this.alphas = [];
    this.revision = null;
    this.digest = null;
    this.selected = 0;
    this.dragging = false;
    this.committed = true;
    this.updates = 0;
    this.frame = 0;
    this.timer = 0;
    this.release = () => this.endDrag();
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, this.release);
    this.came = () => this.waiting && this.receive(this.waiting);
    window.addEventListener("tauscope-kept", this.came);
    this.resize = new ResizeObserver(() => {
      if (this.view) measureConfusion(this.view.plots.confusion);
      this.schedule();
    });
    this.resize.observe(root);
  }

  unmount() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    for (const name of ["pointerup", "pointercancel"]) window.removeEventListener(name, this.release);
    window.removeEventListener("tauscope-kept", this.came);
    this.resize.disconnect();
  }

  // ---- data from Python

  receive(component) {
    this.component = component;
    const { header, length } = readHeader(component.data);
    const kept = window.__tauscope_kept?.get(header.settled.digest);
    this.waiting = kept ? null : component; // they come in a message of their own
    if (!kept) return;
    const shape = JSON.stringify([header.sliders, header.direction, header.span, header.tasks.map((task) => [task.name, task.title, task.control])]);
    if (shape !== this.shape) this.build(header, shape);
    this.header = header;
    this.adoptAlphas(header);
    if (header.digest !== this.digest || header.reading !== this.reading) {
      this.tasks = prepareTasks(header, unpackTasks(component.data, header, length, kept));
      this.digest = header.digest;
      this.reading = header.reading;
    }
    this.readTheme();
    this.describe();
    measureConfusion(this.view.plots.confusion);
    this.update();
  }

  /** A new revision moves the sliders, unless a hand is on one of them. */
  adoptAlphas(header) {
    const names = header.sliders.map((slider) => slider.name).join("\n");
    const same = names === this.names;
    this.names = names;
    if (same && header.revision === this.revision) return;
    this.revision = header.revision;
    if (same && this.dragging) return;
    this.alphas = [...header.alphas];
    this.committed = true;
  }

  readTheme() {
    markTheme(this.root);
    const style = getComputedStyle(this.root);
    this.text = { color: style.color, font: style.fontFamily };
  }

  // ---- building

  build(header, shape) {
    this.shape = shape;
    this.header = header;
    this.view = buildView(this.root, header);
    this.selected = Math.min(this.selected, header.tasks.length - 1);
    this.bindSlider(this.view.master, (alpha) => this.alphas.fill(alpha));
    for (const row of this.view.rows) {
      if (row.slider >= 0) this.bindSlider(row, (alpha) => (this.alphas[row.slider] = alpha), row.task);
      if (row.task >= 0) this.bindRow(row);
    }
    this.bindButtons(this.view.buttons);
    attachTooltip(this.root, this.view.tip, this.view.plots.confusion.canvas, (event) => describeCell(this.view.plots.confusion, event));
  }

  bindSlider(slider, set, task = -1) {
    const input = (source) => () => {
      const alpha = Number(source.value);
      if (source.value === "" || !Number.isFinite(alpha)) return;
      const [low, high] = this.header.span;
      set(Math.min(high, Math.max(low, alpha)));
      this.committed = false;
      this.schedule();
    };
    slider.range.addEventListener("input", input(slider.range));
    slider.number.addEventListener("input", input(slider.number));
    slider.range.addEventListener("pointerdown", () => (this.dragging = true));
    slider.range.addEventListener("keydown", (event) => this.pageKey(event, slider.range));
    slider.range.addEventListener("change", () => this.commit(this.byKeyboard ? KEYBOARD_PAUSE : 0));
    slider.number.addEventListener("change", () => this.commit(0));
    for (const source of [slider.range, slider.number]) {
      source.addEventListener("keydown", () => (this.byKeyboard = true));
      source.addEventListener("pointerdown", () => (this.byKeyboard = false));
      source.addEventListener("focus", () => task >= 0 && this.select(task));
    }
    slider.number.addEventListener("blur", () => this.schedule());
  }

  /** Page up and down move by a tenth; the browser's own step would be three. */
  pageKey(event, range) {
    const direction = { PageUp: 1, PageDown: -1 }[event.key];
    if (!direction) return;
    event.preventDefault();
    range.value = String(Number(range.value) + direction * PAGE_STEP);
    range.dispatchEvent(new Event("input"));
    this.commit(KEYBOARD_PAUSE);
  }

  bindRow(row) {
    row.node.addEventListener("pointerenter", (event) => {
      if (!this.dragging && event.pointerType === "mouse") this.select(row.task);
    });
    row.nameButton.addEventListener("focus", () => this.select(row.task));
    row.nameButton.addEventListener("click", () => this.select(row.task));
    attachTooltip(this.root, this.view.tip, row.bar, () => this.describeBar(row));
  }

  bindButtons(buttons) {
    const preset = (name) => () => this.setAll(this.header.presets[name].alphas);
    buttons.shared.addEventListener("click", preset("shared"));
    buttons.each.addEventListener("click", preset("each"));
    buttons.reset.addEventListener("click", () => this.setAll(this.alphas.map(() => 0)));
    buttons.pin.addEventListener("click", () => this.component.setTriggerValue("pin", this.pinned()));
  }

  /** Commit here too: a slider brought back to where it was fires no `change`. */
  endDrag() {
    if (this.dragging && !this.committed) this.commit(0);
    this.dragging = false;
  }

  // ---- acting

  select(task) {
    if (task === this.selected) return;
    this.selected = task;
    this.schedule();
  }

  setAll(alphas) {
    this.alphas = [...alphas];
    this.committed = false;
    this.update();
    this.commit(0);
  }

  /** Tell Python where the sliders stand; never while one moves. */
  commit(pause) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.committed = true;
      this.component.setStateValue("alphas", { revision: this.revision, values: this.byName(this.alphas) });
      this.schedule();
    }, pause);
  }

  byName(alphas) {
    return Object.fromEntries(this.header.sliders.map((slider, t) => [slider.name, alphas[t]]));
  }

  metrics() {
    const { absolute, normalized, control, rows } = this.readout;
    return { absolute, normalized, control, tasks: Object.fromEntries(rows.map((row) => [row.name, row.accuracy])) };
  }

  pinned() {
    return { alphas: this.byName(this.alphas), metrics: this.metrics(), exact: this.exact() && !this.pending() };
  }

  // ---- showing

  schedule() {
    if (!this.frame && this.header) this.frame = requestAnimationFrame(() => this.update());
  }

  /** Recompute and show everything for the present alphas. */
  update() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const start = performance.now();
    this.readout = readOut(this.header, this.tasks, this.alphas);
    this.showSliders();
    this.showBars();
    this.showTiles();
    this.showStatus();
    updateCurve(this.view.plots.curve, this.alphas, this.readout);
    this.showTask();
    updatePins(this.now, this.metrics(), this.alphas);
    this.publish(performance.now() - start);
  }

  showSliders() {
    const { master, rows } = this.view;
    const { span } = this.header;
    for (const row of rows) if (row.slider >= 0) updateSlider(row, this.alphas[row.slider], span);
    const equal = this.alphas.every((alpha) => alpha === this.alphas[0]);
    updateSlider(master, this.alphas.reduce((sum, alpha) => sum + alpha, 0) / this.alphas.length, span);
    master.mixed.hidden = equal;
    master.node.classList.toggle("differing", !equal);
  }

  showBars() {
    for (const row of this.view.rows) {
      if (row.task < 0) continue;
      const { right, n, accuracy } = this.readout.rows[row.task];
      const { zeroshot, single } = this.tasks[row.task];
      updateBar(row, accuracy, zeroshot, single, wilson(right, n));
      row.node.classList.toggle("selected", row.task === this.selected);
      row.node.classList.toggle("approximate", this.tasks[row.task].pending);
      row.nameButton.setAttribute("aria-pressed", String(row.task === this.selected));
      if (this.committed) row.bar.setAttribute("aria-label", this.describeBar(row).join("; "));
    }
    const { master } = this.view;
    updateBar(master, this.readout.absolute ?? 0, this.means.zeroshot, this.means.single, null);
    if (this.committed) master.bar.setAttribute("aria-label", `Mean accuracy ${percent(this.readout.absolute)} %`);
  }

  showTiles() {
    const { absolute, normalized, control } = this.view.tiles;
    setText(absolute.value, percent(this.readout.absolute));
    setText(normalized.value, percent(this.readout.normalized));
    if (!control) return;
    setText(control.value, percent(this.readout.control));
    setText(control.note, `${points(this.readout.controlChange)} points against α = 0`);
  }

  /** Linearized readings are exact everywhere, the non-linear one only at its anchor. */
  exact() {
    return !this.header.anchor || this.alphas.every((alpha, t) => alpha === this.header.anchor[t]);
  }

  /** Whether the control task's exact scores are still to come. */
  pending() {
    return this.tasks.some((task) => task.pending);
  }

  showStatus() {
    const exact = this.exact();
    const whole = exact && !this.pending();
    const counts = [...new Set(this.tasks.map((task) => task.n))];
    const n = counts.length === 1 ? `${counts[0]} a task` : `${Math.min(...counts)} to ${Math.max(...counts)} a task`;
    const text = exact ? `exact, n = ${n}` : this.committed ? "computing exact value…" : "approximate while dragging";
    setText(this.view.badge, `${text} · ${exact && !whole ? "control follows" : this.header.split}`);
    this.status = whole ? "exact" : exact || this.committed ? "computing" : "approximate";
    this.view.badge.dataset.status = this.status;
    this.root.classList.toggle("approximate", !exact);
    const { full } = this.header;
    const fits = full && full.alphas.every((alpha, t) => alpha === this.alphas[t]);
    setText(this.view.full, fits ? `whole split: ${percent(full.absolute)} % (n = ${full.n.toLocaleString("en")})` : "");
  }

  showTask() {
    const task = this.tasks[this.selected];
    const { confusion, pictures } = this.view.plots;
    drawConfusion(confusion, task, this.readout.rows[this.selected].right, this.text);
    updatePictures(pictures, task, this.digest);
  }

  /** What changes with the payload and not with the sliders. */
  describe() {
    const { buttons, formula, tiles, plots, pins } = this.view;
    const { presets, convention, sliders, reading, direction } = this.header;
    for (const [name, button] of [["shared", buttons.shared], ["each", buttons.each]]) {
      button.disabled = !presets[name].alphas;
      button.title = presets[name].alphas ? "Set the sliders to the alphas chosen on validation" : presets[name].why;
    }
    const sum = `${convention === "mean" ? `1/${sliders.length} ` : ""}Σ αₜ τₜ (${convention})`;
    setText(formula, `${READINGS[reading]} · θ = θ₀ + ${direction ? `α τ (${direction})` : sum}`);
    for (const row of this.view.rows) if (row.slider < 0 && row.task >= 0) describeFiller(row, this.tasks[row.task]);
    const mean = (key) => meanOver(this.tasks, (task) => task[key]);
    this.means = { zeroshot: mean("zeroshot"), single: mean("single") };
    setText(tiles.absolute.note, `zero-shot ${percent(this.means.zeroshot)}, own alone ${percent(this.means.single)}`);
    setText(tiles.normalized.note, "merged ÷ own vector alone");
    drawCurve(plots.curve, this.header);
    this.now = drawPins(pins, this.header, {
      restore: (pin) => this.setAll(pin.alphas),
      remove: (pin) => this.component.setTriggerValue("unpin", pin.name),
    });
  }

  describeBar(row) {
    const { right, n, accuracy } = this.readout.rows[row.task];
    const { zeroshot, single, title } = this.tasks[row.task];
    const [low, high] = wilson(right, n);
    const lines = [`${title}: ${percent(accuracy)} %`, `${right} of ${n}, 95 % interval ${percent(low)} to ${percent(high)}`, `zero-shot ${percent(zeroshot)} %`];
    if (single !== null) lines.push(`own vector alone ${percent(single)} %`);
    return lines;
  }

  /** For the tests, and for anyone curious in the browser's console. */
  publish(milliseconds) {
    this.updates += 1;
    const held = window.__tauscope_alpha ?? {};
    const times = this.updates === 1 ? [] : (held.times ?? []);
    times.push(milliseconds);
    if (times.length > 500) times.shift();
    window.__tauscope_alpha = {
      updates: this.updates,
      lastMs: milliseconds,
      times,
      status: this.status,
      revision: this.revision,
      alphas: this.byName(this.alphas),
      selected: this.tasks[this.selected].name,
      metrics: this.metrics(),
      correct: Object.fromEntries(this.readout.rows.map((row) => [row.name, row.right])),
    };
  }
}

export default mounted(AlphaWidget);
