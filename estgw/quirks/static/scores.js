// Shows /scores, and again every two seconds.  What comes from peers is set by textContent alone.

const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const clients = document.getElementById("clients");
const state = document.getElementById("state");
const template = document.getElementById("client");
let shown = "";

function visible(text) {
  return text.replace(INVISIBLE, (char) => `\\u{${char.codePointAt(0).toString(16)}}`);
}

function row(quirk, found) {
  const line = document.createElement("tr");
  line.dataset.verdict = found.verdict;
  const good = found.verdict === "fail" ? `${quirk.client} (${quirk.clause}): ${quirk.why}` : quirk.client;
  const words = [found.verdict, quirk.quirk, quirk.server, good, found.evidence.join("; ")];
  for (const text of words) {
    const cell = document.createElement("td");
    cell.textContent = visible(text);
    line.append(cell);
  }
  return line;
}

function section(client, quirks) {
  const made = template.content.cloneNode(true);
  made.querySelector("h2").textContent = visible(client.client);
  const tried = quirks.filter((quirk) => quirk.quirk in client.verdicts);
  made.querySelector("tbody").append(...tried.map((quirk) => row(quirk, client.verdicts[quirk.quirk])));
  return made;
}

async function refresh() {
  try {
    const answer = await fetch("/scores");
    const text = await answer.text();
    if (text !== shown) {
      shown = text;
      const scores = JSON.parse(text);
      clients.replaceChildren(...scores.clients.map((client) => section(client, scores.quirks)));
      state.textContent = scores.clients.length === 1 ? "1 client" : `${scores.clients.length} clients`;
    }
  } catch {
    shown = "";
    state.textContent = "the server does not answer; trying again";
  }
  setTimeout(refresh, 2000);
}

refresh();
