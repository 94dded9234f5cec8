// The sheet of a lab: the few kinds of Markdown that sheets have, as nodes.  Nothing of it becomes markup.

import { copied } from "./copied.js";
import { el, foreign, sentence } from "./dom.js";

/** The nodes of a sheet. */
export function sheet(text) {
  const lines = text.split("\n");
  const root = [];
  let into = root;
  while (lines.length) {
    const line = lines.shift();
    const fold = /^<summary>(.*)<\/summary>$/.exec(line);
    if (line.startsWith("```")) into.push(block(until(lines, (next) => next.startsWith("```")), line === "```"));
    else if (line.startsWith("#")) into.push(el("h2", {}, sentence(line.replace(/^#+ /, ""))));
    else if (line === "<details>") into = [];
    else if (fold) into.push(el("summary", {}, sentence(fold[1])));
    else if (line === "</details>") {
      root.push(el("details", {}, into));
      into = root;
    } else if (line.trim()) {
      const end = lines.findIndex((next) => /^(```|#|<|\s*$)/.test(next));
      into.push(el("p", {}, sentence([line, ...lines.splice(0, end < 0 ? lines.length : end)].join(" "))));
    }
  }
  return root;
}

/** The lines before the one that ends a block, which is taken, too. */
function until(lines, isEnd) {
  const end = lines.findIndex(isEnd);
  const found = lines.splice(0, end < 0 ? lines.length : end);
  lines.shift();
  return found.join("\n");
}

function block(text, isOutput) {
  const copy = el("button", { type: "button", onclick: () => copied(`${text}\n`, "The commands") }, "Copy");
  return el("div", { class: isOutput ? "block output" : "block" }, foreign(text, { tag: "pre", lines: true }), isOutput ? null : copy);
}
