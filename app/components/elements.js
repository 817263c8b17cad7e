// Small helpers for building the page, formatting, and the one tooltip.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element: attributes by name, children as nodes or text. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Change a node's text only where it differs: an unchanged node costs no layout. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const percent = (fraction) => (fraction === null ? "–" : (100 * fraction).toFixed(1));
const points = (difference) => `${difference < 0 ? "−" : "+"}${Math.abs(100 * difference).toFixed(1)}`;
const decimal = (alpha) => (Math.abs(alpha) < 0.005 ? "0.00" : alpha.toFixed(2).replace("-", "−"));

/** A tooltip that follows the mouse: `describe(event)` gives its lines, or null for none. */
function attachTooltip(root, tip, target, describe) {
  const show = (event) => {
    const lines = describe(event);
    tip.hidden = !lines;
    if (!lines) return;
    tip.replaceChildren(...lines.map((line) => el("div", {}, line)));
    const box = root.getBoundingClientRect();
    const left = Math.min(event.clientX - box.left + 14, box.width - tip.offsetWidth - 4);
    const above = event.clientY - box.top - tip.offsetHeight - 12;
    const top = above > 0 ? above : event.clientY - box.top + 18;
    tip.style.transform = `translate(${Math.max(0, left)}px, ${top}px)`;
  };
  target.addEventListener("pointermove", show);
  target.addEventListener("pointerleave", () => (tip.hidden = true));
}

/** Mark a component in a dark theme: the colours of its data differ there. */
function markTheme(root) {
  const paper = getComputedStyle(root).getPropertyValue("--st-background-color");
  const [r, g, b] = (paper.match(/[0-9a-f]{2}/gi) ?? ["ff", "ff", "ff"]).map((hex) => parseInt(hex, 16));
  root.classList.toggle("dark", 0.299 * r + 0.587 * g + 0.114 * b < 128);
}

/** A component's default export: one object an element, which receives every run's data. */
function mounted(Kind) {
  return function (component) {
    const root = component.parentElement.querySelector(".tauscope");
    root.held ??= new Kind(root);
    root.held.receive(component);
    return () => {
      root.held?.unmount();
      root.held = undefined;
    };
  };
}
