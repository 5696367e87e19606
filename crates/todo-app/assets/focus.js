// The focus, and who moved it.

/** How long it takes a person to notice that the page moved something. */
export const SIGHT = 400;

let givenAt = -Infinity;
let givenTo = null;

/** Moves the focus programmatically: keys do nothing there for a moment. */
export function give(element) {
  if (!element) return;
  givenAt = performance.now();
  givenTo = element;
  element.focus({ preventScroll: true });
}

/** Whether the person has had time to notice the focus. */
export const isSeen = () => document.activeElement !== givenTo || performance.now() - givenAt >= SIGHT;
