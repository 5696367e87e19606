// Points in time for people, in the words that the server uses, too.

const UNITS = [
  ["year", 365 * 24 * 3600],
  ["month", 30 * 24 * 3600],
  ["day", 24 * 3600],
  ["hour", 3600],
  ["minute", 60],
];
let format = null;

/** Without the formats of the browser in the one of RFC 3339: no row fails for its time. */
function exact(date) {
  try {
    format ??= new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "long" });
    return format.format(date);
  } catch {
    return date.toISOString();
  }
}

function relative(seconds) {
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? [];
  if (!unit) return seconds > 0 ? "in a moment" : "just now";
  const count = Math.trunc(Math.abs(seconds) / length);
  const words = `${count} ${unit}${count === 1 ? "" : "s"}`;
  return seconds > 0 ? `in ${words}` : `${words} ago`;
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
    element.title = exact(date);
  }
  const words = relative((date - Date.now()) / 1000);
  if (element.textContent !== words) element.textContent = words;
  // In the list it goes without saying what is of today.
  if ("age" in element.dataset) element.hidden = date.toDateString() === new Date().toDateString();
}
