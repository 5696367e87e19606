// The changes that others make. The tabs of a browser share one stream, held by
// a visible one: browsers limit the connections to a server.

import { report } from "./run.js";
import { Stream, SILENCE } from "./stream.js";
import { alone, canShare, channel, nobody } from "./tabs.js";

/**
 * Follows the events at `url` while the page is visible.
 *
 * @param on `changed(kind, todo)`, `counts(counts)`, `missed()` if changes may
 *   have been missed, and `state(connected)`
 */
export async function follow(url, on) {
  const isShared = await canShare();
  const lock = `stream ${url}`;
  let others = nobody;
  let stop = null;
  let isLeading = false;
  let watch = 0;

  const stream = new Stream(url, (message) => {
    hear(message);
    others.tell(message);
  });

  function hear(message) {
    try {
      take(message);
    } catch (error) {
      // The change is not on the page, but the list has it.
      report("live", error);
      on.missed();
    }
  }

  function take({ kind, data }) {
    if (kind === "hello") {
      if (isLeading && stream.isConnected) others.tell({ kind: "here" });
      return;
    }
    heard();
    if (kind === "lost") return on.state(false);
    // No event covers changes from before the connection or during a gap.
    if (kind === "open" || kind === "here" || kind === "reset") on.missed();
    else if (kind === "counts") on.counts(data);
    else if (kind === "created" || kind === "updated" || kind === "deleted") on.changed(kind, data);
    return on.state(true);
  }

  /** The tab that holds the stream may be stuck: after a silence, take over. */
  function heard() {
    clearTimeout(watch);
    if (isLeading) return;
    watch = setTimeout(() => {
      on.state(false);
      stop?.();
      run({ steal: true });
    }, SILENCE * 1.2);
  }

  /** Holds the stream as soon as no other tab does, while this one is visible. */
  async function lead(options = {}) {
    const giveUp = new AbortController();
    const end = new Promise((resolve) => {
      stop = () => {
        resolve();
        giveUp.abort();
      };
    });
    const mine = stop;
    const request = options.steal ? options : { signal: giveUp.signal };
    try {
      await alone(lock, request, async () => {
        isLeading = true;
        clearTimeout(watch);
        stream.open();
        await end;
      });
    } catch (error) {
      // We stopped waiting for it, or another tab took over.
      if (error.name !== "AbortError") throw error;
    } finally {
      if (stop === mine) {
        isLeading = false;
        stream.close();
      }
    }
    // Another tab took over while we are visible: queue up to take it back.
    if (stop === mine && !giveUp.signal.aborted && !document.hidden) return lead();
    return undefined;
  }

  function begin() {
    if (document.hidden || stop) return;
    if (isShared) {
      others = channel(lock, hear);
      others.tell({ kind: "hello" });
      heard();
    }
    run();
  }

  function run(options) {
    lead(options).catch((error) => report("live", error));
  }

  function pause() {
    clearTimeout(watch);
    stop?.();
    stop = null;
    isLeading = false;
    stream.close();
    others.close();
    others = nobody;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? pause() : begin()));
  addEventListener("pagehide", pause);
  addEventListener("pageshow", begin);
  addEventListener("online", () => stream.wake());
  begin();
}
