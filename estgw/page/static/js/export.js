// Save records as a file: JSON as the gateway keeps them, or HAR 1.2.

import { file } from "./api.js";
import { announce } from "./copied.js";
import { el } from "./dom.js";
import { failure } from "./words.js";

/** Save the records with these ids; an empty list is all. Returns a sentence. */
export async function save(format, ids, name) {
  try {
    const blob = await file(format, ids);
    const link = el("a", { href: URL.createObjectURL(blob), download: `estgw-${name}.${format}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    announce(`estgw-${name}.${format}: saved`);
    return "";
  } catch (fault) {
    return failure(fault.status ?? 0);
  }
}
