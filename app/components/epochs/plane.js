// The paths of training in a plane: one scale on both axes, marks that move with the epoch.

const PLANE = { width: 460, height: 340, left: 46, right: 10, top: 10, bottom: 40 };
const DASHES = ["", "7 3", "2 3", "9 3 2 3"]; // colours repeat after eight; dashes tell rounds apart

/** Numbers from low to high at a step of 1, 2 or 5 times a power of ten, about `wanted` of them. */
function niceTicks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** Where the merge lies at every epoch: a projection keeps sums, so origin + alpha * sum of the rest. */
function mergePath(paths, alpha) {
  const origin = paths[0][0];
  return paths[0].map((_, k) => [0, 1].map((axis) => origin[axis] + alpha * paths.reduce((sum, path) => sum + path[k][axis] - origin[axis], 0)));
}

class Plane {
  constructor(plane, tasks) {
    this.plane = plane;
    this.names = [...tasks.map((task) => task.title), "joint training", "merge"];
    this.frame = svg("g", { class: "axes" });
    this.lines = this.names.map((_, place) => this.buildLine(place, tasks.length));
    this.marks = this.names.map((_, place) => this.buildMark(place, tasks.length));
    this.start = svg("path", { class: "start", d: "M-6 0H6M0 -6V6" });
    this.node = svg("svg", { class: "plane", viewBox: `0 0 ${PLANE.width} ${PLANE.height}`, role: "img", "data-testid": "epochs-plane" },
      this.frame, ...this.lines.flatMap((line) => [line.whole, line.gone]), this.start, ...this.marks);
  }

  kind(place, T) {
    return place < T ? `task c${place % 8}` : place === T ? "joint" : "merge";
  }

  buildLine(place, T) {
    const dash = place < T ? DASHES[Math.floor(place / 8) % DASHES.length] : place === T ? "4 3" : "";
    return { whole: svg("path", { class: `whole ${this.kind(place, T)}` }), gone: svg("path", { class: `gone ${this.kind(place, T)}`, "stroke-dasharray": dash || null }) };
  }

  buildMark(place, T) {
    const kind = this.kind(place, T);
    const shape = place < T ? svg("circle", { r: 8 }) : place === T ? svg("rect", { x: -6, y: -6, width: 12, height: 12 }) : svg("path", { d: "M0 -9L9 0L0 9L-9 0Z" });
    const label = place < T ? [svg("text", { "text-anchor": "middle", dy: "0.35em" }, String(place + 1))] : [];
    return svg("g", { class: `mark ${kind}`, "data-testid": place < T ? null : `mark-${kind}` }, shape, ...label);
  }

  /** Fit the plane around everything at this alpha; then it stays while the epoch moves. */
  fit(alpha) {
    if (alpha === this.alpha) return;
    this.alpha = alpha;
    this.paths = [...this.plane.paths, this.plane.joint, mergePath(this.plane.paths, alpha)];
    const all = this.paths.flat();
    const ends = [0, 1].map((axis) => [Math.min(...all.map((p) => p[axis])), Math.max(...all.map((p) => p[axis]))]);
    const room = [PLANE.width - PLANE.left - PLANE.right, PLANE.height - PLANE.top - PLANE.bottom];
    const pad = 14;
    const scale = Math.min(...[0, 1].map((axis) => (room[axis] - 2 * pad) / Math.max(ends[axis][1] - ends[axis][0], 1e-12)));
    const middle = ends.map(([low, high]) => (low + high) / 2);
    this.x = (value) => PLANE.left + room[0] / 2 + scale * (value - middle[0]);
    this.y = (value) => PLANE.top + room[1] / 2 - scale * (value - middle[1]);
    this.limits = [0, 1].map((axis) => [middle[axis] - room[axis] / 2 / scale, middle[axis] + room[axis] / 2 / scale]);
    this.drawAxes(room);
    for (const [place, line] of this.lines.entries()) line.whole.setAttribute("d", this.path(this.paths[place]));
    const [x, y] = this.plane.paths[0][0];
    this.start.setAttribute("transform", `translate(${this.x(x)} ${this.y(y)})`);
  }

  drawAxes(room) {
    const bottom = PLANE.top + room[1], right = PLANE.left + room[0];
    const [horizontal, vertical] = this.limits.map(([low, high]) => niceTicks(low, high, 5));
    const across = horizontal.ticks.flatMap((at) => [svg("path", { d: `M${this.x(at)} ${PLANE.top}V${bottom}` }), svg("text", { x: this.x(at), y: bottom + 14, "text-anchor": "middle" }, at.toFixed(horizontal.digits))]);
    const up = vertical.ticks.flatMap((at) => [svg("path", { d: `M${PLANE.left} ${this.y(at)}H${right}` }), svg("text", { x: PLANE.left - 5, y: this.y(at), dy: "0.35em", "text-anchor": "end" }, at.toFixed(vertical.digits))]);
    this.frame.replaceChildren(...across, ...up,
      svg("text", { class: "title", x: PLANE.left + room[0] / 2, y: PLANE.height - 6, "text-anchor": "middle" }, this.plane.x),
      svg("text", { class: "title", transform: `translate(11 ${PLANE.top + room[1] / 2}) rotate(-90)`, "text-anchor": "middle" }, this.plane.y));
  }

  path(points) {
    return points.map(([x, y], k) => `${k ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
  }

  show(epoch, alpha) {
    this.fit(alpha);
    this.epoch = epoch;
    for (const [place, line] of this.lines.entries()) {
      const points = this.paths[place];
      line.gone.setAttribute("d", this.path(points.slice(0, epoch + 1)));
      this.marks[place].setAttribute("transform", `translate(${this.x(points[epoch][0]).toFixed(1)} ${this.y(points[epoch][1]).toFixed(1)})`);
    }
    this.node.setAttribute("aria-label", `Paths of training in a plane after ${epoch} epochs, with the joint path and the merge at alpha ${alpha.toFixed(2)}`);
  }

  /** The nearest drawn point to a place of the screen, as words; null far from all. */
  describe(event) {
    const box = this.node.getBoundingClientRect();
    const zoom = PLANE.width / box.width;
    const at = [(event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom];
    let best = { distance: 18 };
    for (const [place, points] of this.paths.entries()) {
      for (const [epoch, [x, y]] of points.entries()) {
        const distance = Math.hypot(this.x(x) - at[0], this.y(y) - at[1]);
        if (distance < best.distance) best = { distance, place, epoch, x, y };
      }
    }
    if (best.place === undefined) return null;
    const name = this.names[best.place];
    const which = name === "merge" ? `merge at α = ${this.alpha.toFixed(3)}` : name;
    return [best.epoch ? which : "θ₀", `after ${best.epoch} epoch${best.epoch === 1 ? "" : "s"}`, `(${best.x.toPrecision(3)}, ${best.y.toPrecision(3)})`];
  }
}
