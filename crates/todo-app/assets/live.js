// The changes that others make. The tabs of a browser share one stream, which
// one of those in sight holds: browsers allow few connections to a server.

import { report } from "./run.js";
import { Stream, SILENCE } from "./stream.js";
import { alone, canShare, channel, nobody } from "./tabs.js";

/**
 * Follows the events at `url` while the page is in sight.
 *
 * @param on `changed(kind, todo)`, `counts(counts)`, `missed()` where changes
 *   may have been missed, and `state(connected)`
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
      // What it told is not on the page: the list tells it, too.
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
    // What came before, or while nobody looked, is in no event.
    if (kind === "open" || kind === "here" || kind === "reset") on.missed();
    else if (kind === "counts") on.counts(data);
    else if (kind === "created" || kind === "updated" || kind === "deleted") on.changed(kind, data);
    return on.state(true);
  }

  /** Who holds the stream may be stuck: then it is taken over. */
  function heard() {
    clearTimeout(watch);
    if (isLeading) return;
    watch = setTimeout(() => {
      on.state(false);
      stop?.();
      run({ steal: true });
    }, SILENCE * 1.2);
  }

  /** Holds the stream as soon as no other tab does, for as long as this one is in sight. */
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
      // It was not ours yet, or somebody took it over.
      if (error.name !== "AbortError") throw error;
    } finally {
      if (stop === mine) {
        isLeading = false;
        stream.close();
      }
    }
    // Taken over while in sight: it may have to be taken back one day.
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
