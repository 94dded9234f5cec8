// The requests of the page to its gateway.  Each bears the token; a failure has a status and no words, which are ours.

import { token } from "./address.js";

export class Failed extends Error {
  constructor(status) {
    super(`status ${status}`);
    this.status = status;
  }
}

/** Ask; returns the response.  Throws `Failed` for a status that is not 200, and with 0 where nothing answers. */
export async function ask(path, { method = "GET", headers = {}, signal, body } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method, signal, body, cache: "no-store", credentials: "omit", redirect: "error",
      headers: { ...headers, Authorization: `Bearer ${token() ?? ""}` },
    });
  } catch (fault) {
    if (fault.name === "AbortError") throw fault;
    throw new Failed(0);
  }
  if (response.status !== 200) throw new Failed(response.status);
  return response;
}

const json = async (path, options) => (await ask(path, options)).json();

export const facts = () => json("/api/facts");
export const record = (id) => json(`/api/records/${id}`);
export const explained = (id) => json(`/api/records/${id}/explain`);
export const replay = (id) => json(`/api/replay/${id}`, { method: "POST" });


export const standing = () => json("/api/standing");
export const hand = (up) => json(`/api/hand/${up ? "up" : "down"}`, { method: "POST" });
export const labs = () => json("/api/labs");
export const lab = (number) => json(`/api/labs/${number}`);
export const doLab = (number, what) => json(`/api/labs/${number}/${what}`, { method: "POST" });
export const files = () => json("/api/files");
const query = (values) => new URLSearchParams(values).toString();
export const text = (name, version = null) => json(`/api/file?${query(version === null ? { name } : { name, version })}`);
export const saveText = (name, body, instead) => json(`/api/file?${query({ name, instead })}`, { method: "PUT", body });

/** A file of some records, or of all with an empty list. */
export async function file(format, ids) {
  const query = ids.length ? `&id=${ids.join(",")}` : "";
  return (await ask(`/api/export?format=${format}${query}`)).blob();
}
