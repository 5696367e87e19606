// Coordination between the tabs of a browser. Without Web Locks (no TLS, or a
// browser that refuses) each tab is on its own.

/**
 * Runs `work` while no other tab runs work of the same `name`.
 *
 * @template T
 * @param {LockOptions} options
 * @param {(lock: Lock | null) => Promise<T>} work
 */
export async function alone(name, options, work) {
  let started = false;
  try {
    return await navigator.locks.request(name, options, (lock) => {
      started = true;
      return work(lock);
    });
  } catch (error) {
    if (started || error.name === "AbortError") throw error;
    return work({ name, mode: "exclusive" });
  }
}

/** Whether tabs can coordinate. */
export async function canShare() {
  try {
    await navigator.locks.query();
    return typeof BroadcastChannel === "function";
  } catch {
    return false;
  }
}

/** A channel without other tabs. */
export const nobody = { tell() {}, close() {} };

/**
 * A channel to the other tabs; without support for one, messages go nowhere.
 *
 * @param {(message: any) => void} heard
 */
export function channel(name, heard) {
  try {
    const others = new BroadcastChannel(name);
    others.onmessage = ({ data }) => heard(data);
    return { tell: (message) => others.postMessage(message), close: () => others.close() };
  } catch {
    return nobody;
  }
}
