// The widget's skeleton: built once for a set of sliders and tasks, then only updated.

const READINGS = {
  nonlinear: "Non-linear f(x; θ)",
  posthoc: "Post-hoc linearized",
  linear: "Linearly fine-tuned",
};

/** Rows in order: one a slider (with its task if it is evaluated), then tasks without a slider. */
function rowsOf(header) {
  // a merged direction's only slider is the first row's
  const sliders = header.direction ? [] : header.sliders;
  const rows = sliders.map((slider, t) => ({
    slider: t,
    task: header.tasks.findIndex((task) => task.name === slider.name),
    title: slider.title,
    name: slider.name,
  }));
  header.tasks.forEach((task, e) => {
    if (!sliders.some((slider) => slider.name === task.name)) {
      rows.push({ slider: -1, task: e, title: task.title, name: task.name, control: task.control });
    }
  });
  return rows.sort((a, b) => Number(Boolean(a.control)) - Number(Boolean(b.control)));
}

/** A slider with its number box; `label` names both for a screen reader. */
function buildSlider(label, testid, [low, high]) {
  const shared = { min: String(low), max: String(high), step: "0.01", value: "0" };
  const at = (alpha) => (alpha - low) / (high - low);
  const range = el("input", { type: "range", ...shared, "aria-label": `alpha of ${label}`, "data-testid": `range-${testid}` });
  const number = el("input", { type: "number", ...shared, inputmode: "decimal", "aria-label": `alpha of ${label}, number`, "data-testid": `number-${testid}` });
  return { range, number, rangeBox: el("div", { class: "range", style: `--origin:${at(0)};--one:${at(1)}` }, range) };
}

/** A bar with its interval and the two marks. */
function buildBar(testid) {
  const parts = {
    fill: el("div", { class: "fill" }),
    whisker: el("div", { class: "whisker" }),
    zeroshot: el("div", { class: "mark zeroshot" }),
    single: el("div", { class: "mark single" }),
  };
  const bar = el("div", { class: "bar", role: "img", "data-testid": `bar-${testid}` }, ...Object.values(parts));
  const value = el("output", { class: "value", "data-testid": `value-${testid}` });
  return { bar, value, ...parts };
}

function buildRow(row, span) {
  const bar = row.task >= 0 ? buildBar(row.name) : null;
  const slider = row.slider >= 0 ? buildSlider(row.title, row.name, span) : null;
  const name = el("button", { class: "name", type: "button", "data-testid": `task-${row.name}`, "aria-pressed": "false", disabled: row.task < 0 }, row.title);
  const filler = el("div", { class: "range empty" });
  const node = el(
    "div",
    { class: `row${row.control ? " control" : ""}`, "data-testid": `row-${row.name}` },
    name,
    slider ? slider.rangeBox : filler,
    slider ? slider.number : el("div", { class: "nonumber" }),
    bar ? bar.bar : el("div"),
    bar ? bar.value : el("div"),
  );
  return { ...row, node, filler, nameButton: name, ...(slider ?? {}), ...(bar ?? {}) };
}

/** What stands in the place of a slider. */
function describeFiller(row, task) {
  setText(row.filler, row.control ? "control task" : task.note);
  row.filler.title = row.control || !task.note ? "" : "Between this task's own vector and the merged direction";
}

function buildMaster({ direction, span }) {
  const slider = buildSlider(direction ?? "all task vectors", "all", span);
  const bar = buildBar("all");
  const mixed = el("span", { class: "mixed", hidden: true, title: "The sliders differ: this is their mean. Moving it sets them all." }, "mixed");
  const node = el("div", { class: "row master" }, el("div", { class: "name", title: direction ?? "" }, direction ?? "All ", mixed), slider.rangeBox, slider.number, bar.bar, bar.value);
  return { node, mixed, ...slider, ...bar };
}

function buildAxisRow({ direction, span: [low, high] }) {
  const whole = Array.from({ length: Math.floor(high) - Math.ceil(low) + 1 }, (_, i) => Math.ceil(low) + i);
  const ticks = whole.map((alpha) => el("span", { style: `--at:${(alpha - low) / (high - low)}` }, String(alpha).replace("-", "−")));
  const scale = [0, 50, 100].map((value) => el("span", { style: `--at:${value / 100}` }, `${value}`));
  return el(
    "div",
    { class: "row axis", "aria-hidden": "true" },
    el("div", { class: "name" }, direction ? "Direction" : "Task vector"),
    el("div", { class: "ticks" }, ...ticks),
    el("div", { class: "head" }, "α"),
    el("div", { class: "scale" }, ...scale),
    el("div", { class: "head" }, "%"),
  );
}

function buildTile(label, testid, explanation) {
  const value = el("output", { class: "big", "data-testid": testid });
  const note = el("div", { class: "note" });
  const node = el("div", { class: `tile ${testid}`, title: explanation }, el("div", { class: "label" }, label), el("div", { class: "figure" }, value, el("span", { class: "unit" }, "%")), note);
  return { node, value, note };
}

function buildTiles(hasControl) {
  const tiles = {
    absolute: buildTile("Mean accuracy", "absolute", "Mean over the tasks, control left out, of the share of images the merged model gets right."),
    normalized: buildTile("Normalised", "normalized", "Mean over the tasks of merged accuracy divided by the accuracy of the task's own vector alone at alpha = 1."),
  };
  if (hasControl) tiles.control = buildTile("Control task", "control", "Accuracy on the control task, on which nothing was fine-tuned: what an edit costs elsewhere.");
  return tiles;
}

function buildLegend() {
  const item = (kind, text, explanation) => el("span", { class: "item", title: explanation }, el("i", { class: `sample ${kind}` }), text);
  return el(
    "div",
    { class: "legend" },
    item("merged", "merged, 95 % interval", "The merged model at the sliders' alphas; the line is the Wilson interval of the images shown."),
    item("zeroshot", "zero-shot", "All alphas at 0: the pre-trained model."),
    item("single", "own vector alone", "This task's own vector at alpha = 1, every other at 0."),
  );
}

function buildButton(text, testid) {
  return el("button", { type: "button", class: "action", "data-testid": testid }, text);
}

/** Everything, empty of numbers. `root` keeps only what is returned here. */
function buildView(root, header) {
  const { direction, span } = header;
  const rows = rowsOf(header).map((row) => buildRow(row, span));
  const master = buildMaster(header);
  const tiles = buildTiles(header.tasks.some((task) => task.control));
  const buttons = { shared: buildButton(direction ? "Best alpha" : "Best shared", "best-shared"), each: buildButton("Best per task", "best-per-task"), reset: buildButton("Reset", "reset"), pin: buildButton("Pin", "pin") };
  buttons.each.hidden = Boolean(direction);
  const badge = el("div", { class: "badge", role: "status", "data-testid": "status" });
  const full = el("div", { class: "full", "data-testid": "full" });
  const formula = el("div", { class: "formula" });
  const plots = buildPlots(header);
  const pins = el("section", { class: "pins", "data-testid": "pins" });
  const tip = el("div", { class: "tip", hidden: true, role: "presentation" });
  root.replaceChildren(
    el("div", { class: "summary" }, ...Object.values(tiles).map((tile) => tile.node), el("div", { class: "state" }, badge, full)),
    el("div", { class: "toolbar" }, ...Object.values(buttons), formula),
    el(
      "div",
      { class: "board" },
      el("div", { class: "table" }, buildAxisRow(header), master.node, ...rows.map((row) => row.node), buildLegend(), plots.pictures.node),
      el("div", { class: "side" }, plots.curve.node, plots.confusion.node),
    ),
    pins,
    tip,
  );
  return { rows, master, tiles, buttons, badge, full, formula, plots, pins, tip };
}

/** Place a bar's fill, interval and marks; `row` has accuracy and, on one task, right and n. */
function updateBar(parts, accuracy, zeroshot, single, interval) {
  const at = (node, fraction) => {
    node.hidden = fraction === null;
    if (fraction !== null) node.style.left = `${100 * fraction}%`;
  };
  parts.fill.style.width = `${100 * accuracy}%`;
  parts.whisker.hidden = !interval;
  if (interval) {
    parts.whisker.style.left = `${100 * interval[0]}%`;
    parts.whisker.style.width = `${100 * (interval[1] - interval[0])}%`;
  }
  at(parts.zeroshot, zeroshot);
  at(parts.single, single);
  setText(parts.value, percent(accuracy));
}

/** Show an alpha on a slider and its box, leaving alone the box being typed in. */
function updateSlider(slider, alpha, [low, high]) {
  const shown = alpha.toFixed(2).replace("-0.00", "0.00");
  if (Number(slider.range.value) !== Number(shown)) slider.range.value = shown;
  if (slider.number.value !== shown && slider.number.getRootNode().activeElement !== slider.number) slider.number.value = shown;
  slider.rangeBox.style.setProperty("--at", ((alpha - low) / (high - low)).toFixed(4));
  slider.range.setAttribute("aria-valuetext", `alpha ${shown}`);
}
