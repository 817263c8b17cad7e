// The component: a plain table, so that a screen reader and a keyboard read it as one.

/** One side of a cell: a number with its interval, or a button where it was not run. */
function sideOf(cell, said, run) {
  if (cell.run !== null) {
    const button = el("button", { type: "button", class: "run", "aria-label": `${said}: not run yet; run it`, onclick: () => run(cell.run) }, cell.text);
    return el("td", { class: "lacking" }, button);
  }
  const parts = [el("span", { class: "value" }, cell.text)];
  if (cell.note) parts.push(el("small", {}, cell.note));
  return el("td", { class: `${cell.state.replace(" ", "-")}${cell.best ? " best" : ""}`, title: cell.hint || null }, ...parts);
}

function cellsOf(cell, row, column, data, run) {
  const nodes = cell.sides.map((side, place) => sideOf(side, [row.title, column.title, data.sides[place]].join(", "), run));
  if (data.sides.length > 1) nodes.push(el("td", { class: "between" }, cell.between));
  if (cell.published) nodes[0].append(el("small", { class: "published", title: "as the paper prints it" }, `published ${cell.published}`));
  return nodes;
}

function headOf(data) {
  const several = data.sides.length > 1;
  const span = several ? data.sides.length + 1 : 1;
  const columns = data.columns.map((column) => el("th", { scope: "colgroup", colspan: span, title: column.hint || null }, column.title, column.hint ? el("i", {}, column.hint.startsWith("more") ? " ↑" : " ↓") : ""));
  const rows = [el("tr", {}, el("th", { scope: "col" }), ...columns)];
  if (several) {
    const names = data.columns.flatMap(() => [...data.sides.map((side) => el("th", { scope: "col", class: "side" }, side)), el("th", { scope: "col", class: "side" }, "Δ")]);
    rows.push(el("tr", {}, el("th", {}), ...names));
  }
  return el("thead", {}, ...rows);
}

function draw(root, component) {
  const { data } = component;
  const run = (name) => component.setTriggerValue("run", name);
  const rows = data.rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.title),
    ...row.cells.flatMap((cell, place) => cellsOf(cell, row, data.columns[place], data, run))));
  const caption = data.heading ? [el("caption", {}, data.title)] : [];
  const table = el("table", {}, ...caption, headOf(data), el("tbody", {}, ...rows));
  const held = root.querySelector(".scroll")?.scrollLeft ?? 0;
  root.replaceChildren(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": data.title }, table));
  root.firstChild.scrollLeft = held;
}

export default function (component) {
  const root = component.parentElement.querySelector(".tauscope");
  // a new object each run, mostly with the same words: what has the focus keeps it
  const text = JSON.stringify(component.data);
  root.component = component;
  if (text !== root.text) {
    root.text = text;
    draw(root, { data: component.data, setTriggerValue: (...words) => root.component.setTriggerValue(...words) });
  }
}
