// Settings kept, side by side with the present one.

/** The table: a column for now and one a pinned setting; rows are means and tasks. */
function drawPins(section, header, actions) {
  section.replaceChildren();
  if (!header.pinned.length) {
    section.append(el("p", { class: "note" }, "Pin a setting to compare it side by side with the present one."));
    return null;
  }
  const rows = pinRows(header);
  const columns = header.pinned.map((pin, i) => pinHead(pin, i, actions));
  const head = el("tr", {}, el("th", { scope: "col" }, "Accuracy, %"), el("th", { scope: "col" }, "Now"), ...columns);
  const now = [];
  const body = rows.map((row) => {
    const cell = el("td", { class: "now" });
    now.push({ cell, value: row.value });
    return el("tr", { class: row.kind }, el("th", { scope: "row" }, row.title), cell, ...header.pinned.map((pin) => pinCell(row, pin)));
  });
  section.append(el("h4", {}, "Pinned settings"), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body))));
  return now;
}

function pinRows(header) {
  const metric = (key) => (metrics) => metrics[key] ?? null;
  const rows = [
    { title: "Mean accuracy", kind: "mean", value: metric("absolute") },
    { title: "Normalised", kind: "mean", value: metric("normalized") },
  ];
  for (const task of header.tasks) {
    const t = header.sliders.findIndex((slider) => slider.name === task.name);
    rows.push({ title: task.title, kind: task.control ? "control" : "task", slider: t, value: (metrics) => metrics.tasks?.[task.name] ?? null });
  }
  return rows;
}

function pinHead(pin, i, actions) {
  const restore = el("button", { type: "button", class: "link", title: "Set the sliders to this setting", "data-testid": `restore-${i}`, onclick: () => actions.restore(pin) }, pin.name);
  const remove = el("button", { type: "button", class: "link", "aria-label": `Remove ${pin.name}`, title: "Remove", "data-testid": `unpin-${i}`, onclick: () => actions.remove(pin) }, "×");
  return el("th", { scope: "col" }, restore, " ", remove);
}

function pinCell(row, pin) {
  const alpha = row.slider >= 0 ? el("small", {}, `α ${decimal(pin.alphas[row.slider])}`) : "";
  return el("td", {}, percent(row.value(pin.metrics)), " ", alpha);
}

/** The column "Now". */
function updatePins(now, metrics) {
  if (now) for (const { cell, value } of now) setText(cell, percent(value(metrics)));
}
