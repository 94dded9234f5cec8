// The eight gates of a request as a bar: what each said, in words and in colour.

import { el, foreign } from "./dom.js";
import { plain, withUnit } from "./words.js";

const NAMES = ["TLS", "path", "password", "requires", "CSR", "linking", "authorize", "handler"];
const RESULTS = { pass: "passed", skip: "not asked", refuse: "refused" };

/** The gates of a record, each with the words below its name, and whether it comes after the one that decided. */
export function gates(record) {
  const given = new Map((record.gates ?? []).map((gate) => [gate.name, gate]));
  const deciding = record.outcome?.gate;
  let over = false;
  return NAMES.map((name) => {
    const gate = given.get(name) ?? { name, result: "skip", reason: "", ms: null };
    const refuses = gate.result === "refuse" || name === deciding;
    const made = { ...gate, refuses, later: over, words: "", tone: "skip" };
    made.tone = refuses ? (record.outcome?.status === 202 ? "wait" : "bad") : gate.result === "pass" ? "good" : "skip";
    made.words = refuses ? (made.tone === "wait" ? "not yet" : "refused") : over ? "not reached" : detail(record, gate);
    over ||= refuses;
    return made;
  });
}

function detail(record, { name, result }) {
  if (result !== "pass") return name === "password" && !record.auth?.scheme ? "none sent" : RESULTS[result] ?? result;
  const found = {
    TLS: record.tls?.version?.replace("TLSv", ""),
    path: record.profile,
    password: record.auth?.scheme ?? "none sent",
    requires: record.auth?.requires,
    CSR: record.request?.csr?.key,
    linking: record.binding?.result,
  }[name];
  return found ?? "passed";
}

export function bar(record) {
  return el("ol", { class: "gates", "aria-label": "The eight gates" }, gates(record).map((gate) =>
    el("li", { "data-tone": gate.tone, class: gate.refuses ? "deciding" : null, title: title(gate) },
      el("span", { class: "gate-name" }, gate.name), " ",
      foreign(gate.words, { tag: "span", class: "gate-words" }))));
}

function title(gate) {
  const took = withUnit(gate.ms);
  return plain([RESULTS[gate.result] ?? gate.result, took, gate.reason].filter(Boolean).join(", "));
}
