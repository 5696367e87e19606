// Which part of the list is looked at, as the address of the page says it.

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
export function addressOf({ filter, search }) {
  const query = new URLSearchParams();
  if (filter !== "all") query.set("filter", filter);
  if (search) query.set("q", search);
  return query.size > 0 ? `?${query}` : location.pathname;
}

/** Whether `item` belongs there; the server has the last word about a search. */
export const belongs = (item, { filter, search }) =>
  (filter === "all" || item.completed === (filter === "completed")) &&
  (!search || item.text.toLowerCase().includes(search.toLowerCase()));

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
  // While it is typed, it may end with a space.
  if (field && field.value.trim() !== search) field.value = search;
  const found = document.getElementById("found");
  if (found) {
    found.hidden = !search;
    found.querySelector("bdi").textContent = search;
    found.querySelector("a").href = addressOf({ filter, search: "" });
  }
}

/**
 * Goes to other places without leaving the page.
 *
 * @param {(place: Place) => void} arrive
 * @returns {(place: Place, replace?: boolean) => void}
 */
export function useAddress(arrive) {
  const go = (place, replace = false) => {
    const here = placeOf(location.href);
    if (place.filter !== here.filter || place.search !== here.search) {
      history[replace ? "replaceState" : "pushState"](null, "", addressOf(place));
    }
    arrive(place);
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-filter], #found a");
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(placeOf(link.href));
  });
  addEventListener("popstate", () => arrive(placeOf(location.href)));
  return go;
}
