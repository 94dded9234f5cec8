// The trainer's page: one row for each participant, those who call first in words and colour.

import * as address from "./address.js";
import { ask } from "./api.js";
import { announce } from "./copied.js";
import { byId, el, foreign, put } from "./dom.js";
import { count, failure } from "./words.js";

const PERIOD = 2_000; // ms between two looks
let known = "";

const post = async (id, what) => (await ask(`/api/participants/${id}/${what}`, { method: "POST" })).json();

function request(row) {
  if (!row) return el("span", { class: "quiet" }, "none yet");
  const status = row.status === null ? "failed handshake" : `${row.status}${row.issued ? " issued" : ""}`;
  const tone = row.status !== null && row.status < 400 ? "good" : "bad";
  return [
    el("p", {}, el("span", { "data-tone": tone }, status), " ", foreign(row.operation ?? row.line ?? "")),
    el("p", { class: "quiet" }, ago(row.at), " ", foreign(row.subject ?? row.user ?? "")),
  ];
}

function refusal(row) {
  if (!row) return el("span", { class: "quiet" }, "none");
  return [
    el("p", {}, foreign([row.gate, row.reason].filter(Boolean).join(": "))),
    row.hint ? el("p", { class: "quiet" }, foreign(row.hint)) : null,
  ];
}

function ago(at) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(at)) / 1000));
  if (Number.isNaN(seconds)) return "";
  return seconds < 90 ? `${seconds} s ago,` : `${Math.round(seconds / 60)} min ago,`;
}

const callers = (who, number) => `${who} ${number > 1 ? "call" : "calls"} for you`;

function calls(one) {
  return [one.hand ? "raised hand" : null, one.stuck ? `stuck: ${one.stuck}` : null].filter(Boolean);
}

function gateway(one, shared) {
  const memory = one.memory && !shared ? `${Math.round(one.memory / 1e6)} MB` : null;
  const restarts = one.restarts ? count(one.restarts, "restart") : null;
  const killed = one.killed ? `${one.killed} killed for memory` : null;
  return [el("p", { "data-tone": one.state === "up" ? "good" : "bad" }, one.state),
    el("p", { class: "quiet" }, [memory, restarts, killed].filter(Boolean).join(", "))];
}

function row(one, answer) {
  const calling = calls(one);
  const button = (text, label, work) => el("button", { type: "button", "aria-label": label, onclick: work }, text);
  return el("tr", { id: one.id, "data-calls": calling.length ? true : null },
    el("td", {}, el("a", { href: one.page, target: "_blank", rel: "noreferrer" }, one.id)),
    el("td", { class: "calls" }, calling.map((text) => el("p", {}, text))),
    el("td", {}, request(one.last)),
    el("td", {}, refusal(one.refusal)),
    el("td", {}, one.labs?.length ? one.labs.join(", ") : el("span", { class: "quiet" }, "none")),
    el("td", {}, gateway(one, answer.shared)),
    el("td", {}, el("div", { class: "do" },
      one.hand ? button("Lower hand", `Lower the hand of ${one.id}`, () => act(one.id, "lower", `${one.id}: the hand is down`)) : null,
      answer.reset ? button("Reset…", `Reset ${one.id}`, () => reset(one.id)) : null)));
}

function reset(id) {
  if (confirm(`Reset ${id}? Scripts and CA are as on the first day again, password and link stay. The old files are kept on the machine.`)) {
    put(byId("said"), `Resetting ${id}…`);
    act(id, "reset", `${id} is reset`);
  }
}

async function act(id, what, words) {
  let told;
  try {
    const answer = await post(id, what);
    told = answer.error ?? (answer.old ? `${words}; the old files are in ${answer.old}` : words);
  } catch (fault) {
    told = failure(fault.status ?? 0);
  }
  byId("said").replaceChildren(foreign(told));
  announce(told);
  await look();
}

function state(name, words) {
  byId("state").dataset.state = name;
  put(byId("state-words"), words);
}

async function look() {
  try {
    const answer = await (await ask("/api/participants")).json();
    const all = answer.participants;
    const calling = all.filter((one) => calls(one).length).map((one) => one.id);
    put(byId("count"), `${count(all.length, "participant")}, ${callers(calling.length || "nobody", calling.length)}`);
    if (known !== calling.join(" ")) {
      known = calling.join(" ");
      announce(callers(known || "Nobody", calling.length));
    }
    const focused = document.activeElement?.getAttribute("aria-label");
    byId("participants").replaceChildren(...all.map((one) => row(one, answer)));
    if (focused) document.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
    state("live", "live");
  } catch (fault) {
    if (fault.status === 403) return locked("This token is not the workshop's: `estgw workshop status` prints the link.");
    state("offline", failure(fault.status ?? 0));
  }
  return undefined;
}

function locked(words) {
  state("locked", "locked");
  put(byId("locked-words"), words);
  byId("locked").hidden = false;
  byId("token").focus();
}

async function start() {
  byId("locked").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = address.tokenIn(byId("token").value);
    if (!given) return put(byId("locked-words"), "That is no token: it has 32 digits and letters from a to f, and follows the # of the link.");
    address.keepToken(given);
    location.reload();
    return undefined;
  });
  if (!address.token()) return locked("Open the link that the workshop printed at its start, with all that follows #, or paste it here.");
  for (;;) {
    if (!document.hidden && byId("locked").hidden) await look();
    await new Promise((resolve) => setTimeout(resolve, PERIOD));
  }
}

start();
