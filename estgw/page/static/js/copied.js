// The clipboard, and what the one live region says.

import { byId } from "./dom.js";

let timer;

/** Say something to people who can't see the change; the newest sentence wins. */
export function announce(text) {
  clearTimeout(timer);
  timer = setTimeout(() => (byId("announce").textContent = text), 100);
}

/** Copy a text, and say so; whether it went. */
export async function copied(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    announce(`${what}: copied`);
    return true;
  } catch {
    announce(`${what}: the browser does not allow copying; select the text`);
    return false;
  }
}
