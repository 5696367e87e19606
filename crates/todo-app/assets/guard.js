// One press does one thing: repeated presses are ignored, and so are those that
// hit something that moved under a resting pointer.

import { isSeen, SIGHT } from "./focus.js";

/** How far a resting pointer may move. */
const REST = 6;

/** @param {HTMLElement[]} places where things move by themselves */
export function guardPresses(places) {
  let movedAt = -Infinity;
  let pointer = { x: -1000, y: -1000, at: -Infinity };

  const note = (event) => {
    if (Math.hypot(event.clientX - pointer.x, event.clientY - pointer.y) < REST) return;
    pointer = { x: event.clientX, y: event.clientY, at: performance.now() };
  };
  addEventListener("pointermove", note, { capture: true, passive: true });
  addEventListener("pointerdown", note, { capture: true, passive: true });

  /** What identifies `node` to a person: the keys of its rows, or itself. */
  const namesOf = (node, target) => {
    if (node.nodeType !== Node.ELEMENT_NODE || target.closest?.(".todo")) return [];
    const rows = node.matches(".todo") ? [node] : [...node.querySelectorAll(".todo")];
    if (rows.length > 0 || target.closest?.("#todos")) return rows.map((row) => row.dataset.key);
    return [node];
  };
  const observer = new MutationObserver((changes) => {
    // An element that is replaced in place, as by a reload of the list, does not move.
    const balance = new Map();
    for (const { target, addedNodes, removedNodes } of changes) {
      const count = (nodes, by) => {
        for (const node of nodes) for (const name of namesOf(node, target)) balance.set(name, (balance.get(name) ?? 0) + by);
      };
      count(addedNodes, 1);
      count(removedNodes, -1);
    }
    if ([...balance.values()].some((sum) => sum !== 0)) movedAt = performance.now();
  });
  for (const place of places) observer.observe(place, { childList: true, subtree: true });

  const isControl = (element) => element.closest("button, [role=checkbox], a[href]");
  const swallow = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  document.addEventListener(
    "click",
    (event) => {
      if (event.detail === 0 || !isControl(event.target)) return;
      const moved = performance.now() - movedAt < SIGHT && pointer.at < movedAt;
      const movable = places.some((place) => place.contains(event.target));
      if (event.detail > 1 || (moved && movable)) swallow(event);
    },
    true,
  );

  document.addEventListener(
    "keydown",
    (event) => {
      const presses = event.key === "Enter" || event.key === " ";
      if (!presses || event.isComposing) return;
      const isField = event.target.matches?.("input, textarea");
      if (event.repeat && (!isField || event.key === "Enter")) swallow(event);
      else if (!isField && !isSeen() && isControl(event.target)) swallow(event);
    },
    true,
  );
}
