// The stream of rows: server-sent events read by fetch, since EventSource can't send the token.
// It resumes where it stopped, says when it is offline, and lets go while nobody looks.

import { ask } from "./api.js";

const SILENCE = 40_000; // ms; the gateway says something every 15 s
const ANSWER = 10_000; // ms until the gateway has to begin its answer; a connection from before a sleep never does
const FIRST_WAIT = 1_000; // ms, doubled with each failure
const LONGEST_WAIT = 15_000;
const SHORT = 16; // ms of work without a pause
const UNSEEN = 60_000; // ms after which a hidden page closes its stream: a browser has six connections for a host

let breathed = 0;

/** Let the browser draw, if it has not for a while: what has arrived already would else be read without a pause. */
async function breathe() {
  if (performance.now() - breathed < SHORT) return;
  await new Promise((resolve) => setTimeout(resolve));
  breathed = performance.now();
}

export class Live {
  /** `onRows(rows)`, `onLost(number)`, `onState(state, seconds)`: live, offline, locked, busy, hidden. */
  constructor({ onRows, onLost, onState }) {
    this.last = 0;
    this.onRows = onRows;
    this.onLost = onLost;
    this.onState = onState;
    this.failures = 0;
    this.stopped = false;
    this.heard = Date.now();
  }

  start() {
    this.run();
    // After a sleep of the machine the connection may be dead without a word: time has passed, and nothing has come.
    setInterval(() => this.open && Date.now() - this.heard > (this.answered ? SILENCE : ANSWER) && this.again(), 5_000);
    addEventListener("online", () => this.again());
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.unseen);
      if (document.hidden) this.unseen = setTimeout(() => this.hide(), UNSEEN);
      else if (this.hiding || !this.open) this.again();
    });
  }

  /** Connect at once, whatever is under way. */
  again() {
    if (this.stopped) return;
    this.hiding = false;
    this.failures = 0;
    this.hurries = true;
    this.open?.abort();
    this.wake?.();
    if (!this.running) this.run();
  }

  hide() {
    this.hiding = true;
    this.onState("hidden");
    this.open?.abort();
  }

  stop() {
    this.stopped = true;
    this.open?.abort();
  }

  async run() {
    this.running = true;
    while (!this.stopped && !this.hiding) {
      this.hurries = false;
      const status = await this.listen();
      if (this.stopped || this.hiding) break;
      if (this.hurries) continue;
      if (status === 403) {
        this.stopped = true;
        this.onState("locked");
        break;
      }
      const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.failures) * (0.75 + Math.random() / 4);
      this.failures += 1;
      this.onState(status === 503 ? "busy" : "offline", Math.ceil(wait / 1000));
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, wait);
      });
    }
    this.running = false;
  }

  /** Read one stream to its end; the status that refused it, or 0. */
  async listen() {
    const open = (this.open = new AbortController());
    this.heard = Date.now();
    this.answered = false;
    try {
      const headers = this.last ? { "Last-Event-ID": String(this.last) } : {};
      const response = await ask("/api/events", { headers, signal: open.signal });
      this.failures = 0;
      this.answered = true;
      this.onState("live");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        this.heard = Date.now();
        text += part.value;
        const events = text.split("\n\n");
        text = events.pop();
        for (const event of events) {
          this.take(event);
          await breathe();
        }
      }
      return 0;
    } catch (fault) {
      return fault.status ?? 0;
    } finally {
      if (this.open === open) this.open = null;
    }
  }

  take(event) {
    let kind = "message", data = "", number = null;
    for (const line of event.split("\n")) {
      if (line.startsWith("data: ")) data += line.slice(6);
      else if (line.startsWith("event: ")) kind = line.slice(7);
      else if (line.startsWith("id: ")) number = Number(line.slice(4));
    }
    if (!data) return;
    if (kind === "lost") {
      this.onLost(Number(data));
      return;
    }
    const rows = JSON.parse(data).filter((row) => row.n > this.last);
    this.last = number ?? this.last;
    if (rows.length) this.onRows(rows);
  }
}
