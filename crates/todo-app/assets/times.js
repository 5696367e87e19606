// Keeps every `<time>` element of the page true.

import { setTime } from "./time.js";

const EVERY = 30_000;

export function keepTimes() {
  const update = () => {
    if (document.hidden) return;
    for (const element of document.querySelectorAll("time[datetime]")) setTime(element, element.dateTime);
  };
  update();
  setInterval(update, EVERY);
  document.addEventListener("visibilitychange", update);
}
