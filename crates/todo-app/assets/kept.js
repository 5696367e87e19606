// Small settings that the browser keeps, where it may.

/**
 * What was kept under `name`; null where nothing was, or the browser refuses,
 * as it does with cookies blocked.
 */
export function read(name, area = "localStorage") {
  try {
    return globalThis[area].getItem(name);
  } catch {
    return null;
  }
}

/** Keeps `value` where the browser allows it, and tells whether it did. */
export function keep(name, value, area = "localStorage") {
  try {
    globalThis[area].setItem(name, value);
    return true;
  } catch {
    return false;
  }
}
