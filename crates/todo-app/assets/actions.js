// What a person does with todos, each with its undo.

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

  /** Adds texts, the first on top; false if the queue is full. */
  add(texts) {
    if (this.#isFull()) return false;
    const items = texts.toReversed().map((text) => this.#store.add(text));
    if (items.length > 1) {
      this.#notices.offerUndo([`Added ${counted(items.length)}`], () => this.#store.remove(items, 0));
    }
    return true;
  }

  /** Adds the text of a todo again that somebody else deleted. */
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
    // A tick that stays visible needs no Undo button.
    const quiet = this.#rows.has(item);
    this.#notices.offerUndo([completed ? "Completed " : "Marked as to do: ", ...quoted(text)], () => {
      this.#store.tick(name(), !completed);
      this.#rows.focus(item);
    }, { quiet });
  }

  /** @param {string} seen the text when the person began to edit */
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

  /** Deletes what is completed now, not what is completed later. */
  async clearCompleted() {
    if (this.#isFull()) return;
    // Todos that are not created yet have no id for a bulk request.
    const unmade = this.#store.items.filter((item) => !item.server && item.completed && !item.removal);
    const removed = unmade.map(({ name, text, completed }) => ({ name, text, completed }));
    this.#store.remove(unmade);
    const cleared = await this.#store.clearCompleted();
    const { length } = cleared.todos;
    this.#notices.offerUndo([`Cleared ${counted(length + removed.length)}`], () => {
      const isDone = this.#store.unclear(cleared);
      if (!isDone) this.#notices.alert("unclear", [`${counted(length)} are deleted: too many to bring them back now.`]);
      this.#bringBack(removed);
      this.#rows.focus(this.#store.find(cleared.todos[0]?.id), "remove");
    });
  }

  /** Ticks what is active now. */
  async completeAll() {
    if (this.#isFull()) return;
    const changes = await this.#store.completeAll();
    const count = changes.reduce((sum, { items }) => sum + items.length, 0);
    this.#notices.offerUndo([`Completed ${counted(count)}`], () => this.#store.uncompleteAll(changes));
  }

  #bringBack(removed) {
    for (const todo of removed) this.#store.restore(todo);
    const item = this.#store.find(removed[0]?.name);
    if (item) this.#rows.focus(item, "remove");
  }

  #isFull() {
    const { isFull } = this.#store.queue;
    if (isFull) {
      this.#notices.alert("full", ["Too many unsaved changes. Wait until some of them are saved."]);
    }
    return isFull;
  }
}
