// Save records as a file: JSON as the gateway keeps them, or HAR 1.2.

import { file } from "./api.js";
import { announce } from "./copied.js";
import { el } from "./dom.js";
import { count, failure } from "./words.js";

export const MOST = 500; // ids of one export: the gateway takes no more

/** Save the records with these ids; an empty list is all. Returns a sentence. */
export async function save(format, ids, name) {
  try {
    const blob = await file(format, ids.slice(0, MOST));
    const link = el("a", { href: URL.createObjectURL(blob), download: `estgw-${name}.${format}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    announce(`estgw-${name}.${format}: saved`);
    return "";
  } catch (fault) {
    return failure(fault.status ?? 0);
  }
}

/** What the export of the list would hold. */
export function scope(store, filtered) {
  if (!filtered) return `All ${count(store.rows.length, "record")} that the gateway keeps.`;
  if (store.size > MOST) return `The newest ${MOST} of the ${store.size} that the filter shows.`;
  return `The ${count(store.size, "record")} that the filter shows.`;
}
