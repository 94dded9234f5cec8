// DER as a tree.  @lapo/asn1js decodes, this draws; both stop where a peer's bytes would keep the browser busy.

import { el, foreign } from "./dom.js";

const LONGEST = 256 * 1024; // bytes
const DEEPEST = 64; // levels; the decoder's work grows with length times depth
const MOST = 2_000; // nodes drawn
const CONTENT = 300; // characters of one value

/** Whether everything in DER, and in strings that may hold DER, is nested less deeply than `DEEPEST`. */
export function isShallow(bytes, start = 0, end = bytes.length, level = 0) {
  if (level > DEEPEST) return false;
  let at = start;
  while (at + 2 <= end) {
    const tag = bytes[at];
    at += 1;
    if ((tag & 0x1f) === 0x1f) {
      while (at < end && bytes[at] & 0x80) at += 1;
      at += 1;
    }
    let length = bytes[at];
    at += 1;
    if (length & 0x80) {
      const octets = length & 0x7f;
      length = 0;
      for (let index = 0; index < octets && at < end; index += 1, at += 1) length = length * 256 + bytes[at];
      if (octets === 0) length = end - at; // indefinite, up to its end-of-contents
    }
    const until = Math.min(end, at + length);
    // Strings may hold DER; a BIT STRING's first octet counts its unused bits.
    const from = tag === 3 ? at + 1 : at;
    if ((tag & 0x20 || tag === 3 || tag === 4) && !isShallow(bytes, from, until, level + 1)) return false;
    if (!(length >= 0)) return true; // the bytes have ended within a header
    at = until;
  }
  return true;
}

/** The tree of some DER as nested lists; a sentence where it can't be read. */
export async function tree(bytes) {
  if (bytes.length > LONGEST) return el("p", { class: "quiet" }, "This is too long for this view.");
  if (!isShallow(bytes)) return el("p", { class: "quiet" }, "This is nested too deeply for this view.");
  const { ASN1 } = await import("../vendor/asn1js/asn1.js");
  try {
    const left = { nodes: MOST };
    return el("ul", { class: "asn1" }, draw(ASN1.decode(bytes), bytes, left), left.nodes < 0 ? el("li", {}, "…") : null);
  } catch (fault) {
    return el("p", { class: "quiet" }, foreign(`This is not DER: ${fault.message}`));
  }
}

function draw(node, bytes, left) {
  left.nodes -= 1;
  if (left.nodes < 0) return null;
  const size = node.length < 0 ? "indefinite length" : `${node.length} bytes`;
  const head = [
    el("span", { class: "asn1-type" }, node.typeName().replaceAll("_", " ")),
    value(node, bytes),
    el("span", { class: "asn1-place" }, `at ${node.posStart()}, ${size}`),
  ];
  if (!node.sub?.length) return el("li", {}, head);
  return el("li", {}, el("details", { open: true }, el("summary", {}, head),
    el("ul", {}, node.sub.map((each) => draw(each, bytes, left)))));
}

function value(node, bytes) {
  if (node.sub !== null) return null; // what is inside follows
  if (node.tag.isUniversal() && node.tag.tagNumber === 3) return bits(bytes.subarray(node.posContent(), node.posEnd()));
  const content = (node.content(CONTENT) ?? "").toString();
  if (node.tag.isUniversal() && node.tag.tagNumber === 6) {
    const [oid, name] = content.split("\n");
    return [foreign(oid, { tag: "code" }), name ? foreign(name, { class: "asn1-name" }) : null];
  }
  const [first, ...rest] = content.split("\n");
  const shown = /^\(\d+ (bit|byte)\)$/.test(first) ? `${first.slice(1, -1)}${first.endsWith("1 byte)") ? "" : "s"} ${rest.join(" ")}` : content;
  return content ? foreign(shown.slice(0, CONTENT), { tag: "code" }) : null;
}

/** A BIT STRING in hex, in which keys and signatures are read. */
function bits(content) {
  const hex = [...content.subarray(1, CONTENT / 2)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const unused = content[0] ?? 0;
  return el("code", {}, `${(content.length - 1) * 8 - unused} bits ${hex}${content.length > CONTENT / 2 ? "…" : ""}`);
}
