// The scripts that a request ran: with what, how they ended, and what they said.

import { el, foreign } from "./dom.js";
import { facts, folded, raw } from "./sections.js";
import { ending } from "./timeline.js";
import { count, withUnit } from "./words.js";

const GATE_OF = { authenticate: "password", authorize: "authorize", handler: "handler" };

export function callouts(record) {
  return (record.callouts ?? []).map((run) => {
    const decides = GATE_OF[run.kind] === record.outcome?.gate;
    const end = run.cached ? "kept answer, not run" : `${ending(run)}, ${withUnit(run.ran_ms)}`;
    return folded(run.kind, `${run.script ?? ""}, ${end}`, () => inside(run), decides);
  });
}

function inside(run) {
  const names = Object.keys(run.environment ?? {});
  return [
    facts([
      ["end", ending(run)],
      ["ran", `${withUnit(run.ran_ms)}${run.waited_ms >= 0.1 ? `, after waiting ${withUnit(run.waited_ms)}` : ""}`],
      ["runner", run.runner],
      ["SHA-256", run.sha256 ? foreign(run.sha256, { tag: "code", class: "long" }) : null],
    ]),
    said("standard error", run.stderr),
    said(`standard output${run.stdout_cut ? `, cut from ${count(run.stdout_length, "byte")}` : ""}`, run.stdout),
    names.length ? folded("Environment", count(names.length, "variable"), () => environment(run.environment)) : null,
  ];
}

function said(what, text) {
  return text ? [el("h4", {}, what), raw(text)] : el("p", { class: "quiet" }, `nothing on ${what}`);
}

function environment(variables) {
  return el("table", { class: "pairs" }, el("tbody", {}, Object.entries(variables).map(([name, value]) =>
    el("tr", {}, el("th", { scope: "row" }, foreign(name, { tag: "code" })), el("td", {}, foreign(value, { tag: "code" }))))));
}
