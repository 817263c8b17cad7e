// Large arrays that stay as they are while a widget's other data change: sent once, kept in the
// page under their digest, and taken from there by the widget that shows them.

const MOST = 2; // buffers kept: that of the widget, and of the one it replaces

export default function (component) {
  const { header, length } = readHeader(component.data);
  const kept = (window.__tauscope_kept ??= new Map());
  if (kept.has(header.digest)) return;
  kept.set(header.digest, readBody(component.data, length));
  if (kept.size > MOST) kept.delete(kept.keys().next().value);
  window.dispatchEvent(new Event("tauscope-kept"));
}
