// The component: a plain table that is changed in place, so that neither focus nor scrolling is lost.

class JobsTable {
  constructor(root) {
    this.root = root;
    this.rows = new Map();
    this.ticked = new Set();
    this.sent = null; // the last tick told to the script
    this.order = { place: null, down: true };
  }

  receive(component) {
    this.component = component;
    this.data = component.data;
    const shape = JSON.stringify(this.data.columns);
    if (shape !== this.shape) this.build(shape);
    // an answer to an earlier tick than the last one is out of date
    if (this.sent === null || this.sent === this.data.heard) this.ticked = new Set(this.data.chosen);
    this.update();
  }

  unmount() {}

  build(shape) {
    this.shape = shape;
    this.rows.clear();
    this.all = el("input", { type: "checkbox", "aria-label": "Tick all jobs", onchange: () => this.tick(this.all.checked ? this.data.rows.map((row) => row.id) : []) });
    this.heads = this.data.columns.map((column, place) =>
      el("th", { scope: "col", class: column.kind }, el("button", { type: "button", onclick: () => this.sortBy(place) }, column.title)));
    this.body = el("tbody", { onkeydown: (event) => this.walk(event) });
    const head = el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "box" }, this.all), ...this.heads));
    this.root.replaceChildren(el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": "Jobs, newest first" }, el("table", {}, head, this.body)));
  }

  // ---- ticking

  tick(ids) {
    this.ticked = new Set(ids);
    this.sent = Date.now();
    this.update();
    this.component.setStateValue("ticked", { ids: [...this.ticked], at: this.sent });
  }

  toggle(id, on) {
    const next = new Set(this.ticked);
    if (on) next.add(id);
    else next.delete(id);
    this.tick(next);
  }

  /** Up and down lead from box to box. */
  walk(event) {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && event.target.closest("tr")?.[step];
    if (!next) return;
    event.preventDefault();
    next.querySelector("input").focus();
  }

  // ---- order

  sortBy(place) {
    const same = this.order.place === place;
    // a third click leads back to the newest first
    this.order = same && !this.order.down ? { place: null, down: true } : { place, down: !same };
    this.update();
  }

  sorted() {
    const { place, down } = this.order;
    if (place === null) return this.data.rows;
    const side = down ? -1 : 1;
    const known = (row) => row.cells[place][1] !== null;
    return [...this.data.rows].sort((a, b) => {
      if (!known(a) || !known(b)) return known(b) - known(a); // what is not known stands last
      const [x, y] = [a.cells[place][1], b.cells[place][1]];
      return side * (typeof x === "string" ? x.localeCompare(y) : x - y);
    });
  }

  // ---- drawing

  update() {
    const rows = this.sorted();
    const listed = new Set(rows.map((row) => row.id));
    for (const id of this.rows.keys()) if (!listed.has(id)) this.drop(id);
    rows.forEach((row, place) => {
      const drawn = this.rows.get(row.id) ?? this.add(row);
      // moving a node takes the focus away: only what stands elsewhere is moved
      if (this.body.children[place] !== drawn.node) this.body.insertBefore(drawn.node, this.body.children[place] ?? null);
      this.fill(drawn, row);
    });
    const ticked = rows.filter((row) => this.ticked.has(row.id)).length;
    this.all.checked = ticked > 0 && ticked === rows.length;
    this.all.indeterminate = ticked > 0 && ticked < rows.length;
    this.heads.forEach((head, place) => head.setAttribute("aria-sort", this.order.place !== place ? "none" : this.order.down ? "descending" : "ascending"));
  }

  add(row) {
    const box = el("input", { type: "checkbox", onchange: () => this.toggle(row.id, box.checked) });
    const cells = this.data.columns.map((column) => {
      if (column.kind !== "progress") return { node: el("td", { class: column.kind }) };
      const bar = el("i"), text = el("span");
      return { node: el("td", { class: "progress" }, el("div", { class: "bar" }, bar), text), bar, text };
    });
    const node = el("tr", { "data-testid": `job-${row.id}`, onclick: (event) => event.target === box || this.tick([row.id]) }, el("td", { class: "box" }, box), ...cells.map((cell) => cell.node));
    const drawn = { node, box, cells };
    this.rows.set(row.id, drawn);
    return drawn;
  }

  drop(id) {
    this.rows.get(id).node.remove();
    this.rows.delete(id);
  }

  fill({ node, box, cells }, row) {
    const on = this.ticked.has(row.id);
    box.checked = on;
    node.classList.toggle("ticked", on);
    cells.forEach((cell, place) => {
      const [text, value] = row.cells[place];
      setText(cell.text ?? cell.node, text);
      if (cell.bar) cell.bar.style.width = `${100 * (value ?? 0)}%`;
    });
    box.setAttribute("aria-label", `Tick ${row.cells.slice(0, 2).map(([text]) => text).join(", ")}`);
  }
}

export default mounted(JobsTable);
