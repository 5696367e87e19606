// From a change to the requests that make it.

import { Refused, Unreachable } from "./api.js";

/** How many versions are known by their ETag. */
const KNOWN = 500;
/** How often a todo that changes under our hands is looked at again. */
const LOOKS = 5;

/** A todo was changed in the meantime (RFC 9110, section 15.5.13). */
const isStale = (error) => error instanceof Refused && error.status === 412;
const isGone = (error) => error instanceof Refused && error.status === 404;

/** Somebody else wrote the text that `todo` has now. */
const inTheWay = (todo) => ({ todo, conflict: { why: "conflict", theirs: todo.text } });

/** A todo that is gone needs no tick and no removal. */
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
   * Makes a change, whether an earlier try arrived or not.
   *
   * @param {object} change a change of the queue
   * @returns {Promise<{todo: object | null, todos?: object[], conflict?: object}>}
   *   the todo as it is now, null where it is gone, and what is in the way. For a
   *   change of many, which of them were changed
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
        // Of a newer page, which sends it.
        throw new Unreachable("this page is out of date: reload it", { alone: true });
    }
  }

  /** Removes a todo as the page goes away: there is time for one try. */
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

  /** Stores a text over the one that the person saw, and over no other. */
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

  /** Runs `act(etag)` while the todo has the text that the person saw. */
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

  /** Undoes a removal that may have arrived. */
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
