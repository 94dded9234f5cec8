// One record, decoded first: what came of it, the gates, the timeline, then each part; raw forms are folded.

import { explained } from "./api.js";
import * as binding from "./binding.js";
import { asText, fromBase64 } from "./bytes.js";
import { callouts } from "./callouts.js";
import { el, foreign, sentence } from "./dom.js";
import { bar } from "./gates.js";
import { asn1OfBody, asn1OfPem, body, facts, folded, headers, pem, raw, section } from "./sections.js";
import { figure } from "./timeline.js";
import { clock, count, failure, ordinal, title, tone, withUnit } from "./words.js";

const FORMAT = 1; // of docs/records.md

/** The nodes of a record's detail; `earlier` are rows of the same connection, `buttons` its actions. */
export function draw(record, earlier, buttons) {
  if (record.format !== FORMAT) {
    const words = `This record has format ${record.format}, and this page reads format ${FORMAT}.`;
    return [foreign(words, { tag: "p", class: "hint", "data-tone": "bad", role: "alert" })];
  }
  return [
    el("h2", { tabindex: "-1" }, foreign(title(record))),
    head(record),
    hint(record),
    buttons,
    bar(record),
    el("div", { class: "columns" },
      figure(record, earlier),
      linking(record), certificate(record), request(record), credentials(record)),
    words(record), scripts(record), answered(record), tls(record), wire(record), trees(record),
  ].flat().filter(Boolean);
}

function head(record) {
  const { number, request: place, peer, port } = record.connection ?? {};
  const parts = [
    `${(record.at ?? "").slice(0, 10)} ${clock(record.at, true)} UTC`,
    `${record.kind} ${record.id}`,
    record.of ? `replays ${record.of}` : null,
    peer ? `${peer}${port ? `:${port}` : ""}` : null,
    place ? `${ordinal(place)} request on connection ${number}` : null,
    record.ms === null || record.ms === undefined ? null : `${withUnit(record.ms)} in all`,
  ].filter(Boolean);
  return el("p", { class: "quiet head" }, parts.map((part, index) => [index ? " · " : "", foreign(part, { tag: "span" })]));
}

function hint(record) {
  const { reason, hint: next } = record.outcome ?? {};
  if (!reason && !next && !record.issued) return null;
  const first = reason || (record.issued ? `${record.issued.subject ?? "A certificate"} was issued.` : "");
  const whole = /[.!?]$/.test(first) || !first ? first : `${first}.`;
  return el("div", { class: "hint", "data-tone": tone(record) },
    whole ? foreign(whole[0].toUpperCase() + whole.slice(1), { tag: "strong" }) : null, " ", sentence(next));
}

function linking(record) {
  return section("Linking identity and proof of possession", "RFC 7030 3.5, RFC 9266", facts(binding.facts(record.binding)));
}

function request(record) {
  const csr = record.request?.csr;
  if (!csr) return null;
  return section("Certificate request", null, facts([
    ["subject", code(csr.subject) ?? quiet("empty")],
    ["names", csr.names?.length ? lines(csr.names) : quiet("none asked for")],
    ["key", csr.key],
    ["signature", csr.signature],
    ["SHA-256", code(csr.sha256, "long")],
  ]), csr.pem ? folded("PEM", null, () => pem(csr.pem, "CSR")) : null);
}

function credentials(record) {
  const { auth, tls: channel = {} } = record;
  if (!auth) return null;
  const { scheme, user, verified, requires, challenges } = auth;
  return section("Credentials", null, facts([
    ["requires", requires],
    ["password", scheme ? [`${scheme}, `, foreign(user ?? ""), verified === true ? ", verified" : verified === false ? ", not right" : ", not checked"] : quiet("none sent")],
    ["certificate", channel?.subject ? [foreign(channel.subject, { tag: "code" }), `, ${channel.verify ?? ""}`] : quiet("none sent")],
    ["trust", channel?.subject ? `${channel.trust ?? ""}${channel.is_ra ? ", an RA" : ""}` : null],
    ["challenges", challenges?.length ? lines(challenges) : null],
    ["Digest", auth.digest ? lines(Object.entries(auth.digest).map(([name, value]) => `${name}=${value}`)) : null],
  ]));
}

function certificate(record) {
  const issued = record.issued;
  if (!issued) return null;
  return section("Certificate", "issued", facts([
    ["subject", code(issued.subject)],
    ["names", issued.names?.length ? lines(issued.names) : quiet("none")],
    ["serial", code(issued.serial, "long")],
    ["valid until", issued.not_after?.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC")],
  ]), issued.pem ? folded("PEM", null, () => pem(issued.pem, "Certificate")) : null);
}

function scripts(record) {
  return section("Scripts", null, callouts(record));
}

function answered(record) {
  const { response } = record;
  if (!response) return null;
  const type = response.headers?.find(([name]) => name.toLowerCase() === "content-type")?.[1] ?? "no type";
  const text = type.startsWith("text/") && response.body ? asText(fromBase64(response.body) ?? []) : null;
  return section("Answer", `${response.status} ${response.reason ?? ""}`,
    text ? raw(text) : null,
    folded("Headers and body", `${type}, ${count(response.length ?? 0, "byte")}`, () => [headers(response.headers), body(response)]));
}

/** CMC and CSR attributes in words, by the gateway's own readers. */
function words(record) {
  if (!["fullcmc", "csrattrs"].includes(record.operation) || !record.request) return null;
  const node = el("div", { class: "words" });
  explained(record.id).then((found) => {
    for (const [which, heading] of [["request", "Request in words"], ["response", "Answer in words"]]) {
      if (found[which]) node.append(folded(heading, null, () => raw(found[which]), true));
    }
  }, (fault) => node.append(el("p", { class: "quiet" }, failure(fault.status ?? 0))));
  return node;
}

function tls(record) {
  const { tls: channel } = record;
  if (!channel?.version) return null;
  const note = [channel.cipher, channel.subject ? "with a client certificate" : "no client certificate",
    channel.server_name ? `SNI ${channel.server_name}` : "no SNI"].filter(Boolean).join(", ");
  return folded("TLS", note, () => [
    facts([
      ["version", channel.version], ["cipher", channel.cipher], ["SNI", channel.server_name ?? quiet("none")],
      ["handshake", withUnit(channel.handshake_ms)], ["client", code(channel.subject)], ["verify", channel.verify],
      ["trust", channel.trust], ["RA", channel.is_ra ? "yes" : null],
    ]),
    channel.certificate ? folded("Client certificate", "PEM", () => pem(channel.certificate, "Client certificate")) : null,
    (channel.chain ?? []).map((each, index) => folded(`Chain ${index + 1}`, "PEM", () => pem(each, "Certificate"))),
  ]);
}

function wire(record) {
  const { request: sent } = record;
  if (!sent?.line) return null;
  return folded("Request", `${sent.line.replace(/ HTTP\/.*/, "")}, ${count(sent.headers?.length ?? 0, "header")}, ${count(sent.length ?? 0, "byte")}`,
    () => [foreign(sent.line, { tag: "pre", class: "raw" }), headers(sent.headers), body(sent)]);
}

function trees(record) {
  const csr = record.request?.csr?.pem;
  return [
    csr ? asn1OfPem("the CSR", csr) : asn1OfBody("the request", record.request),
    record.response?.status === 200 ? asn1OfBody("the answer", record.response) : null,
    asn1OfPem("the certificate", record.issued?.pem),
    asn1OfPem("the client's certificate", record.tls?.certificate),
  ].filter(Boolean);
}

const code = (text, kind) => (text ? foreign(text, { tag: "code", class: kind ?? null }) : null);
const quiet = (text) => el("span", { class: "quiet" }, text);
const lines = (list) => list.map((each) => foreign(each, { tag: "code", class: "line" }));
