// The buttons above a record: replay, compare, copy, save.

import { replay as askReplay } from "./api.js";
import { announce, copied } from "./copied.js";
import * as copy from "./copy.js";
import { byId, el, foreign } from "./dom.js";
import { save } from "./export.js";
import { raw } from "./sections.js";
import { failure } from "./words.js";

/** The buttons of a record, and a place below them for what they say. `page` has `open(id)` and `startCompare()`. */
export function bar(record, facts, page) {
  const said = el("div", { class: "said" });
  const show = (...nodes) => said.replaceChildren(...nodes.flat(2).filter(Boolean));
  const isRequest = Boolean(record.request?.line);
  const button = (text, onclick, kind = null) => el("button", { type: "button", class: kind, onclick }, text);
  const copying = (text, make) => button(text, async (event) => {
    shut(event);
    const command = make(record, facts);
    const went = await copied(command, text);
    show(el("p", { class: "quiet" }, went ? "Copied:" : "The browser does not allow copying here; select the text:"), raw(command));
  });
  const saving = (text, format) => button(text, async (event) => {
    shut(event);
    const fault = await save(format, [record.id], record.id);
    show(fault ? el("p", { role: "alert" }, fault) : null);
  });
  return el("div", { class: "actions" },
    el("div", { class: "buttons" },
      el("button", { type: "button", class: "back", onclick: () => page.close() }, "Back to the list"),
      facts.replay && isRequest && !record.request.cut ? button("Replay", (event) => replay(record, event.target, show, page), "main") : null,
      button("Compare with…", () => page.startCompare()),
      record.of ? button("Compare with its origin", () => page.open([record.of, record.id])) : null,
      isRequest ? copying("Copy as curl", copy.curl) : null,
      isRequest && record.operation ? copying("Copy as estgw run", copy.run) : null,
      el("details", { class: "menu" }, el("summary", {}, "More…"), el("div", { class: "menu-items" },
        isRequest && record.operation ? copying("Copy as estgw replay", copy.replay) : null,
        saving("Save as JSON", "json"),
        isRequest ? saving("Save as HAR 1.2", "har") : null))),
    said);
}

/** Close the menu that a button stands in, if it stands in one. */
function shut(event) {
  const menu = event.target.closest("details");
  if (menu) menu.open = false;
}

async function replay(record, button, show, page) {
  button.disabled = true;
  show(el("p", { class: "quiet" }, "Replaying; nothing is issued…"));
  try {
    const { id, error } = await askReplay(record.id);
    if (error) {
      show(foreign(error, { tag: "p", role: "alert", class: "hint", "data-tone": "bad" }));
      return;
    }
    announce("Replayed; the new row is open");
    await page.open([id]);
    byId("detail").querySelector("h2")?.focus();
  } catch (fault) {
    show(el("p", { role: "alert", class: "hint", "data-tone": "bad" }, failure(fault.status ?? 0)));
  } finally {
    button.disabled = false;
  }
}
