// A map as a file: one SVG of shapes and words, dark on white whatever the theme; PNG from it.

const HEAD = 20; // pixels of a line above the map
const SHARP = 2; // pixels of a PNG to one of the drawing

/** The whole map as an SVG element; cells of one colour beside each other are one shape. */
function pictureSvg(map, chosen, width) {
  const at = measure(map, width), top = 8 + HEAD * map.heading.length, ink = "#222222";
  const G = map.alphas.length, values = map.tables[map.shown], shades = palette(map.colours);
  const cells = svg("g", { "clip-path": "url(#cells)", "shape-rendering": "crispEdges" });
  for (let j = 0; j < G; j++) {
    for (let i = 0, end; i < G; i = end) {
      const shade = shadeOf(map, values[i * G + j]);
      for (end = i + 1; end < G && shadeOf(map, values[end * G + j]) === shade; ) end++;
      if (shade < 0) continue;
      const x = at.x(map.alphas[i] - at.half), y = at.y(map.alphas[j] + at.half);
      const size = { width: at.x(map.alphas[end - 1] + at.half) - x, height: at.y(map.alphas[j] - at.half) - y };
      cells.append(svg("rect", { x, y, ...size, fill: `rgb(${shades[shade]})` }));
    }
  }
  const words = map.heading.map((line, k) => svg("text", { x: 8, y: HEAD * (k + 1), fill: ink, "font-size": 13 }, line));
  const whole = svg("g", { transform: `translate(0 ${top})` }, cells, ...frameOf(map, at, ink), marksOf(map, at, chosen, "cells"));
  const size = { width: at.width, height: at.height + top };
  const paper = svg("rect", { ...size, fill: "white" });
  return svg("svg", { xmlns: SVG, ...size, viewBox: `0 0 ${size.width} ${size.height}`, "font-family": "sans-serif" }, paper, ...words, whole);
}

/** Save the map; the browser asks where, or puts it among the downloads. */
async function savePicture(map, chosen, width, kind) {
  const drawing = pictureSvg(map, chosen, width);
  const text = new XMLSerializer().serializeToString(drawing);
  const vector = new Blob([text], { type: "image/svg+xml" });
  download(kind === "svg" ? vector : await rasterised(drawing, vector), `${map.filename}.${kind}`);
}

async function rasterised(drawing, vector) {
  const address = URL.createObjectURL(vector);
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const [width, height] = ["width", "height"].map((name) => SHARP * Number(drawing.getAttribute(name)));
    const canvas = el("canvas", { width, height });
    canvas.getContext("2d").drawImage(image, 0, 0, width, height);
    return await new Promise((done) => canvas.toBlob(done, "image/png"));
  } finally {
    URL.revokeObjectURL(address);
  }
}

function download(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
