// The filter: words that a row must have, and label: op: status: who: gate: kind: with a value.
// A minus sign before one leaves out what fits; quotes keep spaces: who:"Big CA".

import { answer, decided, operation, who } from "./words.js";

const TERM = /(-?)(?:(label|op|status|who|gate|kind):)?(?:"([^"]*)"?|(\S+))/gi;

/** A filter as a list of terms. */
export function parse(text) {
  return [...text.matchAll(TERM)].map(([, minus, key, quoted, word]) => ({
    not: minus === "-", key: key?.toLowerCase(), value: (quoted ?? word).toLowerCase(),
  })).filter((term) => term.value);
}

const lower = (text) => String(text ?? "").toLowerCase();

const TESTS = {
  label: (row, value) => (value === "-" ? !row.label : lower(row.label) === value),
  op: (row, value) => lower(row.operation).includes(value) || (row.kind === "handshake" && "handshake".includes(value)),
  status: (row, value) => matchesStatus(row.status, value),
  who: (row, value) => [row.user, row.certificate, row.peer].some((each) => lower(each).includes(value)),
  gate: (row, value) => lower(row.gate).startsWith(value),
  kind: (row, value) => lower(row.kind).startsWith(value),
};

function matchesStatus(status, value) {
  if (status === null || status === undefined) return "failed".startsWith(value);
  const digits = String(status);
  return value.length === digits.length && [...value].every((each, index) => each === "x" || each === digits[index]);
}

/** All of a row's words, made once for each row. */
function words(row) {
  row.words ??= lower([
    row.id, row.label, operation(row), who(row).text, row.certificate, row.peer, answer(row).text, decided(row).text,
    row.subject, row.kind, row.scheme, row.of, row.at,
  ].filter(Boolean).join(" "));
  return row.words;
}

/** Whether a row fits all terms. */
export const fits = (row, terms) => terms.every(({ not, key, value }) =>
  (key ? TESTS[key](row, value) : words(row).includes(value)) !== not);
