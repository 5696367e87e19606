// The focus, and who moved it.

/** How long a person cannot have seen that the page moved something. */
export const SIGHT = 400;

let givenAt = -Infinity;
let givenTo = null;

/** Moves the focus where the person did not: keys do nothing there for a moment. */
export function give(element) {
  if (!element) return;
  givenAt = performance.now();
  givenTo = element;
  element.focus({ preventScroll: true });
}

/** Whether the person can have seen where the focus is. */
export const isSeen = () => document.activeElement !== givenTo || performance.now() - givenAt >= SIGHT;
