// What a participant of a workshop has besides the list: a hand to raise, and an editor of the scripts.

import * as api from "./api.js";
import { announce } from "./copied.js";
import { byId, el, put } from "./dom.js";
import { failure } from "./words.js";

/** Fill the place for buttons. `tools` has `replayed()`, the id to repeat, and `page.open(ids)`. */
export function open(facts, tools) {
  const place = byId("desk");
  place.replaceChildren();
  if (facts.labs) place.append(panel("labs", "Labs", async (node) => new (await import("./labs.js")).Labs(node)));
  if (facts.edit) place.append(panel("editor", "Edit scripts", async (node) => new (await import("./editor.js")).Editor(node, tools)));
  if (facts.hand !== null) place.append(raising(facts.hand));
}

/** A button that opens a panel in the place of the list; the panel is made when it is first opened. */
function panel(id, words, make) {
  let made = null;
  const place = byId(id);
  const button = el("button", { type: "button", id: `open-${id}`, "aria-expanded": "false", "aria-controls": id }, words);
  const show = (open) => {
    place.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    put(button, open ? "Back to the list" : words);
    document.body.classList.toggle("editing", panels.some((each) => !byId(each.id).hidden));
  };
  button.addEventListener("click", async () => {
    const open = place.hidden;
    for (const each of panels) if (each.id !== id) each.show(false);
    show(open);
    if (!open) return;
    made ??= await make(place);
    made.show();
  });
  panels.push({ id, show });
  return button;
}

const panels = [];

function raising(hand) {
  let up = hand;
  const button = el("button", { type: "button", id: "hand", "aria-pressed": String(up) }, words(up));
  const show = () => {
    put(button, words(up));
    button.setAttribute("aria-pressed", String(up));
  };
  button.addEventListener("click", async () => {
    try {
      const answer = await api.hand(!up);
      up = answer.hand;
      announce(answer.error ?? (up ? "The trainer sees your raised hand" : "Your hand is down"));
    } catch (fault) {
      announce(failure(fault.status ?? 0));
    }
    show();
  });
  setInterval(async () => { // the trainer may have lowered it
    if (!up || document.hidden) return;
    try {
      up = (await api.facts()).hand;
      show();
    } catch {
      // the state of the connection is told by the stream of rows
    }
  }, 5_000);
  return button;
}

const words = (up) => (up ? "Lower your hand" : "Raise your hand");
