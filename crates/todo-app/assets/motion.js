// A little motion: rows make room and close ranks, and a new one glows once.

const TIME = 150;
/** More rows than this at once are a new list, not a change to this one. */
const FEW = 4;
/** How many rows below a change can be visible. */
const NEAR = 40;

const calm = matchMedia("(prefers-reduced-motion: reduce)");
let arrivals = [];
let changes = 0;

/** Counts the changes of this frame. */
function count() {
  if (changes === 0) requestAnimationFrame(animate);
  changes += 1;
  return changes <= FEW && !calm.matches && !document.hidden;
}

function animate() {
  const arrived = changes <= FEW ? arrivals : [];
  arrivals = [];
  changes = 0;
  for (const element of arrived) {
    if (!element.isConnected) continue;
    slide(element.nextElementSibling, -element.offsetHeight);
    element.animate(
      [{ opacity: 0, backgroundColor: "var(--accent-soft)" }, { backgroundColor: "var(--accent-soft)" }, {}],
      { duration: TIME, easing: "ease-out" },
    );
  }
}

/** Slides the rows from `element` on into place, from `pixels` below. */
function slide(element, pixels) {
  for (let row = element, near = 0; row && near < NEAR; row = row.nextElementSibling, near += 1) {
    row.animate([{ translate: `0 ${pixels}px` }, { translate: "0" }], { duration: TIME, easing: "ease-out" });
  }
}

/** `element` was added to the list. */
export function arrived(element) {
  if (count()) arrivals.push(element);
}

/** `element` is about to be removed from the list. */
export function leaving(element) {
  if (count()) slide(element.nextElementSibling, element.offsetHeight);
}
