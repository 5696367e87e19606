// What was typed and not saved, kept beyond the life of the page.

import { keep, read } from "./kept.js";
import { newId } from "./queue.js";
import { canShare } from "./tabs.js";

/**
 * @typedef {object} Draft
 * @property {string} tab
 * @property {string} text in the field of the new todo
 * @property {{item: number, seen: string, text: string}[]} edits
 */

/** How many drafts of closed tabs are kept. */
const MOST_LEFT = 50;

/** The drafts of this tab and of closed tabs. */
export class Drafts {
  #db;
  #name;
  #tab = newId();
  #wanted = null;
  #writing = false;
  #leave = () => {};

  /** Whether the last draft could be stored. */
  isKept = true;

  /** @param {import("./database.js").Database} db with a store `drafts` */
  constructor(db, name) {
    this.#db = db;
    this.#name = name;
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", ({ persisted }) => persisted && this.#enter(this.#tab));
  }

  /**
   * The draft of this tab, merged with those of closed tabs. What does not fit
   * waits for the next page, since one field has room for one text.
   *
   * @param {() => boolean} isFree whether there is room for a new todo's text
   * @returns {Promise<Draft>}
   */
  async resume(isFree) {
    const draft = { tab: this.#tab, text: "", edits: [] };
    // A duplicated tab inherits the other tab's name.
    const name = read(this.#name, "sessionStorage") ?? this.#tab;
    if (await this.#enter(name)) this.#tab = name;
    else await this.#enter(this.#tab);
    keep(this.#name, this.#tab, "sessionStorage");

    let found;
    try {
      found = await this.#db.run("drafts", "readonly", (store) => store.getAll());
    } catch {
      return draft;
    }
    const alive = await this.#alive();
    const isOwn = ({ tab }) => tab === this.#tab;
    const left = [...found.filter(isOwn), ...found.filter((other) => !isOwn(other) && !alive.has(other.tab))];
    const rest = [];
    for (const { tab, text, edits } of left) {
      const hasRoom = isFree() && !draft.text;
      const isOpen = (edit) => draft.edits.some(({ item }) => item === edit.item);
      const others = edits.filter(isOpen);
      if (hasRoom) draft.text = text;
      draft.edits.push(...edits.filter((edit) => !isOpen(edit)));
      rest.push({ tab, text: hasRoom ? "" : text, edits: others });
    }
    this.#db
      .run("drafts", "readwrite", (store) => {
        rest.forEach((other, place) => {
          if (!isOwn(other)) store.delete(other.tab);
          const isEmpty = !other.text && other.edits.length === 0;
          if (!isEmpty && place < MOST_LEFT) store.put(isOwn(other) ? { ...other, tab: newId() } : other);
        });
      })
      .catch(() => {});
    return draft;
  }

  /** Stores the current draft; of rapid successive ones, only the newest is written. */
  async save(draft) {
    this.#wanted = draft;
    if (this.#writing) return;
    this.#writing = true;
    while (this.#wanted) {
      const { text, edits } = this.#wanted;
      this.#wanted = null;
      const isEmpty = !text && edits.length === 0;
      try {
        await this.#db.run("drafts", "readwrite", (store) =>
          isEmpty ? store.delete(this.#tab) : store.put({ tab: this.#tab, text, edits }),
        );
        this.isKept = true;
      } catch {
        this.isKept = isEmpty;
      }
    }
    this.#writing = false;
  }

  /** Marks the tab `name` as alive while it is; false if another tab has the name. */
  #enter(name) {
    return new Promise((entered) => {
      const live = (lock) => {
        entered(Boolean(lock));
        return lock ? new Promise((leave) => (this.#leave = leave)) : undefined;
      };
      if (!navigator.locks) return entered(true);
      return navigator.locks.request(`${this.#name} tab ${name}`, { ifAvailable: true }, live).catch(() => entered(true));
    });
  }

  async #alive() {
    if (!(await canShare())) return new Set();
    const start = `${this.#name} tab `;
    const { held } = await navigator.locks.query();
    return new Set(held.filter(({ name }) => name.startsWith(start)).map(({ name }) => name.slice(start.length)));
  }
}
