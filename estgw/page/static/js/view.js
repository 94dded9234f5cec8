// What draws an open record.  The list is there before this is loaded.

export { bar as actions } from "./actions.js";
export * as comparison from "./compare.js";
export * as detail from "./detail.js";
