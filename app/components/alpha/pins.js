// Settings kept, side by side with the present one.

/** The table: "now", then two columns a pinned setting; rows are the means and the tasks. */
function drawPins(section, header, actions) {
  section.replaceChildren();
  if (!header.pinned.length) {
    section.append(el("p", { class: "note" }, "Pin a setting to compare it side by side with the present one."));
    return null;
  }
  const live = [];
  const body = pinRows(header).map((row) => pinRow(row, header.pinned, live));
  const columns = header.pinned.map((pin, i) => pinHead(pin, i, actions));
  const head = el("tr", {}, el("th", { scope: "col" }, "Accuracy, %"), el("th", { scope: "col" }, "Now", el("small", {})), ...columns);
  const table = el("table", { "data-testid": "pin-table" }, el("thead", {}, head), el("tbody", {}, ...body));
  section.append(el("h4", {}, "Pinned settings, and now against each in points"), el("div", { class: "scroll" }, table));
  return live;
}

function pinRows(header) {
  const metric = (key) => (metrics) => metrics[key] ?? null;
  const rows = [
    { title: "Mean accuracy", kind: "mean", slider: header.direction ? 0 : -1, value: metric("absolute") },
    { title: "Normalised", kind: "mean", slider: -1, value: metric("normalized") },
  ];
  for (const task of header.tasks) {
    const slider = header.sliders.findIndex((s) => s.name === task.name);
    rows.push({ title: task.title, kind: task.control ? "control" : "task", slider, value: (metrics) => metrics.tasks?.[task.name] ?? null });
  }
  return rows;
}

/** A row; what changes with the sliders is noted in `live`. */
function pinRow(row, pinned, live) {
  const now = el("span"), alpha = el("small");
  const pins = pinned.map((pin) => ({ held: row.value(pin.metrics), delta: el("td", { class: "delta" }), pin }));
  live.push({ row, now, alpha, pins });
  const cells = pins.flatMap(({ held, delta, pin }) => [
    el("td", {}, percent(held), el("small", {}, row.slider < 0 || !pin.alphas ? "" : `α ${decimal(pin.alphas[row.slider])}`)),
    delta,
  ]);
  return el("tr", { class: row.kind }, el("th", { scope: "row" }, row.title), el("td", { class: "now" }, now, alpha), ...cells);
}

function pinHead(pin, i, actions) {
  const title = pin.alphas ? "Set the sliders to this setting" : `${pin.note}: the sliders here cannot be set to it`;
  const restore = el("button", { type: "button", class: "link", title, disabled: !pin.alphas, "data-testid": `restore-${i}`, onclick: () => actions.restore(pin) }, pin.name);
  const remove = el("button", { type: "button", class: "link", "aria-label": `Remove ${pin.name}`, title: "Remove", "data-testid": `unpin-${i}`, onclick: () => actions.remove(pin) }, "×");
  return el("th", { scope: "col", colspan: 2, class: "pin" }, restore, " ", remove, el("small", {}, pin.note));
}

/** The column "Now", its alphas, and its distance from every pinned setting. */
function updatePins(live, metrics, alphas) {
  for (const { row, now, alpha, pins } of live ?? []) {
    const value = row.value(metrics);
    setText(now, percent(value));
    if (row.slider >= 0) setText(alpha, `α ${decimal(alphas[row.slider])}`);
    for (const { held, delta } of pins) setText(delta, value === null || held === null ? "" : points(value - held));
  }
}
