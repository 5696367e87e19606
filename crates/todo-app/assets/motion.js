// A little motion: rows make room and close ranks, and a new one glows once.

const TIME = 150;
/** More rows than this at once are another list, not a change of this one. */
const FEW = 4;
/** How many rows below a change can be in sight. */
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

/** Moves the rows from `element` on to where they are, from `pixels` below it. */
function slide(element, pixels) {
  for (let row = element, near = 0; row && near < NEAR; row = row.nextElementSibling, near += 1) {
    row.animate([{ translate: `0 ${pixels}px` }, { translate: "0" }], { duration: TIME, easing: "ease-out" });
  }
}

/** `element` has come into the list. */
export function arrived(element) {
  if (count()) arrivals.push(element);
}

/** `element` is about to leave the list. */
export function leaving(element) {
  if (count()) slide(element.nextElementSibling, element.offsetHeight);
}
