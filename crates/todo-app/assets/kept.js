// Small settings in the browser's storage, if available.

/**
 * The value stored under `name`; null if there is none or the browser refuses, as
 * it does with cookies blocked.
 */
export function read(name, area = "localStorage") {
  try {
    return globalThis[area].getItem(name);
  } catch {
    return null;
  }
}

/** Stores `value` if the browser allows it, and returns whether it did. */
export function keep(name, value, area = "localStorage") {
  try {
    globalThis[area].setItem(name, value);
    return true;
  } catch {
    return false;
  }
}
