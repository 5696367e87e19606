// Keeps every `<time>` element of the page up to date.

import { setTime } from "./time.js";

const EVERY = 30_000;

export function keepTimes() {
  const update = () => {
    if (document.hidden) return;
    for (const element of document.querySelectorAll("time[datetime]")) {
      // There may be thousands: update only the rendered ones.
      if (element.parentElement.checkVisibility?.({ contentVisibilityAuto: true }) !== false) setTime(element, element.dateTime);
    }
  };
  update();
  setInterval(update, EVERY);
  document.addEventListener("visibilitychange", update);
  document.addEventListener("contentvisibilityautostatechange", ({ target, skipped }) => {
    if (skipped) return;
    for (const element of target.querySelectorAll("time[datetime]")) setTime(element, element.dateTime);
  });
}
