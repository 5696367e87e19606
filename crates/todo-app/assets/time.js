// Points in time for people, in the same words as the server's.

const UNITS = [
  ["year", 365 * 24 * 3600],
  ["month", 30 * 24 * 3600],
  ["day", 24 * 3600],
  ["hour", 3600],
  ["minute", 60],
];
let format = null;

/** Falls back to RFC 3339 without `Intl`, so that no row fails because of its time. */
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

/** Makes a `<time>` element show `at` (RFC 3339), or nothing if it is not a date. */
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
  // The list does not show times of today.
  if ("age" in element.dataset) element.hidden = date.toDateString() === new Date().toDateString();
}
