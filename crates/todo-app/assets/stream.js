// One connection to the stream of changes, with a watchdog.

import { Pauses } from "./pause.js";
import { report } from "./run.js";

/** How long the stream may be silent: it has a heartbeat every 10 s, of which two may be lost. */
export const SILENCE = 25_000;

/** The kinds of events; a `heartbeat` only shows that the stream is alive. */
const KINDS = ["created", "updated", "deleted", "counts", "reset", "heartbeat"];

/** Parses an event; an unreadable one counts as a missed change. */
function read(kind, data) {
  try {
    return { kind, data: JSON.parse(data) };
  } catch (error) {
    report("stream", error);
    return { kind: "reset" };
  }
}

export class Stream {
  #url;
  #tell;
  #source = null;
  #tries = 0;
  #watch = 0;
  #pauses = new Pauses();
  #wanted = false;

  /** @param {(message: {kind: string, data?: any}) => void} tell gets `open` and `lost`, too */
  constructor(url, tell) {
    this.#url = url;
    this.#tell = tell;
  }

  get isConnected() {
    return this.#source?.readyState === EventSource.OPEN;
  }

  open() {
    this.#wanted = true;
    if (this.#source) return;
    const source = new EventSource(this.#url);
    this.#source = source;
    source.addEventListener("open", () => {
      this.#tries = 0;
      this.#heard();
      this.#tell({ kind: "open" });
    });
    source.addEventListener("error", () => {
      this.#tell({ kind: "lost" });
      // The browser reconnects automatically, but not after an error response.
      if (source.readyState === EventSource.CLOSED) this.#reopen();
    });
    for (const kind of KINDS) {
      source.addEventListener(kind, ({ data }) => {
        this.#heard();
        this.#tell(read(kind, data));
      });
    }
    this.#heard();
  }

  close() {
    this.#wanted = false;
    this.#end();
  }

  /** Reconnects at once instead of waiting for the next try. */
  wake() {
    this.#pauses.wake();
  }

  #end() {
    clearTimeout(this.#watch);
    this.#source?.close();
    this.#source = null;
  }

  /** Restarts the watchdog: a connection that was never closed may still be dead. */
  #heard() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      this.#tell({ kind: "lost" });
      this.#reopen();
    }, SILENCE);
  }

  async #reopen() {
    this.#end();
    this.#tries += 1;
    await this.#pauses.wait(this.#tries);
    if (this.#wanted) this.open();
  }
}
