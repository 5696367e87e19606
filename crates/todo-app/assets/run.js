// Parts of the page that fail independently.

/**
 * Reports that a part failed: on the console for people, and as a `report` event
 * on the window with `{part, error}` for programs.
 */
export function report(part, error) {
  console.error(`${part}:`, error);
  tell(part, error);
}

const tell = (part, error) => dispatchEvent(new CustomEvent("report", { detail: { part, error } }));

// The browser itself logs what fails after the start.
addEventListener("error", ({ error, message }) => tell("page", error ?? message));
addEventListener("unhandledrejection", ({ reason }) => tell("page", reason));

/**
 * Starts a part of the page. A failure in it, such as a file that does not load,
 * is reported and affects only the part itself.
 *
 * @template T
 * @param {string} part
 * @param {() => T | Promise<T>} begin
 * @returns {Promise<T | null>} what the part offers to others; null if it failed
 */
export async function start(part, begin) {
  try {
    return await begin();
  } catch (error) {
    report(part, error);
    return null;
  }
}
