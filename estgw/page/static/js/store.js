// The rows of this page, oldest first, and those of them that the filter shows.

import { fits, parse } from "./filter.js";

export const MOST = 10_000; // rows; the oldest go first, as in the gateway

export class Store {
  constructor() {
    this.rows = [];
    this.shown = [];
    this.terms = [];
    this.ids = new Map();
  }

  /** Add newer rows; how many of them are shown, and how many shown ones went. */
  add(rows) {
    const fresh = this.terms.length ? rows.filter((row) => fits(row, this.terms)) : rows;
    for (const row of rows) this.ids.set(row.id, row);
    this.rows.push(...rows);
    this.shown.push(...fresh);
    const old = this.rows.splice(0, Math.max(0, this.rows.length - MOST));
    if (!old.length) return { added: fresh.length, gone: 0 };
    const first = this.rows[0].n;
    for (const row of old) if (this.ids.get(row.id) === row) this.ids.delete(row.id);
    let gone = 0;
    while (gone < this.shown.length && this.shown[gone].n < first) gone += 1;
    this.shown.splice(0, gone);
    return { added: fresh.length, gone };
  }

  filter(text) {
    this.terms = parse(text);
    this.shown = this.terms.length ? this.rows.filter((row) => fits(row, this.terms)) : [...this.rows];
  }

  get size() {
    return this.shown.length;
  }

  /** The row at a place of the list, where 0 is the newest. */
  at(place) {
    return this.shown[this.shown.length - 1 - place];
  }

  /** The place of a row in the list; -1 if it is not shown. */
  place(row) {
    let low = 0, high = this.shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.shown[middle].n < row.n) low = middle + 1;
      else high = middle;
    }
    return this.shown[low]?.n === row.n ? this.shown.length - 1 - low : -1;
  }

  get(id) {
    return this.ids.get(id);
  }

  /** The rows of the requests that came before on the same connection, oldest first. */
  earlier(record) {
    const { number, request } = record.connection ?? {};
    if (!number || record.kind === "replay") return [];
    return this.rows.filter((row) => row.kind === "request" && row.connection === number && row.request < request);
  }

  /** How many rows of the last minutes were refused or failed. */
  refused(minutes) {
    const since = new Date(Date.now() - minutes * 60_000).toISOString();
    let found = 0;
    for (let place = this.rows.length - 1; place >= 0 && this.rows[place].at >= since; place -= 1) {
      const { status } = this.rows[place];
      if (status === null || status >= 400) found += 1;
    }
    return found;
  }
}
