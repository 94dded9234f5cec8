// The words of the page: what a status, a gate or a number of bytes is called, and how a peer's text is made harmless.

// Characters that can't be seen or that change how their neighbours are shown: controls, formats (bidi, zero width),
// lone surrogates, private and unassigned ones, line separators, and letters that look like nothing (Hangul fillers).
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;
const HIDDEN_BUT_LINES = /(?![\n\t])[\p{C}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;

function code(character) {
  const point = character.codePointAt(0);
  if (point < 0x100) return `\\x${point.toString(16).padStart(2, "0")}`;
  if (point < 0x10000) return `\\u${point.toString(16).padStart(4, "0")}`;
  return `\\u{${point.toString(16)}}`;
}

/** A peer's text as text without hidden characters, for a title, an SVG or a file. */
export function plain(text) {
  return String(text ?? "").replace(HIDDEN, code);
}

/** A peer's text as pieces: [text, whether it stands for a hidden character]. `lines`: line ends and tabs stay. */
export function pieces(text, lines = false) {
  const found = [];
  let from = 0;
  for (const match of String(text ?? "").matchAll(lines ? HIDDEN_BUT_LINES : HIDDEN)) {
    if (match.index > from) found.push([text.slice(from, match.index), false]);
    found.push([code(match[0]), true]);
    from = match.index + match[0].length;
  }
  if (from < String(text ?? "").length) found.push([String(text).slice(from), false]);
  return found;
}

const STATUS = {
  202: "later", 400: "refused", 401: "log in", 403: "refused", 404: "unknown", 405: "wrong method", 413: "too long",
  415: "wrong type", 429: "too often", 500: "failed", 503: "busy",
};

/** The answer of a row: words, and a tone for their colour. */
export function answer(row) {
  if (row.status === null || row.status === undefined) return { text: "failed", tone: "bad" };
  if (row.status === 202) return { text: "202 later", tone: "wait" };
  if (row.status < 300) return { text: row.issued ? `${row.status} issued` : String(row.status), tone: "good" };
  const word = STATUS[row.status] ?? (row.status < 500 ? "refused" : "failed");
  return { text: `${row.status} ${word}`, tone: "bad" };
}

/** Who asks: a user, a certificate's subject, or an address alone. */
export function who(row) {
  if (row.user) return { text: row.user, named: true };
  if (row.certificate) return { text: commonName(row.certificate), named: true };
  return { text: row.peer ?? "", named: false };
}

function commonName(subject) {
  const found = /(?:^|,)CN=((?:\\.|[^,\\])+)/.exec(subject);
  return found ? found[1] : subject;
}

/** What was asked for: label and operation, or the path of a request for nothing that there is. */
export function operation(row) {
  if (row.kind === "handshake") return "handshake";
  const name = row.operation ?? row.line?.split(" ")[1] ?? "not HTTP";
  return row.label ? `${row.label} / ${name}` : name;
}

/** What decided, in the words of the record. */
export function decided(row) {
  if (row.kind === "handshake") return { text: row.reason ?? "", quiet: false };
  if (row.gate) return { text: row.reason ? `${row.gate}: ${row.reason}` : row.gate, quiet: false };
  return { text: row.reason || row.subject || "", quiet: true };
}

/** The title of a record's detail. */
export function title(record) {
  const name = operation({ ...record, line: record.request?.line });
  const outcome = record.outcome ?? {};
  const replay = record.kind === "replay" ? ", a replay" : "";
  if (record.kind === "handshake") return "TLS handshake, failed";
  if (outcome.status === 202) return `${name}${replay}, to be asked again later`;
  if (outcome.gate) return `${name}${replay}, ${outcome.status >= 500 ? "failed in" : "refused by"} ${outcome.gate}`;
  if (record.issued) return `${name}${replay}, issued`;
  return `${name}${replay}, answered with ${outcome.status}`;
}

export const tone = (record) =>
  answer({ status: record.outcome?.status, issued: record.issued }).tone;

export function milliseconds(value) {
  if (value === null || value === undefined) return "";
  if (value > 0 && value < 0.05) return "<0.1";
  if (value < 9.95) return String(Math.round(value * 10) / 10);
  return String(Math.round(value));
}

export const withUnit = (value) => (value === null || value === undefined ? "" : `${milliseconds(value)} ms`);

/** The time of day, to the second, or with `fine` to the millisecond. All times are UTC, as in the log. */
export const clock = (at, fine = false) => (at ?? "").slice(11, fine ? 23 : 19);

export const count = (number, noun, plural = `${noun}s`) => `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;

const ORDINALS = ["", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"];
export const ordinal = (number) => ORDINALS[number] ?? `${number}th`;

/** A failure of this page's own requests, in words. */
export function failure(status) {
  return {
    0: "The gateway can't be reached.",
    403: "The gateway does not know this page's token any more.",
    404: "This record is no longer kept.",
    503: "The gateway is busy with others; try again in a few seconds.",
  }[status] ?? `The gateway answered with status ${status}.`;
}
