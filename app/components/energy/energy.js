// The component: two sliders over settings computed beforehand, panels that follow, pictures.

const PAUSE = 300; // ms after the last key before the view is committed
const KINDS_OF = { leading: "Leading R", ridge: "Ridge" };
const ORDER_NAMES = { sorted: "sorted", class: "by class", drawn: "as drawn" };

class EnergyExplorer {
  constructor(root) {
    this.root = root;
    this.held = { leading: 0, ridge: 0 };
    this.release = () => (this.dragging = false);
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, this.release);
  }

  unmount() {
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    for (const name of ["pointerup", "pointercancel"]) window.removeEventListener(name, this.release);
  }

  // ---- data from Python

  receive(component) {
    this.component = component;
    const { header, length } = readHeader(component.data);
    markTheme(this.root);
    const fresh = header.digest !== this.digest;
    const moved = header.revision !== this.revision;
    if (fresh) this.unpack(component.data, header, length);
    if (fresh || moved) {
      this.header = header;
      this.revision = header.revision;
      this.digest = header.digest;
      this.adopt(header);
      if (fresh) this.build();
    }
    setText(this.badge, header.status);
    this.update();
  }

  unpack(bytes, header, length) {
    const body = readBody(bytes, length);
    const array = (place) => ({ shape: place.shape, values: readArray(body, place) });
    this.blocks = header.blocks.map((block) => ({ ...block, labels: readArray(body, block.labels), pictures: readArray(body, block.pictures) }));
    this.curves = header.curves.map((curve) => ({ ...curve, mean: array(curve.mean), spread: array(curve.spread) }));
    this.stops = { leading: [], ridge: [] };
    header.settings.forEach((setting, place) => this.stops[setting.kind].push({ ...setting, place }));
  }

  /** Stand where the payload says, unless a hand is on a slider. */
  adopt(header) {
    if (this.dragging) return;
    const setting = header.settings.find((item) => item.key === header.setting);
    this.kind = setting.kind;
    for (const kind of Object.keys(this.held)) {
      const at = this.stops[kind].findIndex((stop) => stop.key === header.setting);
      this.held[kind] = at >= 0 ? at : Math.min(this.held[kind] || this.stops[kind].length - 1, this.stops[kind].length - 1);
    }
    this.order = header.order;
    this.selected = Math.min(this.selected ?? this.curves.findIndex((curve) => curve.arrangement === "heldout"), this.curves.length - 1);
  }

  // ---- building

  build() {
    this.sliders = Object.fromEntries(Object.keys(KINDS_OF).filter((kind) => this.stops[kind].length).map((kind) => [kind, this.buildSlider(kind)]));
    this.orders = Object.keys(ORDER_NAMES).map((order) => {
      const node = el("button", { type: "button", class: "order", "data-testid": `order-${order}`, onclick: () => this.reorder(order) }, ORDER_NAMES[order]);
      return { order, node };
    });
    this.badge = el("div", { class: "badge", role: "status", "data-testid": "energy-status" });
    this.panels = this.curves.map((curve, place) => this.buildPanel(curve, place));
    this.tip = el("div", { class: "tip", hidden: true, role: "presentation" });
    const encoders = [...new Set(this.curves.map((curve) => curve.encoder))];
    this.galleries = encoders.map(buildGallery);
    const columns = encoders.length;
    this.root.replaceChildren(
      el("div", { class: "controls" }, ...Object.values(this.sliders).map((slider) => slider.node), el("div", { class: "orders", role: "group", "aria-label": "Order of the points" }, el("span", { class: "note" }, "Points "), ...this.orders.map((item) => item.node)), this.badge),
      el("div", { class: "panels", style: `--columns:${columns}` }, ...this.panels.map((panel) => panel.node)),
      el("div", { class: "panels", style: `--columns:${columns}` }, ...this.galleries.map((gallery) => gallery.node)),
      this.tip,
    );
  }

  buildSlider(kind) {
    const last = this.stops[kind].length - 1;
    const range = el("input", { type: "range", min: "0", max: String(last), step: "1", "aria-label": KINDS_OF[kind], "data-testid": `slider-${kind}` });
    const value = el("output", { class: "value", "data-testid": `value-${kind}` });
    const node = el("label", { class: "slider" }, el("span", { class: "name" }, KINDS_OF[kind]), range, value);
    const take = () => {
      this.kind = kind;
      this.held[kind] = Number(range.value);
      this.schedule();
    };
    range.addEventListener("pointerdown", () => {
      this.dragging = true;
      this.byKeyboard = false;
      take();
    });
    range.addEventListener("keydown", () => (this.byKeyboard = true));
    range.addEventListener("input", take);
    range.addEventListener("change", () => this.commit(this.byKeyboard ? PAUSE : 0));
    range.addEventListener("click", () => this.commit(0));
    return { node, range, value };
  }

  buildPanel(curve, place) {
    const panel = buildPanel(curve);
    panel.node.querySelector(".title b").title = curve.note;
    const fractionOf = (event) => {
      const box = panel.plot.getBoundingClientRect();
      return (event.clientX - box.left) / box.width;
    };
    const leave = () => {
      this.tip.hidden = true;
      panel.marker.hidden = true;
    };
    panel.plot.addEventListener("pointermove", (event) => this.point(place, fractionOf(event)));
    panel.plot.addEventListener("pointerdown", (event) => {
      this.point(place, fractionOf(event));
      this.select(place);
    });
    panel.plot.addEventListener("pointerleave", leave);
    panel.plot.addEventListener("blur", leave);
    panel.plot.addEventListener("focus", () => this.select(place));
    panel.plot.addEventListener("keydown", (event) => this.step(place, event));
    return panel;
  }

  /** Arrow keys walk from point to point of a panel. */
  step(place, event) {
    const parts = this.parts[place], width = parts[0].n + parts[1].n;
    const move = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!move) return;
    event.preventDefault();
    const now = this.panels[place].place ?? 0;
    this.point(place, (Math.min(width - 1, Math.max(0, now + move)) + 0.5) / width);
  }

  // ---- acting

  setting() {
    return this.stops[this.kind][this.held[this.kind]];
  }

  reorder(order) {
    this.order = order;
    this.update();
    this.commit(0);
  }

  select(place) {
    this.selected = place;
    this.schedule();
  }

  commit(pause) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const view = { revision: this.revision, setting: this.setting().key, order: this.order };
      const said = JSON.stringify(view);
      if (said !== this.said) this.component.setStateValue("view", view);
      this.said = said;
    }, pause);
  }

  // ---- showing

  schedule() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.update());
  }

  update() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { place } = this.setting();
    for (const [kind, slider] of Object.entries(this.sliders)) {
      const stop = this.stops[kind][this.held[kind]];
      if (Number(slider.range.value) !== this.held[kind]) slider.range.value = String(this.held[kind]);
      setText(slider.value, stop.label);
      slider.range.setAttribute("aria-valuetext", stop.label);
      slider.node.classList.toggle("off", kind !== this.kind);
    }
    for (const { order, node } of this.orders) node.setAttribute("aria-pressed", String(order === this.order));
    this.parts = this.curves.map((curve) => blocksAt(curve, this.blocks, place, this.order));
    this.panels.forEach((panel, k) => {
      drawPanel(panel, this.parts[k], this.curves[k].scores[place]);
      panel.node.classList.toggle("selected", k === this.selected);
    });
    this.showGalleries();
    window.__tauscope_energy = { setting: this.setting().key, order: this.order, scores: this.curves.map((curve) => ({ arrangement: curve.arrangement, encoder: curve.encoder, score: curve.scores[place] })) };
  }

  /** Show the point at a fraction of a panel's width: marker, picture, class, energy. */
  point(place, fraction) {
    const panel = this.panels[place], parts = this.parts[place];
    const found = pointAt(parts, fraction);
    panel.place = found.place;
    const width = parts[0].n + parts[1].n;
    const energy = Math.min(1, Math.max(0, found.part.mean[found.index]));
    panel.marker.hidden = false;
    panel.marker.style.left = `${(100 * (found.place + 0.5)) / width}%`;
    panel.marker.style.top = `${(100 * (1.03 - energy)) / 1.06}%`;
    const picture = pictureOf(found.part.block, found.index, 64);
    this.tip.replaceChildren(...(picture ? [picture] : []), el("div", {}, ...describePoint(found).map((line) => el("div", {}, line))));
    this.tip.hidden = false;
    const box = this.root.getBoundingClientRect(), at = panel.marker.getBoundingClientRect();
    const left = Math.min(at.left - box.left + 14, box.width - this.tip.offsetWidth - 4);
    const above = at.top - box.top - this.tip.offsetHeight - 10;
    this.tip.style.transform = `translate(${Math.max(0, left)}px, ${above > 0 ? above : at.top - box.top + 18}px)`;
  }

  /** Pictures of the arrangement of the selected panel, under every encoder. */
  showGalleries() {
    const { arrangement } = this.curves[this.selected];
    for (const gallery of this.galleries) {
      const at = this.curves.findIndex((curve) => curve.arrangement === arrangement && curve.encoder === gallery.encoder);
      drawGallery(gallery, this.curves[at], this.parts[at], this.digest);
    }
  }
}

export default mounted(EnergyExplorer);
