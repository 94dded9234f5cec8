// The list: a table of which only the rows in sight exist.  Two rows of empty space stand for the others.

import { byId, el, foreign } from "./dom.js";
import { answer, clock, decided, milliseconds, operation, who } from "./words.js";

const BEYOND = 8; // rows that exist above and below what is in sight

export class List {
  /** `onOpen(row)`: a row was chosen by a click or by Enter. `onMove(row)`: by an arrow key. */
  constructor(store, { onOpen, onMove }) {
    this.store = store;
    this.onOpen = onOpen;
    this.onMove = onMove;
    this.box = byId("list");
    this.body = byId("rows");
    this.above = spacer();
    this.below = spacer();
    this.body.append(this.above, this.below);
    this.made = new Map(); // id of a row to its <tr>
    this.selected = null;
    this.marked = new Set();
    this.due = false;
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(this.box);
    this.body.addEventListener("click", (event) => {
      const row = this.rowOf(event.target);
      if (row) this.onOpen(row);
    });
    this.measure();
  }

  rowOf(node) {
    return this.store.get(node.closest("tr")?.dataset.id ?? "");
  }

  measure() {
    const letters = parseFloat(getComputedStyle(document.documentElement).fontSize);
    this.height = Math.round(parseFloat(getComputedStyle(this.box).getPropertyValue("--rems")) * letters);
    this.box.style.setProperty("--row", `${this.height}px`);
    this.head = byId("table").tHead.offsetHeight;
    this.draw(true);
  }

  /** New rows came on top: what is being read stays where it is. */
  grew(added) {
    if (this.box.scrollTop > 0) this.scrolledBy = (this.scrolledBy ?? 0) + added * this.height;
    this.draw(true);
  }

  /** Draw soon; `all` even where the same rows are in sight. */
  draw(all = false) {
    this.all ||= all;
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.drawNow();
    });
  }

  drawNow() {
    const { store, height } = this;
    // At the top stays at the top, where the newest row is; the reader may have gone there since the rows came.
    if (this.scrolledBy && this.box.scrollTop > 0) {
      // The space has to be there before it can be scrolled.
      this.above.firstChild.style.height = `${parseFloat(this.above.firstChild.style.height || "0") + this.scrolledBy}px`;
      this.box.scrollTop += this.scrolledBy;
    }
    this.scrolledBy = 0;
    const first = Math.max(0, Math.floor(this.box.scrollTop / height) - BEYOND);
    const last = Math.min(store.size, Math.ceil((this.box.scrollTop + this.box.clientHeight) / height) + BEYOND);
    if (!this.all && first === this.first && last === this.last) return;
    [this.first, this.last, this.all] = [first, last, false];
    this.above.firstChild.style.height = `${first * height}px`;
    this.below.firstChild.style.height = `${Math.max(0, store.size - last) * height}px`;
    byId("table").setAttribute("aria-rowcount", String(store.size + 1));
    const wanted = new Set();
    for (let place = first; place < last; place += 1) wanted.add(store.at(place).id);
    for (const [id, node] of this.made) {
      if (wanted.has(id)) continue;
      node.remove();
      this.made.delete(id);
    }
    let cursor = this.above.nextSibling;
    for (let place = first; place < last; place += 1) {
      const row = store.at(place);
      let node = this.made.get(row.id);
      if (!node) {
        node = draw(row);
        this.made.set(row.id, node);
      }
      // A row that is there stays in its place, so that the focus stays in it.
      if (node === cursor) cursor = cursor.nextSibling;
      else this.body.insertBefore(node, cursor);
      this.state(node, row, place);
    }
  }

  state(node, row, place) {
    node.setAttribute("aria-rowindex", String(place + 2));
    const isOpen = this.marked.has(row.id);
    node.classList.toggle("open", isOpen);
    const button = node.querySelector("button");
    if (isOpen) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    // One stop for the Tab key; the arrows go from row to row.
    const stop = this.selected && this.made.has(this.selected.id) ? row.id === this.selected.id : place === this.first;
    button.tabIndex = stop ? 0 : -1;
  }

  /** Mark the rows that the detail shows. */
  mark(ids) {
    this.marked = new Set(ids);
    this.draw(true);
  }

  select(row, focus = false) {
    this.selected = row;
    this.reveal(row);
    this.drawNow();
    if (focus) this.made.get(row.id)?.querySelector("button").focus({ preventScroll: true });
  }

  reveal(row) {
    const place = this.store.place(row);
    if (place < 0) return;
    const top = place * this.height, sight = this.box.clientHeight - this.head;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.height > this.box.scrollTop + sight) this.box.scrollTop = top + this.height - sight;
    this.all = true;
  }

  /** Go some rows down, or up; from nowhere to the first. */
  move(by) {
    if (!this.store.size) return;
    const from = this.selected ? this.store.place(this.selected) : -1;
    const to = from < 0 ? 0 : Math.min(this.store.size - 1, Math.max(0, from + by));
    const row = this.store.at(to);
    this.select(row, true);
    this.onMove(row);
  }

  /** Rows in sight. */
  get page() {
    return Math.max(1, Math.floor((this.box.clientHeight - this.head) / this.height) - 1);
  }
}

function spacer() {
  return el("tr", { class: "space", role: "presentation", "aria-hidden": "true" }, el("td"));
}

function draw(row) {
  const said = answer(row), asker = who(row), decision = decided(row);
  const kind = row.kind === "replay" ? el("span", { class: "replay", title: `a replay of ${row.of}` }, "↻", el("span", { class: "visually-hidden" }, " replay ")) : null;
  return el("tr", { role: "row", "data-id": row.id, class: `kind-${row.kind}` },
    el("td", { role: "cell", class: "c-time", title: row.at?.replace("T", " ").replace("Z", " UTC") }, el("button", { type: "button", class: "row" }, kind, clock(row.at))),
    el("td", { role: "cell", class: `c-who${asker.named ? "" : " quiet"}` }, foreign(asker.text)),
    el("td", { role: "cell", class: `c-operation${row.kind === "handshake" ? " quiet" : ""}` }, foreign(operation(row))),
    el("td", { role: "cell", class: "c-answer", "data-tone": said.tone }, said.text),
    el("td", { role: "cell", class: `c-reason${decision.quiet ? " quiet" : ""}` }, foreign(decision.text)),
    el("td", { role: "cell", class: "c-scripts" }, milliseconds(row.scripts)),
    el("td", { role: "cell", class: "c-ms", title: row.scripts === null ? null : `${milliseconds(row.scripts)} ms of it in scripts` }, milliseconds(row.ms)));
}
