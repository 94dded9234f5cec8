// The channel binding that this connection expects, beside the one that the CSR carries (RFC 7030 3.5).

import { fromBase64 } from "./bytes.js";
import { el, foreign } from "./dom.js";
import { count } from "./words.js";

const RESULTS = {
  linked: "the CSR was made for this connection",
  absent: "the CSR carries no binding",
  waived: "a binding of another connection is let pass for this client",
  refused: "the CSR was not made for this connection",
};

/** The rows of a list of facts; none where nothing was compared. */
export function facts(binding) {
  if (!binding?.type && !binding?.found) return [];
  const { type, expected, found, attribute, required, result } = binding;
  const length = expected ? fromBase64(expected)?.length : null;
  return [
    ["result", el("span", { "data-tone": result === "refused" ? "bad" : result === "linked" ? "good" : null },
      RESULTS[result] ?? result ?? "not compared")],
    ["expected", value(expected, found, result)],
    ["found", value(found, expected, result)],
    ["type", [type ?? "none", length ? `, ${count(length, "byte")}` : "", attribute ? [", in ", foreign(attribute)] : ""]],
    ["required", required ? "yes: a CSR without it is refused" : "no: a CSR without it is accepted"],
  ];
}

/** A value with the first characters marked in which it differs from the other. */
function value(own, other, result) {
  if (!own) return el("span", { class: "quiet" }, "none");
  if (!other || own === other) return foreign(own, { tag: "code", "data-tone": result === "linked" ? "good" : null });
  let same = 0;
  while (same < own.length && own[same] === other[same]) same += 1;
  return el("code", {}, foreign(own.slice(0, same)), foreign(own.slice(same, same + 8), { tag: "mark" }),
    foreign(own.slice(same + 8)));
}
