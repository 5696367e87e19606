// One connection to the stream of changes, watched.

import { Pauses } from "./pause.js";
import { report } from "./run.js";

/** How long the stream may be silent: it has a heartbeat every 10 seconds, and two may get lost. */
export const SILENCE = 25_000;

/** What the stream tells; `heartbeat` says nothing but that it is alive. */
const KINDS = ["created", "updated", "deleted", "counts", "reset", "heartbeat"];

/** An event; one that cannot be read is a change that was missed. */
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

  /** @param {(message: {kind: string, data?: any}) => void} tell also of `open` and `lost` */
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
      // The browser reconnects by itself, but not after an answer of failure.
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

  /** Connects at once where it waits for its next try. */
  wake() {
    this.#pauses.wake();
  }

  #end() {
    clearTimeout(this.#watch);
    this.#source?.close();
    this.#source = null;
  }

  /** A connection that nobody has closed may still be dead. */
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
