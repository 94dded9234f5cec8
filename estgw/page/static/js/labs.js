// The labs: a sheet to read, and a check that says of each step whether it is done.

import * as api from "./api.js";
import { announce } from "./copied.js";
import { el, foreign } from "./dom.js";
import { sheet } from "./sheet.js";
import { failure } from "./words.js";

const NOTE = "Start and Check below are for what the sheet does with estgw lab start and estgw lab check. " +
  "In a workshop, put the password of your handout in the place of PASSWORD.";

export class Labs {
  constructor(place) {
    this.choice = el("select", { id: "lab", "aria-label": "Lab", onchange: () => this.read() });
    const button = (id, text, what, kind = null) => el("button", { type: "button", id, class: kind, onclick: () => this.run(what) }, text);
    this.buttons = [button("check-lab", "Check", "check", "main"), button("start-lab", "Start", "start")];
    this.sheet = el("div", { class: "sheet", tabindex: "0", role: "region", "aria-label": "Sheet" });
    this.said = el("div", { class: "said", role: "status" });
    place.replaceChildren(
      el("div", { class: "bar" }, this.choice),
      this.sheet,
      el("div", { class: "buttons" }, ...this.buttons), this.said);
  }

  async show() {
    if (!this.choice.value) this.sheet.replaceChildren(el("p", { class: "quiet" }, "Loading…"));
    const answer = await this.ask(api.labs());
    if (!answer) return;
    const before = this.choice.value;
    const rows = answer.said.split("\n").map((line) => [/^ *(\d+)/.exec(line)?.[1], line.trim()]).filter(([number]) => number);
    this.choice.replaceChildren(...rows.map(([value, text]) => el("option", { value }, text.replace(/  +/g, "  "))));
    if (before) this.choice.value = before;
    else await this.read();
  }

  async read() {
    this.said.replaceChildren();
    this.sheet.replaceChildren(el("p", { class: "quiet" }, "Loading…"));
    const answer = await this.ask(api.lab(this.choice.value));
    if (answer) this.sheet.replaceChildren(el("p", { class: "quiet" }, NOTE), ...sheet(answer.said));
    this.sheet.scrollTop = 0;
  }

  async run(what) {
    const number = this.choice.value;
    this.say(what === "check" ? "Checking…" : "Starting…");
    const answer = await this.ask(api.doLab(number, what));
    if (!answer) return;
    this.said.replaceChildren(foreign(answer.said.trim(), { tag: "pre", lines: true }));
    announce(answer.said);
    await this.show();
  }

  /** The answer; null if it is a fault, which is shown. */
  async ask(answering) {
    for (const button of this.buttons) button.disabled = true;
    try {
      const answer = await answering;
      if (!answer.error) return answer;
      this.say(answer.error);
    } catch (fault) {
      this.say(failure(fault.status ?? 0));
    } finally {
      for (const button of this.buttons) button.disabled = false;
    }
    return null;
  }

  say(text) {
    this.said.replaceChildren(foreign(text, { tag: "p" }));
  }
}
