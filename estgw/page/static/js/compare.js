// Two records side by side: what differs first; what differs each time, such as dates, is grey and comes after.

import { asText, fromBase64 } from "./bytes.js";
import { el, foreign } from "./dom.js";
import { folded } from "./sections.js";
import { clock, count, title } from "./words.js";

const VOLATILE = [
  /^(id|at|of|ms|kind)$/, /(^|\.)(ms|\w+_ms)$/, /^connection\./, /^binding\.(expected|found)$/, /^issued\.(serial|pem|not_after)$/,
  /^auth\.digest\.(nonce|cnonce|nc|response)$/, /\.headers\.(date|x-request-id)$/i, /^(request|response)\.(body|text)$/,
  /\.environment\.(EST_REQUEST_ID|REQUEST_ID|EST_TMPDIR|TMPDIR|HOME|REMOTE_PORT|EST_CSR_FILE|EST_\w+_FILE|TLS_UNIQUE\w*)$/,
  /^callouts\.\w+\.stdout(_length)?$/, /^(request|response)\.(length|headers\.content-length)$/i, /^request\.csr\.(sha256|pem)$/,
];
const ORDER = ["outcome", "gates", "callouts", "response", "issued", "auth", "binding"]; // then the rest, as recorded
const LONGEST = 600; // characters of a value that is shown

/** Path and text of every value in a record, with lists by their names where they have some. */
export function flat(record) {
  const found = new Map();
  const walk = (path, value) => {
    if (Array.isArray(value)) walkList(path, value);
    else if (value !== null && typeof value === "object") {
      for (const [name, inner] of Object.entries(value)) walk(path ? `${path}.${name}` : name, inner);
    } else found.set(path, value === null || value === undefined ? "" : String(value));
  };
  const walkList = (path, list) => {
    list.forEach((value, index) => {
      if (Array.isArray(value) && value.length === 2) walk(`${path}.${value[0]}`, value[1]);
      else if (value?.name || value?.kind) walk(`${path}.${value.name ?? value.kind}`, { ...value, name: undefined, kind: undefined });
      else walk(`${path}.${index + 1}`, value);
    });
  };
  const { format: _, ...rest } = record;
  walk("", rest);
  for (const side of ["request", "response"]) {
    const bytes = record[side]?.body ? fromBase64(record[side].body) : null;
    const text = bytes ? asText(bytes) : null;
    const type = record[side]?.headers?.find(([name]) => name.toLowerCase() === "content-type")?.[1] ?? "";
    if (text !== null && type.startsWith("text/")) {
      found.delete(`${side}.body`);
      found.set(`${side}.words`, text);
    }
  }
  return found;
}

/** The paths of two records as [path, one, other], in three lists: differing, differing each time, the same. */
export function sorted(one, other) {
  const [left, right] = [flat(one), flat(other)];
  const lists = { differs: [], volatile: [], same: [] };
  for (const path of new Set([...left.keys(), ...right.keys()])) {
    const [a, b] = [left.get(path) ?? "", right.get(path) ?? ""];
    if (!a && !b) continue;
    const list = a === b ? "same" : VOLATILE.some((each) => each.test(path)) ? "volatile" : "differs";
    lists[list].push([path, a, b]);
  }
  const rank = ([path]) => (ORDER.indexOf(path.split(".")[0]) + ORDER.length + 1) % (ORDER.length + 1);
  for (const list of Object.values(lists)) list.sort((a, b) => rank(a) - rank(b));
  return lists;
}

export function draw(one, other) {
  const { differs, volatile, same } = sorted(one, other);
  return [
    el("h2", { tabindex: "-1" }, "Two transactions, compared"),
    table([["what", heading(one), heading(other)]], differs, "Differences"),
    differs.length ? null : el("p", {}, "They differ in nothing but what differs each time."),
    volatile.length ? folded("Different each time", count(volatile.length, "value"), () => table([], volatile, "Different each time"), differs.length === 0) : null,
    same.length ? folded("The same", count(same.length, "value"), () => table([], same, "The same")) : null,
  ].filter(Boolean);
}

function heading(record) {
  return [foreign(title(record)), el("br"), el("span", { class: "quiet" }, `${clock(record.at, true)} UTC, ${record.kind} ${record.id}`)];
}

function table(head, rows, label) {
  return el("table", { class: `compare${label === "Differences" ? "" : " quiet"}`, "aria-label": label },
    el("thead", {}, head.map((cells) => el("tr", {}, cells.map((cell) => el("th", { scope: "col" }, cell))))),
    el("tbody", {}, rows.map(([path, a, b]) => el("tr", {}, el("th", { scope: "row" }, foreign(path)), value(a), value(b)))));
}

function value(text) {
  const shown = text.length > LONGEST ? `${text.slice(0, LONGEST)}… (${count(text.length, "character")})` : text;
  return el("td", {}, text ? foreign(shown, { lines: true, tag: "code" }) : el("span", { class: "quiet" }, "none"));
}
