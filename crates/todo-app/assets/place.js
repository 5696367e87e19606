// Which part of the list is shown, as in the URL of the page.

import { oneLine } from "./text.js";

/** @typedef {{filter: string, search: string}} Place */

/** @returns {Place} */
export function placeOf(address) {
  const query = new URL(address, location.href).searchParams;
  const filter = query.get("filter");
  return {
    filter: filter === "active" || filter === "completed" ? filter : "all",
    search: (query.get("q") ?? "").trim(),
  };
}

/** @param {Place} place */
function addressOf({ filter, search }) {
  const query = new URLSearchParams();
  if (filter !== "all") query.set("filter", filter);
  if (search) query.set("q", search);
  return query.size > 0 ? `?${query}` : location.pathname;
}

/** `text` case-folded as on the server: ß equals ss, and ς equals Σ. */
const folded = (text) => Array.from(oneLine(text).toUpperCase(), (letter) => letter.toLowerCase()).join("");

/** Whether `item` belongs to that part. */
export const belongs = (item, { filter, search }) =>
  (filter === "all" || item.completed === (filter === "completed")) &&
  (!search || folded(item.text).includes(folded(search)));

/** Shows `place` in the links, the field and the words of an empty list. */
export function showPlace({ filter, search }) {
  for (const link of document.querySelectorAll("[data-filter]")) {
    if (link.dataset.filter === filter) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    link.href = addressOf({ filter: link.dataset.filter, search });
  }
  const words = search && document.querySelector("[data-empty=search]") ? "search" : filter;
  for (const text of document.querySelectorAll("[data-empty]")) text.hidden = text.dataset.empty !== words;
  const field = document.getElementById("search");
  // While typed, it may end with a space.
  if (field && field.value.trim() !== search) field.value = search;
  const found = document.getElementById("found");
  if (found) {
    found.hidden = !search;
    found.querySelector("bdi").textContent = search;
    found.querySelector("a").href = addressOf({ filter, search: "" });
  }
}

/**
 * Shows `place` in the URL, as a new history entry unless it is to `replace` the
 * current one or the URL is already the same.
 */
export function setAddress(place, replace = false) {
  const here = placeOf(location.href);
  const isHere = place.filter === here.filter && place.search === here.search;
  if (isHere && !replace) return;
  try {
    history[replace ? "replaceState" : "pushState"](null, "", addressOf(place));
  } catch {
    // Browsers limit the rate (WebKit: 100 in 30 s); the list changes all the same.
  }
}

/**
 * Goes to other places without leaving the page.
 *
 * @param {(place: Place) => void} go where a link leads
 * @param {(place: Place) => void} arrive where Back and Forward lead
 */
export function useAddress(go, arrive) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-filter], #found a");
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(placeOf(link.href));
  });
  addEventListener("popstate", () => arrive(placeOf(location.href)));
}
