// The todos of this page: what the server has, what the person wants, and the
// way from one to the other.
//
// A change is shown at once and sent until it is saved. What the server has
// not taken stays a wish of its item, so nothing that was typed gets lost.

import { Refused } from "./api.js";
import { Pauses } from "./pause.js";

let made = 0;

/** A todo on this page. */
export class Item {
  /** Names the item in the page, also before it has an id. */
  key;
  /** The todo as the server has it; null until it is made. */
  server;
  /** What is different in the person's mind: `text`, `completed`, `deleted`. */
  wish = {};
  /** Deleted, but it may be undone yet. */
  hidden = false;
  /** The last try to save it failed. */
  failed = false;
  /** With which text and key the todo is being made. */
  making = null;
  saving = false;

  constructor(server, wish = {}) {
    this.server = server;
    this.wish = wish;
    this.key = server ? String(server.id) : `new-${(made += 1)}`;
  }

  get text() {
    return this.wish.text ?? this.server?.text ?? "";
  }

  get completed() {
    return this.wish.completed ?? this.server?.completed ?? false;
  }

  get createdAt() {
    return this.server?.created_at ?? null;
  }

  get unsaved() {
    return !this.server || Object.keys(this.wish).length > 0;
  }

  /** Whether it belongs above `other`: newest first, what is being made on top. */
  isAbove(other) {
    if (!this.server || !other.server) return !this.server;
    const age = Date.parse(other.createdAt) - Date.parse(this.createdAt);
    return age === 0 ? this.server.id > other.server.id : age < 0;
  }
}

export class Store {
  #api;
  #view;
  #items = new Set();
  #byId = new Map();
  #counts = { total: 0, active: 0 };
  #pauses = new Pauses();
  #making = 0;
  #heldEvents = [];
  #recount = 0;
  #loading = 0;
  #reloading = 0;
  #barrier = Promise.resolve();
  #clearing = false;

  filter = "all";
  /** Where the next page starts; empty where there is none. */
  next = "";

  /**
   * @param view is told what changed: `show(item)`, `drop(item)`, `count()`,
   *   `trouble(n)` with the number of items that could not be saved, and
   *   `refused(item, wish, error)`
   */
  constructor(api, view) {
    this.#api = api;
    this.#view = view;
  }

  get items() {
    return [...this.#items];
  }

  /** How many there are, and how many of them are active, wishes included. */
  get counts() {
    let { total, active } = this.#counts;
    for (const item of this.#items) {
      const gone = item.hidden || item.wish.deleted;
      total += Number(!gone) - Number(Boolean(item.server));
      active += Number(!gone && !item.completed);
      active -= Number(Boolean(item.server) && !item.server.completed);
    }
    return { total: this.#clearing ? active : total, active };
  }

  /** Takes up what the server has rendered. */
  adopt(todos, { total, active, next }) {
    this.#counts = { total, active };
    this.next = next;
    return todos.map((todo) => this.#keep(new Item(todo)));
  }

  add(text) {
    const item = this.#keep(new Item(null, { text }));
    this.#save(item);
    return item;
  }

  /** @param change `{text}` or `{completed}` */
  change(item, change) {
    Object.assign(item.wish, change);
    for (const [name, value] of Object.entries(change)) {
      if (item.server?.[name] === value && !item.saving) delete item.wish[name];
    }
    this.#view.show(item);
    this.#view.count();
    this.#save(item);
  }

  /** Takes items out of sight, until `unhide` or `remove`. */
  hide(items) {
    this.#setHidden(items, true);
  }

  unhide(items) {
    this.#setHidden(items, false);
  }

  remove(item, { last = false } = {}) {
    if (!item.server && !item.making) return this.#drop(item);
    item.hidden = false;
    item.wish.deleted = true;
    // The page is going away: one try has to do.
    if (last && item.server) this.#api.remove(item.server.id, { keepalive: true }).catch(() => {});
    else this.#save(item);
  }

  /** The completed items, out of sight until `clear` or `unclear`. */
  hideCompleted() {
    this.#clearing = true;
    const items = this.items.filter((item) => item.completed && !item.hidden);
    this.hide(items);
    return items;
  }

  unclear(items) {
    this.#clearing = false;
    this.unhide(items);
  }

  /** Deletes everything that is completed. */
  clear(items, { last = false } = {}) {
    if (last) {
      this.#api.clearCompleted({ keepalive: true }).catch(() => {});
      return;
    }
    this.#barrier = this.#clear(items).catch((error) => {
      this.unclear(items);
      for (const item of items) this.#view.refused(item, {}, error);
    });
  }

  async #clear(items) {
    // What could not be cleared is in sight again while it is tried again.
    await this.#try(
      () => this.#api.clearCompleted(),
      () => this.unclear(items),
    );
    this.#clearing = false;
    for (const item of items) if (item.server) this.#drop(item);
    this.#countAgain();
  }

  /** The next page. */
  async more() {
    if (!this.next || this.#loading > 0) return;
    this.#loading += 1;
    try {
      const { filter } = this;
      const page = await this.#api.list({ filter, cursor: this.next, limit: 100 });
      if (filter === this.filter) this.#takePage(page);
    } finally {
      this.#loading -= 1;
    }
  }

  /** The list anew, from its top to where it was loaded; tries until it is there. */
  async reload() {
    this.#reloading += 1;
    this.#view.count();
    try {
      await this.#replace();
    } finally {
      this.#reloading -= 1;
      this.#view.count();
    }
  }

  /** Whether the list is on its way. */
  get loading() {
    return this.#reloading > 0;
  }

  async #replace() {
    const { filter } = this;
    const loaded = this.items.filter((item) => item.server).length;
    const limit = Math.min(1000, Math.max(50, loaded));
    const page = await this.#try(() => this.#api.list({ filter, limit }));
    if (filter !== this.filter) return;
    const listed = new Set(page.todos.map((todo) => todo.id));
    for (const item of this.items) {
      if (item.server && !listed.has(item.server.id) && !item.unsaved && !item.hidden) this.#drop(item);
    }
    this.#takePage(page);
  }

  /** Tells what somebody else did, as the stream of events has it. */
  learn(kind, todo) {
    // It may be our own new todo, whose answer is still on its way.
    if (this.#making > 0) {
      this.#heldEvents.push([kind, todo]);
      return;
    }
    const item = this.#byId.get(todo.id);
    if (kind === "deleted") {
      if (item) this.#drop(item);
    } else if (item) {
      this.#note(item, todo);
      this.#view.show(item);
    } else {
      if (kind === "created") {
        this.#counts.total += 1;
        this.#counts.active += Number(!todo.completed);
      }
      if (this.#isInReach(todo)) this.#keep(new Item(todo));
    }
    this.#view.count();
    this.#countAgain();
  }

  /** What is not saved, for the next page of this tab. */
  unsaved() {
    const items = this.items.filter((item) => item.unsaved && !item.wish.deleted);
    return items.map(({ server, wish, making }) => ({ server, wish, making }));
  }

  /** Takes up what an earlier page of this tab did not save. */
  resume(unsaved) {
    for (const { server, wish, making } of unsaved) {
      const item = this.#byId.get(server?.id) ?? this.#keep(new Item(server, {}));
      item.making = making;
      this.change(item, wish);
    }
  }

  /** Tries everything that waits for its next try at once. */
  retry() {
    this.#pauses.wake();
  }

  #setHidden(items, hidden) {
    for (const item of items) {
      item.hidden = hidden;
      this.#view.show(item);
    }
    this.#view.count();
  }

  #keep(item) {
    this.#items.add(item);
    if (item.server) this.#byId.set(item.server.id, item);
    this.#view.show(item);
    this.#view.count();
    return item;
  }

  #drop(item) {
    this.#items.delete(item);
    if (item.server && this.#byId.get(item.server.id) === item) {
      this.#byId.delete(item.server.id);
      this.#counts.total -= 1;
      this.#counts.active -= Number(!item.server.completed);
    }
    item.wish = {};
    item.failed = false;
    this.#view.drop(item);
    this.#view.count();
    this.#tellTrouble();
  }

  /** Whether `todo` belongs into the part of the list that is loaded. */
  #isInReach(todo) {
    if (!this.next) return true;
    const stranger = new Item(todo);
    return this.items.some((item) => item.server && stranger.isAbove(item));
  }

  #takePage({ todos, next, total, active }) {
    for (const todo of todos) {
      const item = this.#byId.get(todo.id);
      if (item) {
        item.server = todo;
        this.#view.show(item);
      } else {
        this.#keep(new Item(todo));
      }
    }
    this.next = next;
    this.#counts = { total, active };
    this.#view.count();
  }

  /** The server has `todo` now. */
  #note(item, todo) {
    if (item.server) {
      this.#counts.active += Number(!todo.completed) - Number(!item.server.completed);
    } else {
      const twin = this.#byId.get(todo.id);
      if (twin) this.#drop(twin);
      this.#counts.total += 1;
      this.#counts.active += Number(!todo.completed);
      this.#byId.set(todo.id, item);
    }
    item.server = todo;
  }

  /** Sends the wishes of an item until none is left. */
  async #save(item) {
    if (item.saving) return;
    item.saving = true;
    for (let tries = 1; item.unsaved && this.#items.has(item); ) {
      try {
        await this.#barrier;
        await this.#send(item);
        tries = 1;
        item.failed = false;
      } catch (error) {
        if (error instanceof Refused) {
          this.#giveUp(item, error);
          break;
        }
        item.failed = true;
        this.#view.show(item);
        this.#tellTrouble();
        await this.#pauses.wait(tries);
        tries += 1;
      }
    }
    item.saving = false;
    if (this.#items.has(item)) this.#view.show(item);
    this.#view.count();
    this.#tellTrouble();
    this.#countAgain();
  }

  async #send(item) {
    if (!item.server) return this.#make(item);
    if (item.wish.deleted) {
      await this.#api.remove(item.server.id);
      return this.#drop(item);
    }
    const sent = { ...item.wish };
    this.#note(item, await this.#api.update(item.server.id, sent));
    for (const [name, value] of Object.entries(sent)) {
      if (item.wish[name] === value) delete item.wish[name];
    }
  }

  async #make(item) {
    // A try may have arrived without its answer: the next one has to be the same.
    item.making ??= { text: item.wish.text, key: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` };
    this.#making += 1;
    try {
      this.#note(item, await this.#api.create(item.making.text, item.making.key));
      if (item.wish.text === item.making.text) delete item.wish.text;
      if (item.wish.completed === item.server.completed) delete item.wish.completed;
    } finally {
      this.#making -= 1;
      if (this.#making === 0) {
        for (const [kind, todo] of this.#heldEvents.splice(0)) this.learn(kind, todo);
      }
    }
  }

  #giveUp(item, error) {
    const { wish } = item;
    item.wish = {};
    item.failed = false;
    if (error.status === 404 || !item.server) this.#drop(item);
    this.#view.refused(item, wish, error);
  }

  #tellTrouble() {
    this.#view.trouble(this.items.filter((item) => item.failed).length);
  }

  /** Repeats `call` until it is answered. */
  async #try(call, onFailure = () => {}) {
    for (let tries = 1; ; tries += 1) {
      try {
        const result = await call();
        this.#view.reached();
        return result;
      } catch (error) {
        if (error instanceof Refused) throw error;
        onFailure();
        this.#view.unreached();
        await this.#pauses.wait(tries);
      }
    }
  }

  /** Asks for the counts soon, once for all changes until then. */
  #countAgain() {
    clearTimeout(this.#recount);
    this.#recount = setTimeout(async () => {
      try {
        const { total, active } = await this.#api.list({ limit: 1 });
        this.#counts = { total, active };
        this.#view.count();
      } catch {
        // They are right but for what others did; the next change asks again.
      }
    }, 300);
  }
}
