// An event about a todo that the page does not have may be long out of date: it
// may be delayed for hours while the broker is down, and be redelivered.

/** How long questions are batched. */
const GATHER = 50;
/** With more questions than this, reloading the list is cheaper. */
const MOST = 20;

export class Doubts {
  /** The latest event of each todo in doubt. @type {Map<number, object>} */
  #waiting = new Map();
  #timer = 0;
  #api;
  #on;

  /**
   * @param {import("./api.js").Api} api
   * @param on `found(todo)` for each that exists, and `many()` if the
   *   whole list must be read
   */
  constructor(api, on) {
    this.#api = api;
    this.#on = on;
  }

  /** Asks the server for the current state of `todo`. */
  ask(todo) {
    this.#waiting.set(todo.id, todo);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#answer(), GATHER);
  }

  /** Drops a question that has become moot: ids are never reused. */
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
          // A later event may have arrived meanwhile.
          if (this.#waiting.get(id) !== event) return;
          this.#waiting.delete(id);
          this.#on.found(todo);
        },
        () => {
          // It is gone, or the list is reloaded once the server is back.
          if (this.#waiting.get(id) === event) this.#waiting.delete(id);
        },
      );
    }
  }
}
