// Parts of the page that fail alone.

/**
 * Says that a part went wrong: on the console for people, and as a `report`
 * event on the window with `{part, error}` for programs.
 */
export function report(part, error) {
  console.error(`${part}:`, error);
  tell(part, error);
}

const tell = (part, error) => dispatchEvent(new CustomEvent("report", { detail: { part, error } }));

// What goes wrong after the start is on the console by itself.
addEventListener("error", ({ error, message }) => tell("page", error ?? message));
addEventListener("unhandledrejection", ({ reason }) => tell("page", reason));

/**
 * Starts a part of the page. What goes wrong in it, a file that does not load
 * included, is reported and costs only the part itself.
 *
 * @template T
 * @param {string} part
 * @param {() => T | Promise<T>} begin
 * @returns {Promise<T | null>} what the part has for others; null where it failed
 */
export async function start(part, begin) {
  try {
    return await begin();
  } catch (error) {
    report(part, error);
    return null;
  }
}
