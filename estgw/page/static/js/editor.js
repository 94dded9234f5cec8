// The editor: one file at a time, saved as a whole if its syntax is right, with its earlier versions and a replay beside it.

import * as api from "./api.js";
import { announce } from "./copied.js";
import { el, foreign, put } from "./dom.js";
import { failure } from "./words.js";

const MOST = 64 * 1024; // bytes, as in the gateway

export class Editor {
  constructor(place, tools) {
    this.tools = tools;
    this.name = null;
    this.saved = ""; // the text of the file, as the gateway has it
    this.digest = "";
    const button = (id, text, work, kind = null) => el("button", { type: "button", id, class: kind, onclick: work }, text);
    this.choice = el("select", { id: "file", onchange: () => this.choose() });
    this.versions = el("select", { id: "version", onchange: () => this.look() });
    this.numbers = el("pre", { class: "numbers", "aria-hidden": "true" }, "1");
    this.area = el("textarea", {
      id: "text", spellcheck: "false", autocomplete: "off", autocapitalize: "off", wrap: "off", "aria-label": "Text of the file",
      oninput: () => this.typed(), onscroll: () => { this.numbers.scrollTop = this.area.scrollTop; },
    });
    this.said = el("p", { class: "said", role: "status" });
    this.buttons = [
      button("save", "Save", () => this.save(), "main"),
      button("save-replay", "Save and replay", () => this.saveAndReplay()),
      button("undo", "Undo the last save", () => this.undo()),
    ];
    place.replaceChildren(
      el("div", { class: "bar" }, el("label", { for: "file" }, "File"), this.choice, el("label", { for: "version" }, "Version"), this.versions),
      el("div", { class: "text" }, this.numbers, this.area),
      el("div", { class: "buttons" }, ...this.buttons), this.said);
    place.addEventListener("keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") {
        event.preventDefault();
        this.save();
      }
    });
    addEventListener("beforeunload", (event) => this.isChanged && event.preventDefault());
  }

  get isChanged() {
    return this.name !== null && this.area.value !== this.saved;
  }

  async show() {
    if (this.name !== null) return this.area.focus();
    const answer = await this.ask(api.files());
    if (!answer) return undefined;
    this.choice.replaceChildren(...answer.files.map(({ name, large }) =>
      el("option", { value: name, disabled: large }, large ? `${name} (too large)` : name)));
    const first = answer.files.find(({ name }) => name.endsWith("openssl/simpleenroll")) ?? answer.files.find(({ large }) => !large);
    if (!first) return this.say("There is no file to edit.", "bad");
    this.choice.value = first.name;
    return this.open(first.name);
  }

  async choose() {
    const wanted = this.choice.value;
    if (this.isChanged && !confirm(`Leave ${this.name} without saving?`)) this.choice.value = this.name;
    else await this.open(wanted);
  }

  async open(name) {
    const answer = await this.ask(api.text(name));
    if (!answer) {
      if (this.name !== null) this.choice.value = this.name;
      return;
    }
    this.name = name;
    this.saved = answer.text;
    this.digest = answer.digest;
    this.listVersions(answer.versions);
    this.put(answer.text);
    this.area.scrollTop = 0;
    this.area.focus();
    this.area.setSelectionRange(0, 0);
  }

  listVersions(versions) {
    this.newest = versions[0]?.version ?? null;
    this.versions.replaceChildren(el("option", { value: "" }, "now"), ...versions.map(({ version, at }) =>
      el("option", { value: version }, `until ${new Date(at).toLocaleTimeString("en-GB")}`)));
    this.buttons[2].disabled = !versions.length;
  }

  put(text) {
    this.area.value = text;
    this.typed();
  }

  typed() {
    const lines = this.area.value.split("\n").length;
    if (lines !== this.lines) {
      this.lines = lines;
      put(this.numbers, Array.from({ length: lines }, (_, place) => place + 1).join("\n"));
    }
    this.say(this.isChanged ? "Not saved yet." : "");
  }

  /** Show another version as a text that is not saved yet. */
  async look() {
    const version = this.versions.value;
    if (this.isChanged && !confirm("Replace your text, which is not saved?")) {
      this.versions.value = "";
      return;
    }
    const answer = version ? await this.ask(api.text(this.name, version)) : { text: this.saved };
    if (answer) this.put(answer.text);
  }

  async save() {
    if (this.name === null) return false;
    const text = this.area.value;
    if (new TextEncoder().encode(text).length > MOST) return this.say(`${this.name} would be larger than 64 KiB; nothing was saved.`, "bad");
    const answer = await this.ask(api.saveText(this.name, text, this.digest));
    if (!answer) return false;
    const changed = answer.digest !== this.digest;
    this.saved = text;
    this.digest = answer.digest;
    const now = await this.ask(api.text(this.name));
    if (now) this.listVersions(now.versions);
    this.say(changed ? "Saved. The next request runs it." : "Nothing has changed since the last save.", "good");
    return true;
  }

  async undo() {
    if (this.isChanged) {
      this.put(this.saved);
      this.say("Your changes since the last save are gone.");
      return;
    }
    if (!this.newest) return;
    const answer = await this.ask(api.text(this.name, this.newest));
    if (!answer) return;
    this.put(answer.text);
    if (await this.save()) this.say("The file is as it was before the last save. Undo again to have that back.", "good");
  }

  async saveAndReplay() {
    if (!(await this.save())) return;
    const id = this.tools.replayed();
    if (id === null) {
      this.say("Saved. There is no request to repeat yet: send one.");
      return;
    }
    this.say("Saved. Replaying the last request; nothing is issued…");
    const answer = await this.ask(api.replay(id));
    if (!answer) return;
    this.say("Saved and replayed; the result is beside it.", "good");
    await this.tools.page.open([answer.id]);
  }

  /** The answer; null if it is a fault, which is shown. */
  async ask(answering) {
    for (const button of this.buttons) button.disabled = true;
    try {
      const answer = await answering;
      if (!answer.error) return answer;
      this.say(answer.error, "bad");
    } catch (fault) {
      this.say(failure(fault.status ?? 0), "bad");
    } finally {
      for (const button of this.buttons) button.disabled = false;
      this.buttons[2].disabled = !this.newest && !this.isChanged;
    }
    return null;
  }

  say(text, tone = "quiet") {
    this.said.replaceChildren(foreign(text, { tag: "span", "data-tone": tone }));
    if (tone !== "quiet") announce(text);
    return false;
  }
}
