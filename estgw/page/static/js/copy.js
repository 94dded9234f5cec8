// Commands that do a recorded request again, for Bash.  A secret is a PLACEHOLDER, since no record has it.

import { asText, fromBase64 } from "./bytes.js";

export const PLACEHOLDER = "PLACEHOLDER";
const SENT = new Set(["content-type", "accept", "content-transfer-encoding"]); // the others curl or TLS makes anew

/** A word for Bash: bare where it may be, else quoted; hidden characters become escapes, so that a terminal is safe. */
export function quoted(text) {
  if (/^[A-Za-z0-9_./:@%+=,-]+$/.test(text)) return text;
  if (!/[\p{C}\p{Zl}\p{Zp}]/u.test(text)) return `'${text.replaceAll("'", `'\\''`)}'`;
  const escaped = [...text].map((character) => {
    if (character === "'" || character === "\\") return `\\${character}`;
    if (!/[\p{C}\p{Zl}\p{Zp}]/u.test(character)) return character;
    // Bytes, not code points: how Bash writes those depends on the locale.
    return [...new TextEncoder().encode(character)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  });
  return `$'${escaped.join("")}'`;
}

/** A here-document of printable ASCII lines, with an end that none of them is. */
function document_(text) {
  let end = "EOF";
  while (text.split("\n").includes(end)) end += "_";
  return [` <<'${end}'`, `${text.replace(/\n$/, "")}\n${end}\n`];
}

const isPlain = (text) => /^[\x20-\x7e\n\t]*$/.test(text);

function warnings(record) {
  const found = [];
  if (record.binding?.found) {
    found.push("This CSR carries the channel binding of the recorded connection, so on another connection the gateway",
      "refuses it.  To do this again, make a new CSR on the new connection: estclient does.");
  }
  if (record.request?.body === "[removed]") found.push("The body holds a secret and is not recorded: put it behind --data-binary.");
  if (record.request?.cut) found.push("The body was too long to be kept whole: what follows is cut, and will be refused.");
  if (record.auth?.scheme) found.push(`${PLACEHOLDER} stands for the password, which is not recorded.`);
  if (record.tls?.certificate) found.push("client.pem and client.key stand for the client's certificate and its key.");
  return found.map((line) => `# ${line}\n`).join("");
}

/** The request as a curl command. */
export function curl(record, facts) {
  const [method, target] = (record.request?.line ?? "GET / HTTP/1.1").split(" ");
  const words = ["curl -sS --fail-with-body", quoted(facts.url + target)];
  const bytes = record.request?.body ? fromBase64(record.request.body) : null;
  if (method !== (bytes ? "POST" : "GET")) words.push(`-X ${quoted(method)}`);
  if (record.auth?.scheme) {
    const digest = record.auth.scheme.toLowerCase() === "digest" ? "--digest " : "";
    words.push(`${digest}-u ${quoted(`${record.auth.user ?? ""}:${PLACEHOLDER}`)}`);
  }
  if (record.tls?.certificate) words.push("--cert client.pem --key client.key");
  words.push(`--cacert ${quoted(facts.anchor ?? "ca.pem")}`);
  for (const [name, value] of record.request?.headers ?? []) {
    if (SENT.has(name.toLowerCase())) words.push(`-H ${quoted(`${name}: ${value}`)}`);
  }
  let before = "", after = "\n";
  if (bytes) {
    words.push("--data-binary @-");
    const text = asText(bytes);
    if (text !== null && isPlain(text)) {
      [before, after] = ["", document_(text).join("\n")];
    } else {
      const [opening, rest] = document_(record.request.body.replace(/.{76}/g, "$&\n"));
      before = `base64 -d${opening} | `;
      after = `\n${rest}`;
    }
  }
  return `${warnings(record)}${before}${words.join(" \\\n  ")}${after}`;
}

/** The request as `estgw run`, which needs no client and no password. */
export function run(record, facts) {
  const words = ["estgw run", `-c ${quoted(facts.config)}`, quoted(record.operation ?? "")];
  if (record.label) words.push(`--label ${quoted(record.label)}`);
  if (record.auth?.user && record.auth.verified) words.push(`--user ${quoted(record.auth.user)}`);
  if (record.tls?.certificate) {
    const [opening, rest] = document_(record.tls.certificate);
    words.push(`--client-cert <(cat${opening}\n${rest})`);
  }
  words.push("--dry-run");
  const csr = record.request?.csr?.pem ?? wireText(record);
  if (!csr) return `${words.join(" ")}\n`;
  const [opening, rest] = document_(csr);
  return `${words.join(" ")} --csr /dev/stdin${opening}\n${rest}`;
}

function wireText(record) {
  const bytes = record.request?.body ? fromBase64(record.request.body) : null;
  const text = bytes ? asText(bytes) : null;
  return text !== null && isPlain(text) ? text : record.request?.body;
}

export const replay = (record, facts) => `estgw replay -c ${quoted(facts.config)} ${record.id}\n`;
