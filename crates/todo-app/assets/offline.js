// Makes the page open without a connection, and fit to be installed.

/** Registers the service worker of the page's own environment. */
export async function openOffline() {
  // Not there without TLS, nor where the browser keeps nothing for the page.
  if (!navigator.serviceWorker) return;
  const address = new URL("../sw.js", import.meta.url);
  const scope = new URL("./", address).pathname;
  // The worker answers for what is below its folder, and that has a slash at its end.
  if (`${location.pathname}/` === scope) history.replaceState(history.state, "", scope + location.search);
  try {
    await navigator.serviceWorker.register(address, { scope, updateViaCache: "none" });
  } catch (error) {
    // A browser that refuses storage refuses this; a server that is away is asked again.
    if (error.name !== "SecurityError" && error.name !== "NotSupportedError" && !(error instanceof TypeError)) throw error;
  }
}
