// Lets the page open offline and be installed.

/** Registers the service worker of the page's own environment. */
export async function openOffline() {
  // Unavailable without TLS, and in browsers that block storage.
  if (!navigator.serviceWorker) return;
  const address = new URL("../sw.js", import.meta.url);
  const scope = new URL("./", address).pathname;
  // A worker's scope is its folder, which ends with a slash.
  if (`${location.pathname}/` === scope) history.replaceState(history.state, "", scope + location.search);
  try {
    await navigator.serviceWorker.register(address, { scope, updateViaCache: "none" });
  } catch (error) {
    // Browsers that block storage refuse this; an unreachable server is asked next time.
    if (error.name !== "SecurityError" && error.name !== "NotSupportedError" && !(error instanceof TypeError)) throw error;
  }
}
