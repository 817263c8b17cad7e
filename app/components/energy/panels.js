// One panel: two curves with bands in an SVG that stretches, a marker, a score above it.

const PLACES = 1000; // units of the drawing's height
const SHOWN = 10; // pictures in a row of the gallery
const SIDE = 32; // pixels of a picture

/** Indices of a block's points in the order wished for. */
function orderOf(mean, labels, order) {
  const indices = [...mean.keys()];
  if (order === "drawn") return indices;
  const byEnergy = (a, b) => mean[b] - mean[a] || a - b;
  if (order === "sorted") return indices.sort(byEnergy);
  return indices.sort((a, b) => labels[a] - labels[b] || byEnergy(a, b));
}

/** The two blocks of a panel at one setting, each with its points in order. */
function blocksAt(curve, blocks, setting, order) {
  const [, width] = curve.mean.shape;
  const row = (array) => array.values.subarray(setting * width, (setting + 1) * width);
  const mean = row(curve.mean), spread = row(curve.spread);
  let start = 0;
  return curve.blocks.map((place) => {
    const block = blocks[place], n = block.labels.length;
    const part = { block, n, start, mean: mean.subarray(start, start + n), spread: spread.subarray(start, start + n) };
    part.order = orderOf(part.mean, block.labels, order);
    start += n;
    return part;
  });
}

function buildPanel(curve) {
  const band = ["first", "second"].map((name) => svg("path", { class: `band ${name}` }));
  const line = ["first", "second"].map((name) => svg("path", { class: `line ${name}`, "vector-effect": "non-scaling-stroke" }));
  const rules = [0, 0.25, 0.5, 0.75, 1].map((at) => svg("path", { class: "rule", "vector-effect": "non-scaling-stroke", "data-at": at }));
  const edge = svg("path", { class: "edge", "vector-effect": "non-scaling-stroke" });
  const drawing = svg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" }, ...rules, edge, ...band, ...line);
  const marker = el("div", { class: "marker", hidden: true });
  const score = el("output", { class: "score", "data-testid": `score-${curve.arrangement}-${curve.encoder}` });
  const names = ["first", "second"].map((name) => el("span", { class: name }));
  const plot = el("div", { class: "plot", tabindex: "0", role: "img" }, drawing, marker);
  const ticks = [1, 0.5, 0].map((at) => el("span", { style: `--at:${at}` }, String(at)));
  const node = el(
    "section",
    { class: "panel", "data-testid": `panel-${curve.arrangement}-${curve.encoder}` },
    el("header", {}, el("div", { class: "title" }, el("b", {}, curve.title), el("span", { class: "encoder" }, curve.encoder)), score),
    el("div", { class: "frame" }, el("div", { class: "ticks", "aria-hidden": "true" }, ...ticks), plot),
    el("footer", {}, ...names),
  );
  return { node, drawing, band, line, rules, edge, marker, score, names, plot };
}

/** Draw a panel's curves; `parts` comes from blocksAt. */
function drawPanel(panel, parts, score) {
  const width = parts[0].n + parts[1].n;
  panel.drawing.setAttribute("viewBox", `0 0 ${width} ${PLACES}`);
  const y = (energy) => (PLACES * (1.03 - Math.min(1, Math.max(0, energy)) * 1) / 1.06).toFixed(1);
  for (const rule of panel.rules) rule.setAttribute("d", `M0 ${y(Number(rule.dataset.at))}H${width}`);
  panel.edge.setAttribute("d", `M${parts[0].n} 0V${PLACES}`);
  parts.forEach((part, b) => {
    const at = (k) => part.start + k + 0.5;
    const point = (value) => (i, k) => `${at(k)} ${y(value(i))}`;
    const upper = part.order.map(point((i) => part.mean[i] + part.spread[i]));
    const lower = part.order.map(point((i) => part.mean[i] - part.spread[i])).reverse();
    panel.line[b].setAttribute("d", `M${part.order.map(point((i) => part.mean[i])).join("L")}`);
    panel.band[b].setAttribute("d", `M${[...upper, ...lower].join("L")}Z`);
    setText(panel.names[b], `${part.block.title}: mean ${average(part.mean).toFixed(2)}`);
  });
  const [auc, low, high] = score;
  setText(panel.score, `AUC ${auc.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`);
  panel.plot.setAttribute("aria-label", `${panel.names.map((node) => node.textContent).join("; ")}; ${panel.score.textContent}`);
}

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The point under a place of the panel: its part, its index, its place from the left. */
function pointAt(parts, fraction) {
  const width = parts[0].n + parts[1].n;
  const place = Math.min(width - 1, Math.max(0, Math.floor(fraction * width)));
  const part = place < parts[0].n ? parts[0] : parts[1];
  return { part, place, index: part.order[place - part.start] };
}

/** A point's picture on a canvas; nothing where pictures were left out. */
function pictureOf(block, index, side) {
  if (!block.pictures) return null;
  const canvas = el("canvas", { width: SIDE, height: SIDE, style: `width:${side}px;height:${side}px` });
  const image = new ImageData(SIDE, SIDE);
  for (let i = 0, from = index * SIDE * SIDE * 3; i < SIDE * SIDE; i++, from += 3) {
    image.data[4 * i] = block.pictures[from];
    image.data[4 * i + 1] = block.pictures[from + 1];
    image.data[4 * i + 2] = block.pictures[from + 2];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const describePoint = ({ part, index }) => [
  `${part.block.title}: ${part.block.classes[part.block.labels[index]]}`,
  `local energy ${part.mean[index].toFixed(3)} ± ${part.spread[index].toFixed(3)} over logits`,
];

/** The points of highest and lowest energy of a panel, both blocks together. */
function extremes(parts) {
  const all = parts.flatMap((part, b) => [...part.mean.keys()].map((index) => ({ part, index, b })));
  all.sort((p, q) => q.part.mean[q.index] - p.part.mean[p.index]);
  return { highest: all.slice(0, SHOWN), lowest: all.slice(-SHOWN).reverse() };
}

function buildGallery(encoder) {
  const gallery = { encoder, title: el("h4"), highest: el("div", { class: "pictures" }), lowest: el("div", { class: "pictures" }) };
  gallery.node = el("section", { class: "gallery", "data-testid": `gallery-${encoder}` }, gallery.title, el("div", { class: "note" }, "highest"), gallery.highest, el("div", { class: "note" }, "lowest"), gallery.lowest);
  return gallery;
}

/** Show the pictures of highest and lowest energy; those that stay are only renamed. */
function drawGallery(gallery, curve, parts, digest) {
  setText(gallery.title, `Images of highest and lowest energy: ${curve.title}, ${curve.encoder}`);
  for (const [which, found] of Object.entries(extremes(parts))) {
    const key = `${digest}/${curve.arrangement}/${found.map(({ b, index }) => `${b}.${index}`).join()}`;
    const shelf = gallery[which];
    if (shelf.key !== key) shelf.replaceChildren(...found.map(buildFrame));
    shelf.key = key;
    found.forEach((point, k) => {
      shelf.children[k].title = describePoint(point).join("; ");
      setText(shelf.children[k].querySelector("figcaption"), point.part.mean[point.index].toFixed(2));
    });
  }
}

function buildFrame({ part, index, b }) {
  const name = part.block.classes[part.block.labels[index]];
  return el("figure", { class: b ? "second" : "first" }, pictureOf(part.block, index, 48) ?? el("div", { class: "nopicture" }, name), el("figcaption"));
}
