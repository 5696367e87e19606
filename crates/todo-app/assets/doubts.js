// What an event says of a todo that the page does not have may be long out of
// date: it may wait for hours where the broker is away, and come again.

/** How long questions gather. */
const GATHER = 50;
/** With more than so many questions the list is the better answer. */
const MOST = 20;

export class Doubts {
  /** The latest event of each todo in doubt. @type {Map<number, object>} */
  #waiting = new Map();
  #timer = 0;
  #api;
  #on;

  /**
   * @param {import("./api.js").Api} api
   * @param on `found(todo)` for each that is there, and `many()` where the
   *   whole list is to be read
   */
  constructor(api, on) {
    this.#api = api;
    this.#on = on;
  }

  /** Asks the server how `todo` is now. */
  ask(todo) {
    this.#waiting.set(todo.id, todo);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#answer(), GATHER);
  }

  /** There is nothing left to ask: an id is never used again. */
  forget(id) {
    this.#waiting.delete(id);
  }

  #answer() {
    const asked = [...this.#waiting];
    if (asked.length > MOST) {
      this.#waiting.clear();
      this.#on.many();
      return;
    }
    for (const [id, event] of asked) {
      this.#api.read(id).then(
        ({ todo }) => {
          // A later event may have come meanwhile.
          if (this.#waiting.get(id) !== event) return;
          this.#waiting.delete(id);
          this.#on.found(todo);
        },
        () => {
          // It is gone; or the list is read again, once the server is there.
          if (this.#waiting.get(id) === event) this.#waiting.delete(id);
        },
      );
    }
  }
}
