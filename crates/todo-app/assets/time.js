// Points in time for people, in the words that the server uses too.

const UNITS = [
  ["year", 365 * 24 * 3600],
  ["month", 30 * 24 * 3600],
  ["day", 24 * 3600],
  ["hour", 3600],
  ["minute", 60],
];
const RELATIVE = new Intl.RelativeTimeFormat("en");
const EXACT = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "long" });

function relative(seconds) {
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return RELATIVE.format(Math.trunc(seconds / length), unit);
  }
  return seconds > 0 ? "in a moment" : "just now";
}

/** Makes a `<time>` element say when `at` (RFC 3339) is, or nothing where it is no date. */
export function setTime(element, at) {
  const date = new Date(at ?? "");
  if (Number.isNaN(date.getTime())) {
    element.removeAttribute("datetime");
    element.removeAttribute("title");
    element.textContent = "";
    return;
  }
  if (element.dateTime !== at || !element.title) {
    element.dateTime = at;
    element.title = EXACT.format(date);
  }
  const words = relative((date - Date.now()) / 1000);
  if (element.textContent !== words) element.textContent = words;
  // In the list it goes without saying what is of today.
  if ("age" in element.dataset) element.hidden = date.toDateString() === new Date().toDateString();
}
