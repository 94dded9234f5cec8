// What stands behind # in the page's address: once the token, afterwards the filter and the open record.
// It never leaves the browser, unlike a query.  The token moves to sessionStorage, which belongs to this tab alone.

const KEY = "estgw-token";
const TOKEN = /^[0-9a-f]{32}$/;

export function token() {
  const given = location.hash.slice(1);
  if (TOKEN.test(given)) keepToken(given);
  return sessionStorage.getItem(KEY);
}

export function keepToken(value) {
  sessionStorage.setItem(KEY, value.trim());
  history.replaceState(null, "", location.pathname);
}

/** The token in a pasted text, which may be the whole link; null if there is none. */
export function tokenIn(text) {
  const found = text.trim().split("#").pop();
  return TOKEN.test(found) ? found : null;
}

export const isToken = () => TOKEN.test(location.hash.slice(1));

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

/** Filter and ids; two ids are a comparison. */
export function read() {
  const found = new URLSearchParams(location.hash.slice(1));
  const ids = (found.get("id") ?? "").split(",").filter((id) => /^[0-9a-f]{1,32}$/.test(id)).slice(0, 2);
  return { filter: found.get("q") ?? "", ids };
}

/** `push` makes a step for the browser's Back. */
export function write({ filter, ids }, push = false) {
  const made = new URLSearchParams();
  if (filter) made.set("q", filter);
  if (ids.length) made.set("id", ids.join(","));
  const text = made.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  const address = text ? `#${text}` : location.pathname;
  if (push) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}
