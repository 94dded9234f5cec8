// A request as a picture: client, gateway and scripts, from the handshake to the answer, drawn from the record.

import { el, svg } from "./dom.js";
import { gates } from "./gates.js";
import { answer, plain, withUnit } from "./words.js";

const STEP = 25; // from one arrow to the next; these are pixels at the page's smallest letters, and grow with them
const NOTE = 17; // of a gate's line
const LETTERS = 11.5; // the size of them; css/timeline.css has the same
const SMALLEST = 13.6;
const EARLIER = 2; // requests of the same connection that are drawn before this one
const CALLOUT_OF = { password: "authenticate", authorize: "authorize", handler: "handler" };

/** The steps of a record as [kind, ...]; `earlier` are the rows of the same connection's requests before it. */
export function steps(record, earlier = []) {
  const found = [];
  const { tls = {}, outcome = {} } = record;
  const failed = record.kind === "handshake";
  const arrow = (from, to, text, more = {}) => found.push({ from, to, text, ...more });
  arrow("client", "gateway", failed ? "handshake" : `handshake, ${(tls?.version ?? "TLS").replace("TLSv", "TLS ")}`,
    { ms: tls?.handshake_ms });
  if (failed) {
    found.push({ note: `TLS: ${outcome.reason ?? "failed"}`, tone: "bad" });
    return found;
  }
  if (earlier.length > EARLIER) found.push({ note: `${earlier.length - EARLIER} earlier requests on this connection`, tone: "quiet" });
  for (const row of earlier.slice(-EARLIER)) {
    arrow("client", "gateway", `${(row.line ?? "").split(" ")[0]} ${row.operation ?? ""}, ${row.scheme ? `${row.scheme} ${row.user ?? ""}` : "no credentials"}`, { tone: "quiet" });
    arrow("gateway", "client", [answer(row).text, row.reason].filter(Boolean).join(", "), { ms: row.ms, tone: "quiet" });
  }
  const [method = "", path = ""] = (record.request?.line ?? "").split(" ");
  const sent = record.auth?.scheme ? `${record.auth.scheme} ${record.auth.user ?? ""}` : tls?.subject ? "a certificate" : "no credentials";
  const asked = method ? `${method} ${record.operation ?? path}, ${sent}` : "something that is no HTTP";
  arrow("client", "gateway", asked, { ms: record.request?.ms });
  ask(record, found, arrow);
  const given = record.response ?? {};
  const said = answer({ status: outcome.status, issued: record.issued }).text;
  arrow("gateway", "client", given.reason && !said.includes(" ") ? `${said} ${given.reason}` : said,
    { ms: record.ms, whole: true, tone: outcome.gate ? (outcome.status === 202 ? "wait" : "bad") : "good", deciding: !!outcome.gate });
  return found;
}

/** The gates, and the scripts that they ran. */
function ask(record, found, arrow) {
  for (const gate of gates(record)) {
    const run = (record.callouts ?? []).find((each) => each.kind === CALLOUT_OF[gate.name]);
    if (run) {
      arrow("gateway", "scripts", run.cached ? `${run.kind}, kept answer` : run.kind, { ms: run.waited_ms > 1 ? run.waited_ms : null, tone: "script" });
      arrow("scripts", "gateway", ending(run), { ms: run.ran_ms, tone: gate.refuses ? gate.tone : "script", deciding: gate.refuses });
    }
    if (gate.refuses) found.push({ note: `${gate.name}: ${gate.reason || record.outcome?.reason || gate.words}`, tone: gate.tone, deciding: true });
    else if (!run && gate.result === "pass") found.push({ note: `${gate.name}: ${gate.words}`, ms: gate.ms, tone: "good" });
  }
  const last = gates(record).filter((gate) => gate.later && CALLOUT_OF[gate.name] && gate.name !== "password");
  if (last.length) found.push({ scripts: `${last.map((gate) => gate.name).join(", ")}: not reached` });
}

export function ending(run) {
  if (run.timed_out) return "timed out";
  if (run.flooded) return "flooded its output";
  if (run.signal) return `ended by signal ${run.signal}`;
  return run.exit === null || run.exit === undefined ? "no exit status" : `exit ${run.exit}`;
}

/** The picture, in a figure that redraws itself where its width changes. */
export function figure(record, earlier) {
  const all = steps(record, earlier);
  const label = all.map((step) => [step.text ?? step.note ?? step.scripts, withUnit(step.ms)].filter(Boolean).join(", ")).join("; ");
  const node = el("figure", { class: "timeline" });
  let drawn = 0;
  const draw = () => {
    const width = Math.max(300, Math.min(900, Math.floor(node.clientWidth)));
    if (width === drawn) return;
    drawn = width;
    const scale = Math.max(1, parseFloat(getComputedStyle(document.documentElement).fontSize) / SMALLEST);
    node.replaceChildren(picture(all, width / scale, scale, `Timeline: ${plain(label)}`));
  };
  new ResizeObserver(draw).observe(node);
  return node;
}

function picture(all, width, scale, label) {
  const lanes = { client: 30, gateway: Math.round(width * (width < 420 ? 0.55 : 0.5)), scripts: width - 62 };
  const parts = [];
  let y = 38;
  for (const step of all) {
    if (step.from) {
      parts.push(arrow(step, lanes, y));
      y += STEP;
    } else if (step.note) {
      parts.push(note(step, lanes, y - 7, width));
      y += NOTE;
    } else {
      parts.push(svg("text", { x: width - 4, y: y - 4, class: "tl-note quiet", "text-anchor": "end" }, plain(step.scripts)));
      y += NOTE;
    }
  }
  const bottom = y - 4;
  const posts = Object.entries(lanes).map(([name, x]) => [
    svg("text", { x, y: 11, class: "tl-lane", "text-anchor": "middle" }, name),
    svg("line", { x1: x, y1: 18, x2: x, y2: bottom, class: "tl-post" }),
  ]);
  const height = bottom + 4;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width: width * scale, height: height * scale, role: "img", "aria-label": label },
    posts, parts);
}

function arrow({ from, to, text, ms, tone, deciding }, lanes, y) {
  const start = lanes[from], end = lanes[to];
  const left = Math.min(start, end), room = Math.abs(end - start);
  const way = Math.sign(end - start);
  // Where both do not fit, the words are worth more; the label of the picture has all.
  const isTight = room < 200 && widthOf(plain(text)) + widthOf(withUnit(ms)) + 40 > room;
  const took = isTight ? "" : withUnit(ms);
  const tip = end - way * 3;
  return svg("g", { "data-tone": tone ?? null, class: deciding ? "deciding" : null },
    svg("line", { x1: start, y1: y, x2: tip, y2: y, class: "tl-arrow" }),
    svg("path", { d: `M${tip - way * 7} ${y - 4} L${tip} ${y} L${tip - way * 7} ${y + 4}`, class: "tl-head" }),
    words(text, { x: left + 9, y: y - 5, class: "tl-text" }, room - 24 - (took ? widthOf(took) + 16 : 0)),
    took ? svg("text", { x: left + room - 10, y: y - 5, class: "tl-ms", "text-anchor": "end" }, took) : null);
}

function note({ note, ms, tone, deciding }, lanes, y, width) {
  const x = lanes.gateway + 10;
  const isNarrow = lanes.scripts - x < 170;
  const took = isNarrow ? "" : withUnit(ms);
  const text = isNarrow && ms ? `${note}, ${withUnit(ms)}` : note;
  return svg("g", { "data-tone": tone, class: deciding ? "deciding" : null },
    svg("circle", { cx: lanes.gateway, cy: y - 4, r: deciding ? 4 : 2.5, class: "tl-gate" }),
    words(text, { x, y, class: "tl-note" }, width - x - 6 - (took ? 56 : 0), deciding),
    took ? svg("text", { x: lanes.scripts - 8, y, class: "tl-ms", "text-anchor": "end" }, took) : null);
}

const pen = new OffscreenCanvas(1, 1).getContext("2d");

/** The width of a text in the picture. */
function widthOf(text, bold) {
  pen.font = `${bold ? "600 " : ""}${LETTERS}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

/** Text that is cut to fit, with the whole as its title. */
function words(text, attributes, room, bold = false) {
  const shown = plain(text);
  if (widthOf(shown, bold) <= room) return svg("text", attributes, shown);
  let low = 1, high = Math.min(shown.length, 400);
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (widthOf(`${shown.slice(0, middle)}…`, bold) <= room) low = middle;
    else high = middle - 1;
  }
  return svg("text", attributes, `${shown.slice(0, low)}…`, svg("title", {}, shown));
}
