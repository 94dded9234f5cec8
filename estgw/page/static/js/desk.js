// What a participant of a workshop has besides the list: a hand to raise, and an editor of the scripts.

import * as api from "./api.js";
import { announce } from "./copied.js";
import { byId, el, put } from "./dom.js";
import { failure } from "./words.js";

/** Fill the place for buttons. `tools` has `replayed()`, the id to repeat, and `page.open(ids)`. */
export function open(facts, tools) {
  const place = byId("desk");
  place.replaceChildren();
  if (facts.edit) place.append(editing(tools));
  if (facts.hand !== null) place.append(raising(facts.hand));
}

function editing(tools) {
  let editor = null;
  const button = el("button", { type: "button", id: "edit", "aria-expanded": "false", "aria-controls": "editor" }, "Edit scripts");
  button.addEventListener("click", async () => {
    const place = byId("editor");
    place.hidden = !place.hidden;
    document.body.classList.toggle("editing", !place.hidden);
    button.setAttribute("aria-expanded", String(!place.hidden));
    put(button, place.hidden ? "Edit scripts" : "Back to the list");
    if (place.hidden) return;
    const { Editor } = await import("./editor.js");
    editor ??= new Editor(place, tools);
    editor.show();
  });
  return button;
}

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
