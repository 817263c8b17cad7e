// The three plots: accuracy against a shared alpha, confusion of one task, its example images.

const CURVE = { width: 440, height: 200, left: 34, right: 12, top: 12, bottom: 30 };
const CIVIDIS = ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "e1cc55", "fee838"].map(
  (hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)),
);
const LABEL_WIDTH = 92; // of the class names left of the confusion matrix, pixels
const PICTURE_SIDE = 32;

function buildPlots({ direction }) {
  const caption = (text, testid) => el("h4", testid ? { "data-testid": testid } : {}, text);
  const curve = { svg: svg("svg", { viewBox: `0 0 ${CURVE.width} ${CURVE.height}`, role: "img", "data-testid": "curve" }), legend: el("div", { class: "legend" }) };
  curve.node = el("section", { class: "curve" }, caption(direction ? `Accuracy against alpha: ${direction}` : "Accuracy against a shared alpha"), curve.svg, curve.legend);
  const confusion = { title: caption("", "confusion-title"), canvas: el("canvas", { role: "img", "data-testid": "confusion" }), note: el("div", { class: "note" }) };
  const key = el("div", { class: "key note" }, "rows true, columns predicted", el("span", { class: "ramp" }, "0"), el("i", { style: `background: linear-gradient(to right, ${CIVIDIS.map((_, i) => cividis(i / (CIVIDIS.length - 1))).join(", ")})` }), el("span", {}, "100 % of the row"));
  confusion.node = el("section", { class: "confusion" }, confusion.title, confusion.canvas, key, confusion.note);
  const pictures = { title: caption("", "pictures-title"), note: el("div", { class: "note" }), grid: el("div", { class: "grid", "data-testid": "pictures" }), frames: [], task: null };
  pictures.node = el("section", { class: "pictures" }, el("div", { class: "heading" }, pictures.title, pictures.note), pictures.grid);
  return { curve, confusion, pictures };
}

// ---- accuracy against a shared alpha

/** Scales of the plot: alpha as validated (padded), accuracy from 0 to 100 % or the next ten. */
function curveScales(header) {
  const alphas = header.curve.length ? header.curve.map((point) => point.alpha) : header.direction ? header.span : [0, 1];
  const low = Math.min(...alphas), high = Math.max(...alphas);
  const best = Math.max(1, ...header.curve.map((point) => point.normalized));
  const top = Math.ceil(best * 10 - 1e-9) / 10;
  const { width, height, left, right, top: above, bottom } = CURVE;
  return {
    low, high, top,
    x: (alpha) => left + ((alpha - low) / (high - low || 1)) * (width - left - right),
    y: (value) => height - bottom - (Math.min(Math.max(value, 0), top) / top) * (height - above - bottom),
  };
}

/** Axes, the validation points and the chosen one: drawn when the payload changes. */
function drawCurve(plot, header) {
  const scales = curveScales(header);
  const { x, y, low, high, top } = scales;
  const parts = [];
  plot.chosen = null;
  for (let value = 0; value <= top + 1e-9; value += 0.25) {
    parts.push(svg("line", { class: "gridline", x1: x(low), x2: x(high), y1: y(value), y2: y(value) }));
    parts.push(svg("text", { class: "tick", x: CURVE.left - 6, y: y(value) + 3.5, "text-anchor": "end" }, String(Math.round(100 * value))));
  }
  for (let i = 0; i <= 4; i++) {
    const alpha = low + ((high - low) * i) / 4;
    parts.push(svg("text", { class: "tick", x: x(alpha), y: CURVE.height - 14, "text-anchor": "middle" }, String(+alpha.toFixed(2)).replace("-", "−")));
  }
  parts.push(svg("text", { class: "tick", x: (x(low) + x(high)) / 2, y: CURVE.height - 1, "text-anchor": "middle" }, header.direction ? "alpha of the direction" : "alpha, the same for all"));
  if (header.chosen !== null) {
    const at = x(header.chosen);
    parts.push(svg("line", { class: "chosen", x1: at, x2: at, y1: y(0), y2: y(top) }));
    plot.chosen = { at, label: svg("text", { class: "tick chosen", y: y(0) - 4 }, `chosen ${decimal(header.chosen)}`) };
    parts.push(plot.chosen.label);
  }
  for (const kind of ["normalized", "absolute"]) {
    const points = header.curve.map((point) => `${x(point.alpha)},${y(point[kind])}`);
    if (points.length) parts.push(svg("polyline", { class: `line ${kind}`, points: points.join(" ") }));
    parts.push(...header.curve.map((point) => curveMark(kind, x(point.alpha), y(point[kind]), 2.6, point.alpha === header.chosen ? "picked" : "")));
  }
  plot.cross = svg("line", { class: "cross", y1: y(0), y2: y(top) });
  plot.label = svg("text", { class: "tick live", y: CURVE.top + 8 });
  plot.live = { absolute: curveMark("absolute", 0, 0, 5, "live"), normalized: curveMark("normalized", 0, 0, 5, "live") };
  plot.scales = scales;
  plot.svg.replaceChildren(...parts, plot.cross, plot.label, plot.live.normalized, plot.live.absolute);
  plot.legend.replaceChildren(
    el("span", { class: "item" }, el("i", { class: "sample absolute" }), "mean accuracy"),
    el("span", { class: "item" }, el("i", { class: "sample normalized" }), "normalised"),
    el("span", { class: "item" }, header.curve.length ? `points: validation; large marks: now, ${header.split} images` : "validation points not computed yet"),
  );
}

/** A circle for the mean accuracy, a square for the normalised one. */
function curveMark(kind, x, y, radius, extra) {
  const place = kind === "absolute"
    ? svg("circle", { r: radius })
    : svg("rect", { x: -radius * 0.9, y: -radius * 0.9, width: radius * 1.8, height: radius * 1.8 });
  return svg("g", { class: `point ${kind} ${extra}`, transform: `translate(${x},${y})` }, place);
}

/** Move the cross-hair to the mean of the sliders and the large marks to the live values. */
function updateCurve(plot, alphas, readout) {
  const { x, y, low, high } = plot.scales;
  const mean = alphas.reduce((sum, alpha) => sum + alpha, 0) / alphas.length;
  const equal = alphas.every((alpha) => alpha === alphas[0]);
  const clipped = Math.min(high, Math.max(low, mean));
  const at = x(clipped);
  plot.cross.setAttribute("x1", at);
  plot.cross.setAttribute("x2", at);
  plot.cross.classList.toggle("mixed", !equal);
  const outside = mean < low ? "◂ " : mean > high ? "▸ " : "";
  setText(plot.label, `${outside}${equal ? "α" : "mean of the sliders"} ${decimal(mean)}`);
  placeLabel(plot.label, at, at > CURVE.width * 0.62);
  // out of the cross-hair's way, unless there is no room on that side
  if (plot.chosen) placeLabel(plot.chosen.label, plot.chosen.at, at >= plot.chosen.at ? plot.chosen.at > 110 : plot.chosen.at > CURVE.width - 80);
  for (const kind of ["absolute", "normalized"]) {
    const value = readout[kind];
    plot.live[kind].style.display = value === null ? "none" : "";
    if (value !== null) plot.live[kind].setAttribute("transform", `translate(${at},${y(value)})`);
  }
}

function placeLabel(label, at, toTheLeft) {
  label.setAttribute("x", at + (toTheLeft ? -6 : 6));
  label.setAttribute("text-anchor", toTheLeft ? "end" : "start");
}

// ---- confusion of one task

function cividis(fraction) {
  const at = Math.min(1, Math.max(0, fraction)) * (CIVIDIS.length - 1);
  const i = Math.min(CIVIDIS.length - 2, Math.floor(at));
  const mixed = CIVIDIS[i].map((low, k) => Math.round(low + (CIVIDIS[i + 1][k] - low) * (at - i)));
  return `rgb(${mixed.join(",")})`;
}

/** The canvas's size, read when it may have changed: reading it costs a layout. */
function measureConfusion(plot) {
  plot.size = { width: plot.canvas.clientWidth || 300, height: plot.canvas.clientHeight || 216 };
}

/** Draw the matrix, each row divided by its sum, and name the largest confusion. */
function drawConfusion(plot, task, right, text) {
  const C = task.classes.length;
  const counts = confusionCounts(task);
  const { width, height } = plot.size;
  const ratio = window.devicePixelRatio || 1;
  if (plot.canvas.width !== Math.round(width * ratio)) plot.canvas.width = Math.round(width * ratio);
  if (plot.canvas.height !== Math.round(height * ratio)) plot.canvas.height = Math.round(height * ratio);
  const context = plot.canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const cell = { width: (width - LABEL_WIDTH) / C, height: height / C };
  context.font = `${Math.min(11, cell.height)}px ${text.font}`;
  context.fillStyle = text.color;
  context.textAlign = "right";
  context.textBaseline = "middle";
  let worst = { count: 0 };
  for (let row = 0; row < C; row++) {
    let total = 0;
    for (let column = 0; column < C; column++) total += counts[row * C + column];
    if (cell.height >= 8) {
      context.fillStyle = text.color;
      context.fillText(shorten(context, task.classes[row]), LABEL_WIDTH - 6, (row + 0.5) * cell.height);
    }
    for (let column = 0; column < C; column++) {
      const count = counts[row * C + column];
      context.fillStyle = cividis(total ? count / total : 0);
      context.fillRect(LABEL_WIDTH + column * cell.width, row * cell.height, cell.width - 0.5, cell.height - 0.5);
      if (row !== column && count > worst.count) worst = { count, total, row, column };
    }
  }
  plot.state = { counts, task, cell };
  setText(plot.title, `Confusion: ${task.title}, ${right} of ${task.n} right`);
  const names = task.classes;
  setText(plot.note, worst.count
    ? `Most confused: ${names[worst.row]} taken for ${names[worst.column]}, ${worst.count} of ${worst.total}.`
    : "No image is confused.");
  plot.canvas.setAttribute("aria-label", `${plot.title.textContent}. ${plot.note.textContent}`);
}

function shorten(context, name) {
  let shown = name;
  while (shown.length > 2 && context.measureText(shown).width > LABEL_WIDTH - 8) shown = shown.slice(0, -2);
  return shown === name ? name : `${shown}…`;
}

/** Lines for the cell under the mouse. */
function describeCell(plot, event) {
  if (!plot.state) return null;
  const { counts, task, cell } = plot.state;
  const box = plot.canvas.getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left - LABEL_WIDTH) / cell.width);
  const row = Math.floor((event.clientY - box.top) / cell.height);
  const C = task.classes.length;
  if (row < 0 || row >= C || column >= C) return null;
  const total = counts.slice(row * C, (row + 1) * C).reduce((sum, count) => sum + count, 0);
  if (column < 0) return [`true: ${task.classes[row]}`, `${total} images, ${counts[row * C + row]} right`];
  const count = counts[row * C + column];
  const share = total ? ` (${percent(count / total)} %)` : "";
  return [`true: ${task.classes[row]}`, `predicted: ${task.classes[column]}`, `${count} of ${total}${share}`];
}

// ---- example images

/** One frame a picture, drawn when another task is selected. */
function drawPictures(plot, task) {
  plot.task = task.name;
  const side = PICTURE_SIDE;
  plot.frames = task.picture_indices.map((index, k) => {
    const canvas = el("canvas", { width: side, height: side });
    const image = new ImageData(side, side);
    for (let i = 0, from = k * side * side * 3; i < side * side; i++, from += 3) {
      image.data[4 * i] = task.pictures[from];
      image.data[4 * i + 1] = task.pictures[from + 1];
      image.data[4 * i + 2] = task.pictures[from + 2];
      image.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    const symbol = el("span", { class: "symbol" }), caption = el("figcaption"), change = el("span", { class: "change" });
    return { index, symbol, caption, change, node: el("figure", {}, el("div", { class: "frame" }, canvas, symbol, change), caption) };
  });
  plot.grid.replaceChildren(...plot.frames.map((frame) => frame.node));
}

/** Right or wrong, what it is taken for, and whether alpha = 0 judged otherwise. */
function updatePictures(plot, task, key) {
  if (plot.task !== task.name || plot.key !== key) {
    drawPictures(plot, task);
    plot.key = key;
  }
  let gained = 0, lost = 0;
  for (let n = 0; n < task.n; n++) {
    const now = task.predictions[n] === task.labels[n];
    const before = task.zeroshotPredictions[n] === task.labels[n];
    if (now && !before) gained++;
    if (before && !now) lost++;
  }
  for (const frame of plot.frames) {
    const predicted = task.predictions[frame.index], truth = task.labels[frame.index];
    const right = predicted === truth;
    const changed = right !== (task.zeroshotPredictions[frame.index] === truth);
    const look = `${right ? "right" : "wrong"}${changed ? " changed" : ""}`;
    if (frame.node.className !== look) {
      frame.node.className = look;
      frame.symbol.textContent = right ? "✓" : "✗";
      frame.change.textContent = changed ? (right ? "▲" : "▼") : "";
    }
    setText(frame.caption, task.classes[predicted]);
    frame.node.title = `true: ${task.classes[truth]}; predicted: ${task.classes[predicted]}${changed ? (right ? "; wrong at alpha 0" : "; right at alpha 0") : ""}`;
  }
  setText(plot.title, plot.frames.length ? `Examples: ${task.title}` : `Against α = 0: ${task.title}`);
  setText(plot.note, `of all ${task.n}, against α = 0: ▲ ${gained} became right, ▼ ${lost} wrong`);
}
