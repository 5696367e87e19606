// Turns changes into requests.

import { Refused, Unreachable } from "./api.js";

/** How many ETags are remembered. */
const KNOWN = 500;
/** How often to look again at a todo that changes meanwhile. */
const LOOKS = 5;

/** A todo was changed in the meantime (RFC 9110, section 15.5.13). */
const isStale = (error) => error instanceof Refused && error.status === 412;
const isGone = (error) => error instanceof Refused && error.status === 404;

/** Somebody else wrote the text that `todo` has now. */
const inTheWay = (todo) => ({ todo, conflict: { why: "conflict", theirs: todo.text } });

/** Runs `act`; a todo that is gone needs no tick or removal. */
async function goneOr(act) {
  try {
    return await act();
  } catch (error) {
    if (isGone(error)) return { todo: null };
    throw error;
  }
}

export class Sender {
  #api;
  /** @type {Map<number, import("./api.js").Versioned>} */
  #known = new Map();

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.#api = api;
  }

  /**
   * Sends a change, whether or not an earlier try arrived.
   *
   * @param {object} change a change of the queue
   * @returns {Promise<{todo: object | null, todos?: object[], conflict?: object}>}
   *   the current todo, null if it is gone, and what conflicts. For a bulk
   *   change, the todos that were changed
   */
  async send(change) {
    switch (change.kind) {
      case "add":
        return this.#learn(await this.#api.create(change.text, change.id));
      case "tick":
        return goneOr(async () => this.#learn(await this.#api.update(change.item, { completed: change.completed })));
      case "text":
        return this.#changeText(change);
      case "remove":
        return this.#remove(change);
      case "restore":
        return this.#restore(change);
      case "clear":
        await this.#api.clear(change.items);
        return { todo: null };
      case "all":
        return { todo: null, todos: await this.#api.tickAll(change.completed, change.todos ?? null) };
      default:
        // From a newer version of the page, which sends it.
        throw new Unreachable("this page is out of date: reload it", { alone: true });
    }
  }

  /** Removes a todo as the page closes, with time for one try. */
  removeLast(change) {
    const inVain = () => {
      // It stays in the queue, and the next page sends it.
    };
    if (change.kind === "clear") {
      this.#api.clear(change.items, { keepalive: true }).catch(inVain);
      return;
    }
    const known = this.#known.get(change.item);
    const match = known?.todo.text === change.was?.text ? known.etag : null;
    this.#api.remove(change.item, match, { keepalive: true }).catch(inVain);
  }

  /** Replaces the text that the person saw, and no other. */
  #changeText(change) {
    return this.#overSeen(change, change.text, (etag) =>
      this.#api.update(change.item, { text: change.text }, etag).then((found) => this.#learn(found)),
    );
  }

  #remove(change) {
    return goneOr(() =>
      this.#overSeen(change, null, async (etag) => {
        await this.#api.remove(change.item, etag);
        this.#known.delete(change.item);
        return { todo: null };
      }),
    );
  }

  /** Runs `act(etag)` if the todo still has the text that the person saw. */
  async #overSeen(change, wanted, act) {
    const known = this.#known.get(change.item);
    let etag = known?.todo.text === change.was.text ? known.etag : null;
    for (let looks = 0; looks < LOOKS; looks += 1) {
      if (!etag) {
        const found = await this.#read(change.item);
        const { text } = found.todo;
        if (text === wanted) return { todo: found.todo };
        if (text !== change.was.text) return inTheWay(found.todo);
        etag = found.etag;
      }
      try {
        return await act(etag);
      } catch (error) {
        if (!isStale(error)) throw error;
      }
      etag = null;
    }
    return inTheWay((await this.#read(change.item)).todo);
  }

  /** Undoes a removal that may have been applied. */
  async #restore(change) {
    try {
      return { todo: (await this.#read(change.item)).todo };
    } catch (error) {
      if (!isGone(error)) throw error;
    }
    const made = await this.#api.create(change.text, change.id);
    if (!change.completed) return this.#learn(made);
    return this.#learn(await this.#api.update(made.todo.id, { completed: true }));
  }

  async #read(id) {
    const found = await this.#api.read(id);
    this.#learn(found);
    return found;
  }

  #learn(found) {
    const { id } = found.todo;
    this.#known.delete(id);
    this.#known.set(id, found);
    if (this.#known.size > KNOWN) this.#known.delete(this.#known.keys().next().value);
    return { todo: found.todo };
  }
}
