// The building blocks of the detail: a section with facts, folded parts, raw text, PEM and ASN.1 on demand.

import { tree } from "./asn1.js";
import { asText, dump, fromBase64, pemToDer, toDer } from "./bytes.js";
import { copied } from "./copied.js";
import { append, el, foreign } from "./dom.js";
import { count } from "./words.js";

const LONGEST = 100_000; // characters of one text that is drawn

/** A section with a heading; none where it would be empty. */
export function section(heading, note, ...children) {
  const given = children.flat(3).filter(Boolean);
  if (!given.length) return null;
  return el("section", { class: "part" },
    el("h3", {}, heading, note ? el("span", { class: "quiet" }, " ", note) : null), given);
}

/** Facts as a list of name and value; those without a value are left out. */
export function facts(rows) {
  const given = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!given.length) return null;
  return el("dl", { class: "facts" }, given.map(([name, value]) => [
    el("dt", {}, name),
    append(el("dd"), [typeof value === "string" || typeof value === "number" ? foreign(value) : value]),
  ]));
}

/** A folded part, whose inside `make` draws when it is first opened. */
export function folded(heading, note, make, open = false) {
  const inside = el("div", { class: "inside" });
  let drawn = false;
  const draw = async () => {
    if (drawn) return;
    drawn = true;
    append(inside, [await make()]);
  };
  const node = el("details", { class: "folded", open, ontoggle: () => node.open && draw() },
    el("summary", {}, foreign(heading, { tag: "span", class: "folded-name" }), " ",
      note ? foreign(note, { tag: "span", class: "quiet" }) : null),
    inside);
  if (open) draw();
  return node;
}

/** Text as it came, hidden characters aside. */
export function raw(text) {
  const whole = String(text ?? "");
  const shown = whole.length > LONGEST ? whole.slice(0, LONGEST) : whole;
  return [foreign(shown, { lines: true, tag: "pre", class: "raw", tabindex: "0" }),
    whole.length > LONGEST ? el("p", { class: "quiet" }, `${count(whole.length - LONGEST, "more character")}`) : null];
}

/** PEM with a button that copies it. */
export function pem(text, what) {
  return [el("p", {}, el("button", { type: "button", onclick: () => copied(text, what) }, "Copy")), raw(text)];
}

/** A body: as text where it is text, else as a dump; and why it is not whole. */
export function body(message) {
  if (message.body === "[removed]") return el("p", { class: "quiet" }, "removed, as it holds a secret");
  const bytes = message.body ? fromBase64(message.body) : null;
  if (!bytes) return null;
  const text = asText(bytes);
  return [raw(text ?? dump(bytes)),
    message.cut ? el("p", { class: "quiet" }, `cut: ${count(bytes.length, "byte")} of ${message.length} were kept`) : null];
}

export function headers(list) {
  if (!list?.length) return null;
  return el("table", { class: "pairs" }, el("tbody", {}, list.map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, foreign(name)), el("td", {}, foreign(value, { tag: "code" }))))));
}

/** ASN.1 of DER, of PEM, or of a body in base64 or DER. */
export function asn1(heading, bytes) {
  return bytes?.length ? folded(`ASN.1 of ${heading}`, count(bytes.length, "byte"), () => tree(bytes)) : null;
}

export const asn1OfPem = (heading, text) => (text ? asn1(heading, pemToDer(text)) : null);

export function asn1OfBody(heading, message) {
  const bytes = message?.body && !message.cut ? fromBase64(message.body) : null;
  return bytes ? asn1(heading, toDer(bytes)) : null;
}
