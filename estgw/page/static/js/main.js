// The page: the stream fills the store, the filter chooses, the list and the detail draw.

import * as address from "./address.js";
import * as api from "./api.js";
import { announce } from "./copied.js";
import { byId, el, put } from "./dom.js";
import { List } from "./list.js";
import { Live } from "./live.js";
import { MOST, Store } from "./store.js";
import { count, failure, plain, title } from "./words.js";

const TYPING = 120; // ms after a key in the filter
const MOVING = 90; // ms after an arrow key, before the record is fetched
const NEWS = 4_000; // ms between two announcements of new rows
const EXPORTED = 500; // records of one export of filtered rows: the gateway takes no more ids
const AT_LEISURE = 150; // ms after the first rows
const KEPT = 30; // records that were opened and are kept here

const store = new Store();
const records = new Map();
let facts = { name: "", url: "", replay: false };
let state = address.read();
let waiting = null; // rows that came while the page is paused
let comparing = null; // id of the record that waits for a second one
let unsaid = 0;
let lost = 0;

// Asked for before anything is laid out: the gateway answers meanwhile.
const stream = new Live({ onRows: take, onLost: (number) => { lost += number; summary(); }, onState: live });
const asked = address.token() ? api.facts() : null;
asked?.catch(() => {}); // `start` hears of it
if (asked) stream.start();
const list = new List(store, { onOpen: (row) => choose(row, true), onMove: (row) => choose(row, false) });
const page = { open: (ids) => open(ids, true), close: () => close(), startCompare };

// Rows.

function take(rows) {
  if (waiting) {
    waiting.push(...rows);
    waiting.splice(0, Math.max(0, waiting.length - MOST));
    put(byId("pause"), `Resume, ${waiting.length} new`);
    return;
  }
  const { added } = store.add(rows);
  list.grew(added);
  if (!take.viewed) {
    take.viewed = true;
    // Only to have it at hand; whoever opens a record loads it, and hears of a fault.
    setTimeout(() => import("./view.js").catch(() => {}), AT_LEISURE);
  }
  unsaid += added;
  if (!take.timer) {
    take.timer = setTimeout(() => {
      take.timer = null;
      if (unsaid && store.last) announce(count(unsaid, "new transaction"));
      unsaid = 0;
      store.last = true;
    }, NEWS);
  }
  summary();
}

function summary() {
  if (summary.due) return;
  summary.due = true;
  setTimeout(() => {
    summary.due = false;
    const shown = store.terms.length ? `${store.size.toLocaleString("en")} of ` : "";
    const words = [shown + count(store.rows.length, "transaction"), `${store.refused(10)} refused in the last 10 minutes`];
    if (lost) words.push(`${lost} missed`);
    put(byId("count"), words.join(", "));
    const empty = byId("nothing");
    empty.hidden = store.size > 0;
    if (!empty.hidden) put(empty, store.rows.length ? "No transaction fits the filter. Escape clears it." : "Nothing yet. Each request and each failed handshake becomes a row here.");
    put(byId("export-what"), store.terms.length
      ? `The ${store.size > EXPORTED ? `newest ${EXPORTED} of the ${store.size} records` : count(store.size, "record")} that the filter shows.`
      : `All ${count(store.rows.length, "record")} that the gateway keeps.`);
  }, 150);
}

function filter(text, push = false) {
  state.filter = text;
  store.filter(text);
  byId("list").scrollTop = 0;
  list.draw(true);
  address.write(state, push);
  summary();
}

// The detail.

async function record(id) {
  if (!records.has(id)) {
    const found = await api.record(id);
    records.set(id, found);
    if (records.size > KEPT) records.delete(records.keys().next().value);
    return found;
  }
  return records.get(id);
}

/** Show one record, or two side by side. `push`: the browser's Back leads back. */
async function open(ids, push = false) {
  state.ids = ids;
  address.write(state, push);
  document.body.classList.toggle("has-detail", ids.length > 0);
  list.mark(ids);
  byId("compare").disabled = ids.length !== 1;
  const node = byId("detail");
  if (!ids.length) {
    node.replaceChildren(el("p", { class: "nothing" }, "Choose a transaction: click it, or press the arrow keys."));
    document.title = facts.name ? `estgw ${plain(facts.name)}` : "estgw";
    return;
  }
  try {
    const [view, ...found] = await Promise.all([import("./view.js"), ...ids.map(record)]);
    if (state.ids !== ids) return;
    node.replaceChildren(...(found.length === 2
      ? [backButton(), ...view.comparison.draw(...found)]
      : view.detail.draw(found[0], store.earlier(found[0]), view.actions(found[0], facts, page))));
    node.scrollTop = 0;
    document.title = `${plain(title(found[0]))} – estgw`;
  } catch (fault) {
    const words = fault.status === undefined ? `This page can't draw the record: ${plain(fault.message)}` : failure(fault.status);
    if (state.ids === ids) node.replaceChildren(backButton(), el("p", { class: "hint", role: "alert", "data-tone": "bad" }, words));
  }
}

function backButton() {
  return el("p", { class: "buttons" }, el("button", { type: "button", class: "back always", onclick: () => close() }, "Back"));
}

const isNarrow = () => matchMedia("(max-width: 56rem)").matches;

function choose(row, now) {
  list.selected = row;
  if (comparing && now) {
    const first = comparing;
    startCompare(null);
    if (first !== row.id) open([first, row.id], true);
    return;
  }
  clearTimeout(choose.timer);
  if (now) {
    open([row.id], isNarrow()).then(() => isNarrow() && byId("detail").querySelector("h2")?.focus());
    list.draw(true);
  } else if (!isNarrow() && !comparing) choose.timer = setTimeout(() => open([row.id]), MOVING);
}

function close() {
  const row = store.get(state.ids.at(-1) ?? "") ?? list.selected;
  open([]);
  if (row) list.select(row, true);
  else byId("filter").focus();
}

/** The next row that is opened is compared with the open one; null ends that. */
function startCompare(id = state.ids[0] ?? null) {
  comparing = id;
  const button = byId("compare");
  button.setAttribute("aria-pressed", String(Boolean(id)));
  document.body.classList.toggle("comparing", Boolean(id));
  put(button, id ? "Choose the second…" : "Compare");
  if (!id) return;
  announce("Choose the transaction to compare with; Escape ends this");
  if (isNarrow()) document.body.classList.remove("has-detail");
  const row = store.get(id);
  if (row) list.select(row, true);
}

/** The id of a record that can be replayed: the open one, else that of the newest request. */
function latest() {
  const isRequest = (row) => row?.kind === "request" && row.operation;
  return [store.get(state.ids[0] ?? ""), ...store.rows.slice(-200).reverse()].find(isRequest)?.id ?? null;
}

// State of the connection.

function live(state_, seconds) {
  const words = {
    live: waiting ? "paused" : "live", hidden: "asleep while hidden", locked: "locked",
    offline: `offline, next try in ${seconds} s`, busy: `too many pages listen, next try in ${seconds} s`,
  }[state_];
  const node = byId("state");
  if (node.dataset.state !== state_) {
    node.dataset.state = state_;
    if (state_ !== "hidden") announce(words);
  }
  put(byId("state-words"), words);
  if (state_ === "locked") lock("This token is not, or no longer, the gateway's: each start makes a new one. Open the link that the gateway printed, or paste it here.");
}

function lock(words) {
  put(byId("locked-words"), words);
  byId("locked").hidden = false;
  byId("token").focus();
}

// Keys.

function isTyping(node) {
  return node.matches("input, textarea, select");
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !byId("locked").hidden) return;
  const node = event.target instanceof Element ? event.target : document.body;
  const typing = isTyping(node);
  if (event.key === "Escape") return escape_(node, event);
  if (typing && !(node.id === "filter" && ["ArrowDown", "Enter"].includes(event.key))) return;
  if (node.closest("#detail, details") && event.key !== "/") return;
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: list.page, PageUp: -list.page, Home: -MOST, End: MOST };
  if (event.key === "/") byId("filter").focus();
  else if (event.key in moves) list.move(moves[event.key]);
  else if (event.key === "Enter" && node.id === "filter") list.move(0);
  else return; // Enter on a row is its button's
  event.preventDefault();
}

function escape_(node, event) {
  const menu = document.querySelector("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (comparing) startCompare(null);
  else if (node.id === "filter" && node.value) {
    node.value = "";
    filter("");
  } else if (state.ids.length) close();
  else if (state.filter) {
    byId("filter").value = "";
    filter("");
  } else node.blur();
  event.preventDefault();
}

// Start.

function wire() {
  const input = byId("filter");
  input.addEventListener("input", () => {
    clearTimeout(wire.timer);
    wire.timer = setTimeout(() => filter(input.value), TYPING);
  });
  byId("search").addEventListener("submit", (event) => event.preventDefault());
  byId("pause").addEventListener("click", () => {
    const rows = waiting;
    waiting = rows ? null : [];
    put(byId("pause"), rows ? "Pause" : "Resume");
    byId("pause").setAttribute("aria-pressed", String(!rows));
    if (rows?.length) take(rows);
    live(byId("state").dataset.state);
  });
  byId("compare").addEventListener("click", () => startCompare(comparing ? null : undefined));
  for (const format of ["json", "har"]) {
    byId(`export-${format}`).addEventListener("click", async () => {
      byId("export").open = false;
      const ids = store.terms.length ? store.shown.map((row) => row.id).reverse() : [];
      const { save } = await import("./export.js");
      const fault = await save(format, ids.slice(0, EXPORTED), "records");
      if (fault) announce(fault);
    });
  }
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", () => {
    if (address.isToken()) location.reload();
  });
  addEventListener("popstate", () => {
    if (address.isToken()) return;
    state = address.read();
    input.value = state.filter;
    store.filter(state.filter);
    list.draw(true);
    open(state.ids);
  });
  byId("locked").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = address.tokenIn(byId("token").value);
    if (!given) return put(byId("locked-words"), "That is no token: it has 32 digits and letters from a to f, and follows the # of the link.");
    address.keepToken(given);
    location.reload();
    return undefined;
  });
}

async function start() {
  wire();
  if (!asked) return lock("Open the link that the gateway printed at its start, with all that follows #, or paste it here.");
  state = address.read();
  byId("filter").value = state.filter;
  store.filter(state.filter);
  try {
    facts = await asked;
    put(byId("name"), facts.name);
    put(byId("url"), facts.url);
    if (facts.edit || facts.labs || facts.hand !== null) (await import("./desk.js")).open(facts, { replayed: latest, page });
  } catch (fault) {
    if (fault.status !== 403) announce(failure(fault.status ?? 0));
  }
  summary();
  return open(state.ids);
}

start();
