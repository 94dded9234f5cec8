// Every node of the page is made here.  Text goes in as text, never as markup, and hidden characters are shown.

import { pieces } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element.  Attributes: strings, true for one without a value, null for none; `on*` are listeners. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  append(node, children);
  return node;
}

/** Add children: nodes, texts of our own, arrays of these; null is nothing. */
export function append(node, children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** A peer's text: hidden characters visible, and its direction kept from its neighbours. */
export function foreign(text, { lines = false, tag = "bdi", ...attributes } = {}) {
  const node = el(tag, attributes);
  for (const [part, hidden] of pieces(text, lines)) {
    node.append(hidden ? el("span", { class: "hidden-character" }, part) : document.createTextNode(part));
  }
  return node;
}

/** Replace the text of a node that stays, only if it is another. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** `code` for what stands in backticks in a sentence of the gateway's. */
export function sentence(text) {
  return String(text ?? "").split("`").map((part, index) => foreign(part, { tag: index % 2 ? "code" : "span" }));
}

export const byId = (id) => document.getElementById(id);
