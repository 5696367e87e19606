// What the person changed and the server does not have yet.
//
// Each change is stored in the browser's database before it is sent, so that it
// outlives the page. The tabs of a browser share one queue, and one tab at a
// time sends it, in order. A change whose response was lost is sent again and
// still takes effect once: a new todo carries a key, a text its ETag.

import { Refused, Unreachable } from "./api.js";
import { Pauses } from "./pause.js";
import { report } from "./run.js";
import { Sender } from "./sender.js";
import { alone, channel } from "./tabs.js";

/** How many changes may wait. */
const LIMIT = 5_000;
/** How often to reread the stored queue if it changes meanwhile. */
const READ_TRIES = 5;

/**
 * @typedef {object} Change
 * @property {string} id names it, and is the idempotency key of what it creates
 * @property {number} [seq] its place in the queue; none if it could not be stored
 * @property {"add" | "text" | "tick" | "remove" | "restore" | "clear" | "all"} kind
 * @property {number | string} item the todo, or the change that creates it
 * @property {number[]} [items] the todos of a bulk change
 * @property {{id: number, version?: number}[]} [todos] the same, as they were seen
 * @property {string} [text] the new text
 * @property {boolean} [completed] the new state
 * @property {{text: string, completed: boolean}} [was] what the person saw
 * @property {number} [due] when it may be sent, in milliseconds since 1970
 * @property {boolean} [tried] it may have arrived
 * @property {boolean} [again] it was sent more than once: a response was lost
 * @property {{why: string, message?: string, theirs?: string}} [held] why it waits for the person; only a
 *   text does
 */

/** A unique name; works without `crypto.randomUUID`, which needs a secure context. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Queue {
  /** @type {Change[]} */
  #ops = [];
  #version = 0;
  #db;
  #name;
  #on;
  #sender;
  #others;
  #pauses = new Pauses();
  #timer = 0;
  #running = false;
  #again = false;
  #failure = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./database.js").Database} db with a store `ops`
   * @param {string} name of the queue, one for each list
   * @param on `changed()`; `sent(change, todo, todos)` with what the server has
   *   now, null if it no longer has it; `found(todo)`, which conflicts with a
   *   change; `refused(change, message)`, which is reverted
   */
  constructor(api, db, name, on) {
    this.#name = name;
    this.#on = on;
    this.#sender = new Sender(api);
    this.#db = db;
    this.#others = channel(name, (message) => this.#hear(message));
  }

  /** The changes that wait, the oldest first. */
  get changes() {
    return this.#ops;
  }

  /** Why the last try failed; null where it did not. */
  get failure() {
    return this.#failure;
  }

  /** Whether every change that waits would outlive the page. */
  get isKept() {
    return this.#ops.every((op) => op.seq !== undefined);
  }

  get isFull() {
    return this.#ops.length >= LIMIT;
  }

  find(id) {
    return this.#ops.find((op) => op.id === id);
  }

  /** Loads what earlier pages left, and sends it. */
  async resume() {
    await this.#load();
    this.kick();
  }

  /** Adds a change and sends it once it is due. */
  put(change) {
    const op = { id: newId(), due: 0, tried: false, ...change };
    op.item ??= op.id;
    this.#ops.push(op);
    this.#changed();
    this.#keep(op).then(() => this.kick());
    return op;
  }

  /** Amends a waiting change. */
  amend(op, difference) {
    Object.assign(op, difference);
    this.#changed();
    this.#write((store) => store.put(op), op);
    this.kick();
  }

  /** Cancels changes that the server does not have yet. */
  cancel(...ops) {
    this.#forget(ops);
  }

  /** Sends what is due and retries what failed, without waiting. */
  kick() {
    this.#plan();
    this.#again = true;
    this.#pauses.wake();
    if (!this.#running) this.#run().catch((error) => report("queue", error));
  }

  /**
   * Sends at once what waits, as the page may be about to close; each change
   * stays in the queue until its response arrives.
   */
  hurry() {
    for (const op of this.#ops) {
      if (op.due > Date.now() && !op.held && (op.items || typeof op.item === "number")) {
        this.#sender.removeLast(op);
        this.amend(op, { due: 0, tried: true });
      } else if (op.due > 0) {
        this.amend(op, { due: 0 });
      }
    }
  }

  async #run() {
    this.#running = true;
    try {
      for (let tries = 0; this.#again; ) {
        this.#again = false;
        const { failure, progress } = await alone(`${this.#name} sender`, {}, () => this.#round());
        this.#setFailure(failure);
        if (!failure) continue;
        tries = progress ? 1 : tries + 1;
        this.#again = true;
        await this.#pauses.wait(tries, failure.wait);
      }
    } finally {
      this.#running = false;
    }
  }

  /** Sends what can be sent; the changes of one todo are never reordered. */
  async #round() {
    await this.#load();
    const seen = new Set();
    const blocked = new Set();
    let failure = null;
    let progress = false;
    for (;;) {
      const op = this.#ops.find((op) => !seen.has(op.id));
      if (!op) return { failure, progress };
      seen.add(op.id);
      const names = [op.item, ...(op.items ?? [])];
      if (op.held || waits(op) || names.some((name) => blocked.has(name))) {
        for (const name of names) blocked.add(name);
        continue;
      }
      try {
        await this.#send(op);
        progress = true;
      } catch (error) {
        for (const name of names) blocked.add(name);
        if (error instanceof Refused) {
          this.#refuse(op, error);
        } else if (error instanceof Unreachable) {
          failure = error;
          if (!error.alone) return { failure, progress };
        } else {
          report("queue", error);
          failure = new Unreachable(error.message, { alone: true });
        }
      }
    }
  }

  async #send(op) {
    const removal = op.kind === "add" && this.#ops.find((other) => other.item === op.item && other.kind === "remove");
    if (removal && !op.tried && !waits(removal)) {
      this.#forget(this.#ops.filter((other) => other.item === op.item));
      return;
    }
    op.again = op.tried;
    if (!op.tried) {
      op.tried = true;
      await this.#write((store) => store.put(op), op);
    }
    const { todo, todos, conflict } = await this.#sender.send(op);
    if (conflict) {
      this.#on.found(todo);
      this.#hold(op, conflict);
    } else if (this.#ops.includes(op) || this.find(op.id)) this.#settle(op, todo, todos);
  }

  /** `op` is done; changes that wait for the todo it created learn its id. */
  #settle(op, todo, todos) {
    const followers = todo ? this.#ops.filter((other) => other.item === op.item && other.id !== op.id) : [];
    this.#on.sent(op, todo, todos);
    const { id, item, items, kind, completed, again } = op;
    this.#others.tell({ sent: { id, item, items, kind, completed, again }, todo, todos });
    for (const follower of followers) follower.item = todo.id;
    this.#ops = this.#ops.filter((other) => other.id !== op.id);
    this.#changed();
    this.#write((store) => {
      for (const follower of followers) if (follower.seq !== undefined) store.put(follower);
      if (op.seq !== undefined) store.delete(op.seq);
    });
  }

  /** Holds a refused text for the person who wrote it; reverts what one press can redo. */
  #refuse(op, { status, message }) {
    if (op.text !== undefined) {
      this.#hold(op, { why: status === 404 ? "gone" : "refused", message });
    } else {
      this.#forget([op]);
      this.#on.refused(op, message);
    }
  }

  #hold(op, held) {
    op.held = held;
    this.#changed();
    this.#write((store) => store.put(op), op);
  }

  #forget(ops) {
    const ids = new Set(ops.map((op) => op.id));
    this.#ops = this.#ops.filter((op) => !ids.has(op.id));
    this.#changed();
    this.#write((store) => {
      for (const op of ops) if (op.seq !== undefined) store.delete(op.seq);
    });
  }

  async #keep(op) {
    try {
      const before = JSON.stringify(op);
      const seq = await this.#db.run("ops", "readwrite", (store) => store.add(op));
      const now = JSON.stringify(op);
      op.seq = seq;
      // It was cancelled, sent or amended while it was being stored.
      if (!this.find(op.id)) await this.#db.run("ops", "readwrite", (store) => store.delete(seq));
      else if (now !== before) await this.#db.run("ops", "readwrite", (store) => store.put(op));
      this.#others.tell({ changed: true });
    } catch {
      // It stays in memory, which `isKept` reports.
    }
    this.#changed();
  }

  /** @param {Change} [op] the change that is written, if it is a single one */
  async #write(work, op) {
    this.#version += 1;
    if (op && op.seq === undefined) return;
    try {
      await this.#db.run("ops", "readwrite", work);
      this.#others.tell({ changed: true });
    } catch {
      // The next page sends it again, without effect.
    }
  }

  /** Reads what the tabs have stored; keeps what could not be stored. */
  async #load() {
    for (let tries = 0; tries < READ_TRIES; tries += 1) {
      const version = this.#version;
      let stored;
      try {
        stored = await this.#db.run("ops", "readonly", (store) => store.getAll());
      } catch {
        return;
      }
      if (version !== this.#version) continue;
      if (this.#db.takeIsNew() && this.#ops.some((op) => op.seq !== undefined)) {
        this.#keepAgain(stored);
        return;
      }
      const ids = new Set(stored.map((op) => op.id));
      const unkept = this.#ops.filter((op) => op.seq === undefined && !ids.has(op.id));
      this.#ops = [...stored, ...unkept];
      this.#changed();
      return;
    }
  }

  /** Stores everything again, in order, after the database was deleted under the page. */
  #keepAgain(stored) {
    const ids = new Set(this.#ops.map((op) => op.id));
    this.#ops.push(...stored.filter((op) => !ids.has(op.id)));
    this.#ops.forEach((op, place) => {
      op.seq = place + 1;
    });
    this.#write((store) => {
      store.clear();
      for (const op of this.#ops) store.put(op);
    });
  }

  #hear({ changed, sent, todo, todos }) {
    if (sent) {
      this.#on.sent(sent, todo, todos);
      this.#ops = this.#ops.filter((op) => op.id !== sent.id);
      for (const op of this.#ops) if (todo && op.item === sent.item) op.item = todo.id;
      this.#changed();
    }
    if (changed) this.#load().then(() => this.#plan());
  }

  #changed() {
    this.#version += 1;
    if (this.#ops.length === 0) this.#failure = null;
    this.#on.changed();
  }

  #setFailure(failure) {
    if (failure === this.#failure) return;
    this.#failure = failure;
    this.#on.changed();
  }

  /** Wakes up when the next change is due. */
  #plan() {
    clearTimeout(this.#timer);
    const next = Math.min(...this.#ops.filter((op) => op.due && !op.held).map((op) => waits(op)).filter((wait) => wait > 0));
    if (Number.isFinite(next)) this.#timer = setTimeout(() => this.kick(), next + 1);
  }
}

/** How many changes can be undone. */
export const UNDO_LIMIT = 50;

/** How long a change waits for its Undo; a longer wait means that the clock was set back. */
export const UNDO_TIME = 7_000;

function waits(op) {
  const wait = op.due - Date.now();
  return wait > 0 && wait <= UNDO_TIME ? wait : 0;
}
