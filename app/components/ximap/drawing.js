// One map: its measures, its colours, and everything but the cells as one small SVG.

const LEFT = 50, RIGHT = 58, BOTTOM = 44, TOP = 8; // pixels around the cells
const LARGEST = 340, LEAST = 140; // pixels of a side
const BAR = { gap: 12, width: 12 };
const RED = "#E3000B";
const STEPS = [0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5];

/** The place of everything in a map of a given width. */
function measure(map, width) {
  const side = Math.round(Math.min(LARGEST, Math.max(LEAST, width - LEFT - RIGHT)));
  const { alphas } = map, half = (alphas[alphas.length - 1] - alphas[0]) / (2 * (alphas.length - 1));
  const low = map.limits[0] - half, high = map.limits[1] + half;
  return {
    side, half, low, high,
    width: LEFT + side + RIGHT,
    height: TOP + side + BOTTOM,
    x: (alpha) => LEFT + (side * (alpha - low)) / (high - low),
    y: (alpha) => TOP + side - (side * (alpha - low)) / (high - low),
    alpha: (fraction) => low + fraction * (high - low),
  };
}

/** A colour for each of 256 steps, as [red, green, blue]. */
function palette(stops) {
  const parsed = stops.map(([at, hex]) => [at, [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16))]);
  return Array.from({ length: 256 }, (_, k) => {
    const t = k / 255;
    const above = Math.max(1, parsed.findIndex(([at]) => at >= t));
    const [[a, from], [b, to]] = [parsed[above - 1], parsed[above]];
    return from.map((value, c) => Math.round(value + ((to[c] - value) * (t - a)) / (b - a)));
  });
}

/** The colour's place of a value; -1 where nothing is computed. */
function shadeOf(map, value) {
  if (Number.isNaN(value)) return -1;
  const [low, high] = map.ends;
  return Math.round(255 * Math.min(1, Math.max(0, (value - low) / (high - low))));
}

/** Paint the cells, one pixel each; rows of the picture are the second alpha, upwards. */
function paint(canvas, map) {
  const G = map.alphas.length, values = map.tables[map.shown], colours = palette(map.colours);
  canvas.width = canvas.height = G;
  const image = new ImageData(G, G);
  for (let i = 0; i < G; i++) {
    for (let j = 0; j < G; j++) {
      const shade = shadeOf(map, values[i * G + j]);
      if (shade >= 0) image.data.set([...colours[shade], 255], 4 * ((G - 1 - j) * G + i));
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Round numbers within a range, at most `most` of them. */
function ticksOf(low, high, most) {
  const step = STEPS.find((size) => (high - low) / size <= most) ?? high - low;
  const first = Math.ceil(low / step - 1e-9), count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, k) => Number(((first + k) * step).toFixed(6)));
}

const number = (value) => String(Number(value.toFixed(2))).replace("-", "−");

/** Axes, colour bar, search box, theta_0 and the chosen alphas. */
function frameOf(map, at, ink) {
  const soft = { stroke: ink, "stroke-opacity": 0.35, fill: "none" };
  const text = (x, y, words, more = {}) => svg("text", { x, y, fill: ink, "font-size": 12, "text-anchor": "middle", ...more }, words);
  const { side } = at, bottom = TOP + side, right = LEFT + side, most = side < 220 ? 4 : 7;
  const ticks = ticksOf(map.limits[0], map.limits[1], most);
  const nodes = [svg("rect", { x: LEFT, y: TOP, width: side, height: side, ...soft })];
  for (const alpha of ticks) {
    nodes.push(svg("path", { d: `M${at.x(alpha)} ${bottom}v4M${LEFT} ${at.y(alpha)}h-4`, ...soft }));
    nodes.push(text(at.x(alpha), bottom + 17, number(alpha)), text(LEFT - 8, at.y(alpha) + 4, number(alpha), { "text-anchor": "end" }));
  }
  const middle = TOP + side / 2, [first, second] = map.titles;
  nodes.push(text(LEFT + side / 2, bottom + 36, `α₁, ${first}`, { "font-size": 13 }));
  nodes.push(text(0, 0, `α₂, ${second}`, { "font-size": 13, transform: `translate(14 ${middle}) rotate(-90)` }));
  const x = right + BAR.gap;
  // the gradient stands in the bar itself: a reference by id would have to be unique on the page
  const shades = palette(map.colours), slices = 64, tall = side - 22;
  for (let k = 0; k < slices; k++) {
    const colour = shades[Math.round((255 * (slices - 1 - k)) / (slices - 1))];
    nodes.push(svg("rect", { x, y: TOP + 22 + (tall * k) / slices, width: BAR.width, height: tall / slices + 0.6, fill: `rgb(${colour})` }));
  }
  for (const value of ticksOf(map.ends[0], map.ends[1], 5)) {
    const y = bottom - (tall * (value - map.ends[0])) / (map.ends[1] - map.ends[0]);
    nodes.push(text(x + BAR.width + 5, y + 4, number(value), { "text-anchor": "start" }));
  }
  nodes.push(text(x - 4, TOP + 11, map.name, { "font-size": 13, "text-anchor": "start" }));
  return nodes;
}

/** What lies over the cells; `clip` names the path that keeps it inside them. */
function marksOf(map, at, chosen, clip) {
  const [low, high] = map.box;
  const box = { x: at.x(low), y: at.y(high), width: at.x(high) - at.x(low), height: at.y(low) - at.y(high), fill: "none" };
  const cross = `M${at.x(0) - 8} ${at.y(0)}h16M${at.x(0)} ${at.y(0) - 8}v16`;
  const marks = [svg("rect", { ...box, stroke: "white", "stroke-width": 4 }), svg("rect", { ...box, stroke: RED, "stroke-width": 2, class: "box" })];
  for (const [colour, size] of [["white", 4.5], ["black", 2]]) {
    marks.push(svg("path", { d: cross, stroke: colour, "stroke-width": size, class: "origin" }));
    marks.push(svg("circle", { cx: at.x(chosen[0]), cy: at.y(chosen[1]), r: 7, fill: "none", stroke: colour, "stroke-width": size, class: "chosen" }));
  }
  const inside = svg("clipPath", { id: clip }, svg("rect", { x: LEFT, y: TOP, width: at.side, height: at.side }));
  return svg("g", { "clip-path": `url(#${clip})` }, inside, ...marks);
}

/** The cell nearest to two alphas, or null outside of the map and where nothing is computed. */
function cellAt(map, at, alphas) {
  const G = map.alphas.length, first = map.alphas[0];
  const [i, j] = alphas.map((alpha) => Math.round((alpha - first) / (2 * at.half)));
  return i < 0 || j < 0 || i >= G || j >= G || Number.isNaN(map.tables[map.shown][i * G + j]) ? null : [i, j];
}

/** What a cell says, a line each. */
function wordsOf(map, [i, j]) {
  const G = map.alphas.length;
  const value = (key) => map.tables[key][i * G + j].toFixed(3).replace("-", "−");
  const lines = map.lines.map((line) => line.replace(/\{(\w+)\}/g, (_, key) => value(key)));
  return [`α₁ ${decimal(map.alphas[i])}, α₂ ${decimal(map.alphas[j])}`, ...lines];
}
