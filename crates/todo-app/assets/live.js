// The stream of changes that others make.

import { Pauses } from "./pause.js";

/**
 * Follows the events at `url` while the page is in sight, so that tabs in the
 * background do not use up the connections of the browser.
 *
 * @param on `changed(kind, todo)`, `missed()` where changes may have been
 *   missed, and `state(connected)`
 */
export function follow(url, on) {
  const pauses = new Pauses();
  let source = null;
  let tries = 0;
  let seen = false;

  function open() {
    if (source || document.hidden) return;
    source = new EventSource(url);
    source.addEventListener("open", () => {
      tries = 0;
      if (seen) on.missed();
      seen = true;
      on.state(true);
    });
    source.addEventListener("error", () => {
      on.state(false);
      // The browser reconnects by itself, but not after an answer of failure.
      if (source?.readyState === EventSource.CLOSED) reopen();
    });
    source.addEventListener("counts", (event) => on.counts(JSON.parse(event.data)));
    source.addEventListener("reset", () => on.missed());
    for (const kind of ["created", "updated", "deleted"]) {
      source.addEventListener(kind, (event) => on.changed(kind, JSON.parse(event.data)));
    }
  }

  function close() {
    source?.close();
    source = null;
  }

  async function reopen() {
    close();
    seen = true;
    tries += 1;
    await pauses.wait(tries);
    open();
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
    } else {
      pauses.wake();
      open();
    }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  addEventListener("online", () => pauses.wake());
  open();
}
