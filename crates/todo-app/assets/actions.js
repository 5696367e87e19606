// What a person does with todos, each with its way back.

import { bdi } from "./elements.js";
import { short } from "./text.js";

const quoted = (text) => ["“", bdi(short(text)), "”"];
const counted = (count) => (count === 1 ? "1 todo" : `${count} todos`);

export class Actions {
  #store;
  #rows;
  #notices;

  constructor(store, rows, notices) {
    this.#store = store;
    this.#rows = rows;
    this.#notices = notices;
  }

  /** Adds texts, the first on top; false where too much waits already. */
  add(texts) {
    if (this.#isFull()) return false;
    const items = texts.toReversed().map((text) => this.#store.add(text));
    if (items.length > 1) {
      this.#notices.offerUndo([`Added ${counted(items.length)}`], () => this.#store.remove(items, 0));
    }
    return true;
  }

  /** Adds a text again whose todo somebody deleted. */
  addAgain(item, text) {
    const { completed } = item;
    this.#store.release(item);
    this.#rows.focus(this.#store.add(text, completed));
  }

  toggle(item) {
    if (this.#isFull()) return;
    const completed = !item.completed;
    const { text } = item;
    const name = () => this.#store.find(item.key) ?? item;
    this.#store.tick(item, completed);
    // Where the tick stays in sight it is its own Undo.
    const quiet = this.#rows.has(item);
    this.#notices.offerUndo([completed ? "Completed " : "To do again: ", ...quoted(text)], () => {
      this.#store.tick(name(), !completed);
      this.#rows.focus(item);
    }, { quiet });
  }

  /** @param {string} seen the text that the person saw when they began */
  rewrite(item, text, seen) {
    if (this.#isFull()) return this.#rows.edit(item, { seen, text });
    const isNew = item.held?.kind === "add";
    this.#store.rewrite(item, text, seen);
    if (isNew) return undefined;
    return this.#notices.offerUndo(["Changed ", ...quoted(seen)], () => {
      this.#store.rewrite(item, seen, text);
      this.#rows.focus(item);
    }, { quiet: true });
  }

  remove(item) {
    if (item.removal || this.#isFull()) return;
    const { name, text, completed } = item;
    this.#store.remove([item]);
    this.#notices.offerUndo(["Deleted ", ...quoted(text)], () => this.#bringBack([{ name, text, completed }]));
  }

  /** Deletes what is completed now; not what is completed later. */
  clearCompleted() {
    if (this.#isFull()) return;
    const items = this.#store.items.filter((item) => item.completed && !item.removal && !item.gone);
    const removed = items.map(({ name, text, completed }) => ({ name, text, completed }));
    this.#store.remove(items);
    this.#notices.offerUndo([`Cleared ${counted(items.length)}`], () => this.#bringBack(removed));
  }

  #bringBack(removed) {
    for (const todo of removed) this.#store.restore(todo);
    const item = this.#store.find(removed[0]?.name);
    if (item) this.#rows.focus(item, "remove");
  }

  #isFull() {
    const { isFull } = this.#store.queue;
    if (isFull) {
      this.#notices.alert("full", ["Too many changes wait to be saved. Nothing more is taken until some of them are."]);
    }
    return isFull;
  }
}
