// The todos of this page: the server's state, overlaid with the changes that
// wait in the queue.

import { Refused } from "./api.js";
import { Doubts } from "./doubts.js";
import { Pauses } from "./pause.js";
import { Queue, UNDO_LIMIT, UNDO_TIME } from "./queue.js";

/** How long after a change of ours the server's counts may still predate it. */
const SETTLE = 1_000;
/** How long a todo of the stream waits for a response that may identify it as ours. */
const HOLD = 2_000;

/** The largest clock skew between servers. */
const CLOCKS = 1_000;

/** How many todos one request may name, and how many a person changes at once. */
const NAMED = 2_000;
const MOST_AT_ONCE = 20_000;
/** How many deleted todos an Undo recreates, one after the other. */
const MOST_REMADE = 500;

/** Whether `change` creates a todo, so it needs none to exist. */
const isMaking = (change) => change?.kind === "add" || change?.kind === "restore";

export const isRemoval = ({ kind }) => kind === "remove" || kind === "clear";

const idsOf = (todos) => todos.map(({ id }) => id);

function inParts(todos) {
  const parts = [];
  for (let start = 0; start < todos.length; start += NAMED) parts.push(todos.slice(start, start + NAMED));
  return parts;
}

let made = 0;

/** A todo on this page. */
export class Item {
  /** Identifies the item in the page, even before it has an id. */
  key;
  #name;
  /** Its number in the order of creation on this page. */
  #made = (made += 1);
  /** The todo on the server; null until it is created, and once it is gone. */
  server;
  /** Its waiting changes. @type {import("./queue.js").Change[]} */
  changes = [];
  /** It is gone on the server, but a change to it waits. */
  gone = false;
  /** Whether the last list had it: a list lacks what is just being deleted. */
  isListed = true;
  /** When the server last answered a change of ours. */
  answeredAt = -Infinity;

  /** @param {number | string} name its name in the queue until it has an id */
  constructor(server, name = server.id) {
    this.server = server;
    this.key = String(name);
    this.#name = name;
  }

  /** Its name in the queue. */
  get name() {
    return this.server?.id ?? this.#name;
  }

  get text() {
    return this.#wished("text") ?? this.server?.text ?? "";
  }

  get completed() {
    return this.#wished("completed") ?? this.server?.completed ?? false;
  }

  get createdAt() {
    return this.server?.created_at ?? null;
  }

  get removal() {
    return this.changes.find(isRemoval) ?? null;
  }

  /** The change that waits for the person's decision, if any. */
  get held() {
    return this.changes.find((change) => change.held) ?? null;
  }

  /** Whether it belongs above `other`: newest first, those not created yet on top. */
  isAbove(other) {
    if (!this.server && !other.server) return this.#made > other.#made;
    if (!this.server || !other.server) return !this.server;
    const age = Date.parse(other.createdAt) - Date.parse(this.createdAt);
    return age === 0 ? this.server.id > other.server.id : age < 0;
  }

  #wished(name) {
    return this.changes.findLast((change) => change[name] !== undefined && !isRemoval(change))?.[name];
  }
}

export class Store {
  #api;
  #view;
  #queue;
  /** @type {Map<string | number, Item>} */
  #byName = new Map();
  /** Items with waiting changes. @type {Set<Item>} */
  #changing = new Set();
  #counts = { total: 0, active: 0 };
  #settledAt = -Infinity;
  #countTimer = 0;
  #areCountsTold = false;
  /** How many changes the server has answered, and whether a list was read during one. */
  #answers = 0;
  #areCountsInDoubt = false;
  #heldTodos = [];
  /** The todos that changed while lists were loading, which are then stale. @type {Set<Set<number>>} */
  #news = new Set();
  /** What bulk changes have changed, for their Undo. */
  #done = new Map();
  #pauses = new Pauses();
  #loading = false;
  /** How many lists are loading, and the one that was requested last. */
  #reloading = 0;
  #reading = null;
  #doubts;
  /** The greatest id seen so far. */
  #newest = 0;
  /** Todos created before this are in the last list, or gone. */
  #readAt = 0;

  filter = "all";
  search = "";
  /** Where the next page starts; empty if there is none. */
  next = "";

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./database.js").Database} db
   * @param {string} name of the queue
   * @param view is told what changed: `show(item)`, `drop(item, byOthers)`,
   *   `count()`, `waiting(queue)`, `refused(change, item, message)`, `reached()`
   *   and `unreached()`, and returns the `size()` of what is shown
   */
  constructor(api, db, name, view) {
    this.#api = api;
    this.#view = view;
    this.#doubts = new Doubts(api, {
      found: (todo) => this.#learnOf(todo),
      many: () => this.reload().catch(() => {}),
    });
    this.#queue = new Queue(api, db, name, {
      changed: () => this.#overlay(),
      sent: (change, todo, todos) => (change.items ? this.#sentMany(change, todos) : this.#sent(change, todo)),
      found: (todo) => this.#found(todo),
      refused: (change, message) => view.refused(change, this.#byName.get(change.item), message),
    });
  }

  get queue() {
    return this.#queue;
  }

  get items() {
    return [...new Set(this.#byName.values())];
  }

  find(name) {
    return this.#byName.get(name) ?? this.#byName.get(Number(name));
  }

  /** How many todos there are and how many are active, with the waiting changes. */
  get counts() {
    let { total, active } = this.#counts;
    for (const item of this.#changing) {
      const stays = !item.removal && !item.gone;
      const was = item.isListed ? item.server : null;
      total += Number(stays) - Number(Boolean(was));
      active += Number(stays && !item.completed) - Number(Boolean(was && !was.completed));
    }
    // Todos of bulk changes that are not loaded.
    for (const change of this.#queue.changes) {
      const strangers = (change.items ?? []).filter((id) => !this.#byName.has(id)).length;
      if (change.kind === "clear") total -= strangers;
      else if (change.kind === "all") active += change.completed ? -strangers : strangers;
    }
    return { total: Math.max(0, total), active: Math.max(0, active) };
  }

  /** Whether the list is loading. */
  get loading() {
    return this.#reloading > 0;
  }

  /** Takes over what the server rendered. */
  adopt(todos, { at, total, active, next }) {
    this.#readAt = at - CLOCKS;
    this.#counts = { total, active };
    this.next = next;
    for (const todo of todos) this.#keep(new Item(todo));
  }

  add(text, completed = false) {
    const change = this.#queue.put({ kind: "add", text });
    const item = this.#byName.get(change.id);
    if (completed) this.tick(item, true);
    return item;
  }

  tick(item, completed) {
    this.#put(item, { kind: "tick", completed });
  }

  /** @param {string} was the text that the person saw */
  rewrite(item, text, was) {
    // This text replaces one that is held.
    const held = item.held;
    if (held) this.#queue.cancel(held);
    if (isMaking(held)) this.#queue.put({ kind: "add", text });
    else this.#put(item, { kind: "text", text, was: { text: was, completed: item.completed } });
  }

  /** Removes items once the time for an Undo is over. */
  remove(items, wait = UNDO_TIME) {
    const due = wait ? Date.now() + wait : 0;
    for (const item of items) {
      const { held } = item;
      if (isMaking(held) || item.gone) this.#queue.cancel(...item.changes);
      else if (!item.removal) {
        // A text that the server rejected would block the removal.
        if (held) this.#queue.cancel(held);
        this.#put(item, { kind: "remove", due });
      }
    }
  }

  /**
   * Deletes all that is completed now, {@link NAMED} per request, once the time for
   * an Undo is over.
   *
   * @returns the `changes`, for `unclear`, and the `todos` that they affect
   */
  async clearCompleted() {
    const due = Date.now() + UNDO_TIME;
    const todos = await this.#all("completed");
    const changes = inParts(todos).map((part) => this.#queue.put({ kind: "clear", items: idsOf(part), due }));
    return { changes, todos };
  }

  /**
   * Undoes a clear, whether or not it has been sent; false if too many todos would
   * have to be recreated.
   */
  unclear({ changes, todos }) {
    const lost = new Set();
    for (const change of changes) {
      const waiting = this.#queue.find(change.id);
      if (waiting) this.#queue.cancel(waiting);
      if (!waiting || waiting.tried) for (const id of change.items) lost.add(id);
    }
    if (lost.size > MOST_REMADE) return false;
    for (const { id, text, completed } of todos) {
      if (lost.has(id)) this.#queue.put({ kind: "restore", item: id, text, completed });
    }
    return true;
  }

  /** Ticks all that is active now, {@link NAMED} per request. */
  async completeAll() {
    const todos = await this.#all("active");
    this.#settledAt = performance.now();
    return inParts(todos).map((part) =>
      this.#queue.put({ kind: "all", completed: true, items: idsOf(part), todos: part.map(({ id }) => ({ id })) }),
    );
  }

  /** Unticks what a `completeAll` ticked, except for what others changed since. */
  uncompleteAll(changes) {
    for (const change of changes) {
      const waiting = this.#queue.find(change.id);
      if (waiting) this.#queue.cancel(waiting);
      if (waiting && !waiting.tried) continue;
      const todos = this.#done.get(change.id) ?? change.todos;
      this.#queue.put({ kind: "all", completed: false, items: idsOf(todos), todos });
    }
  }

  /**
   * What is completed or active now, including what is not loaded, up to the most
   * that can be changed at once; without todos that are not created yet.
   *
   * @returns {Promise<{id: number, text: string, completed: boolean}[]>}
   */
  async #all(filter) {
    const all = new Map();
    for (const { server, gone, removal, text, completed } of this.items) {
      const isMeant = server && !gone && !removal && completed === (filter === "completed");
      if (isMeant) all.set(server.id, { id: server.id, text, completed });
    }
    try {
      for (let cursor = ""; (this.next || this.filter !== "all" || this.search) && all.size < MOST_AT_ONCE; ) {
        const page = await this.#api.list({ filter, cursor, limit: 1000 });
        for (const todo of page.todos) if (!this.#byName.get(todo.id)?.changes.length) all.set(todo.id, todo);
        cursor = page.next;
        if (!cursor) break;
      }
    } catch {
      // Without a connection, only what is loaded is affected.
    }
    return [...all.values()].slice(0, MOST_AT_ONCE);
  }

  /** Undoes a removal, whether or not it has been sent. */
  restore({ name, text, completed }) {
    const item = this.find(name);
    const removal = item?.removal;
    if (removal) this.#queue.cancel(removal);
    if (removal && !removal.tried) return;
    if (typeof name === "number") this.#queue.put({ kind: "restore", item: name, text, completed });
    else this.add(text, completed);
  }

  /** The person chose their text over that of somebody else. */
  keepMine(item) {
    const { held } = item;
    if (held?.held.why === "conflict") {
      this.#queue.amend(held, { held: undefined, was: { ...held.was, text: held.held.theirs } });
    }
  }

  /** Drops the change that is held. */
  giveUp(item) {
    const { held } = item;
    if (held) this.#queue.cancel(held);
    this.release(item);
  }

  /** `item` is no longer edited: if it is gone, it is dropped. */
  release(item) {
    if (item.gone) this.#queue.cancel(...item.changes);
    if (item.gone && this.#byName.has(item.name)) this.#drop(item, false);
  }

  /** The item `id`, even if it is not in the loaded part of the list. */
  async bring(id, text) {
    const item = this.find(id);
    if (item) return item;
    let found = { id, text, completed: false, created_at: undefined };
    let gone = false;
    try {
      found = (await this.#api.read(id)).todo;
    } catch (error) {
      gone = error instanceof Refused && error.status === 404;
    }
    const brought = this.find(id) ?? new Item(found);
    brought.gone = gone;
    return this.#keep(brought);
  }

  /** Retries everything at once that waits for its next try. */
  retry() {
    this.#pauses.wake();
    this.#queue.kick();
  }

  /** The next page. */
  async more() {
    if (!this.next || this.#loading) return;
    this.#loading = true;
    try {
      const place = this.#place();
      const cursor = this.next;
      const answer = await this.#list({ ...place, cursor, limit: 100 });
      if (this.#isAt(place) && cursor === this.next) this.#takePage(answer);
    } finally {
      this.#loading = false;
    }
  }

  /**
   * Reloads the list, from its top to where it was loaded; retries until it
   * succeeds. Calls during a reload join one more reload.
   */
  reload() {
    if (this.#reading && this.#isAt(this.#reading.place)) {
      this.#reading.again = true;
      return this.#reading.done;
    }
    const reading = { place: this.#place(), again: true, done: null };
    this.#reading = reading;
    reading.done = this.#read(reading);
    return reading.done;
  }

  async #read(reading) {
    this.#reloading += 1;
    this.#view.count();
    try {
      while (reading.again && this.#isAt(reading.place)) {
        reading.again = false;
        await this.#replace(reading.place);
      }
    } finally {
      if (this.#reading === reading) this.#reading = null;
      this.#reloading -= 1;
      this.#view.count();
    }
  }

  /** Rereads all that is loaded, however much, so that nobody loses their place. */
  async #replace(place) {
    let cursor = "";
    let left = this.#view.size();
    let from = null;
    do {
      const limit = Math.min(1000, Math.max(50, left));
      const answer = await this.#try(place, () => this.#list({ ...place, cursor, limit }));
      if (!answer || !this.#isAt(place)) return;
      const { page, news } = answer;
      this.#readAt = page.at - CLOCKS;
      left -= page.todos.length;
      const isLast = left <= 0 || !page.next;
      const to = isLast ? null : new Item(page.todos.at(-1));
      const listed = new Set(page.todos.map((todo) => todo.id));
      for (const item of this.items) {
        if (!item.server || listed.has(item.server.id) || news.has(item.server.id)) continue;
        const isBefore = from && !from.isAbove(item);
        const isAfter = to && !item.isAbove(to);
        if (!isBefore && !isAfter) {
          item.isListed = !item.removal?.tried;
          this.#lose(item, false);
        }
      }
      this.#takePage(answer);
      from = to;
      cursor = page.next;
    } while (from);
  }

  /** Whether the server may have applied a change that it has not answered yet. */
  get #isSending() {
    return !this.#queue.failure && this.#queue.changes.some((change) => change.tried && !change.held);
  }

  /** A page of the list, what changed while it loaded, and whether we were sending changes. */
  async #list(options) {
    const news = new Set();
    this.#news.add(news);
    const answers = this.#answers;
    const wasSending = this.#isSending;
    try {
      const page = await this.#api.list(options);
      return { page, news, isMixed: wasSending || this.#isSending || answers !== this.#answers };
    } finally {
      this.#news.delete(news);
    }
  }

  /** Applies an event of the stream. */
  learn(kind, todo) {
    for (const news of this.#news) news.add(todo.id);
    const item = this.#byName.get(todo.id);
    const isNew = kind === "created" && todo.id > this.#newest && Date.parse(todo.created_at) >= this.#readAt;
    this.#newest = Math.max(this.#newest, todo.id);
    this.#doubts.forget(todo.id);
    // An Undo recreated it, and this event is about its predecessor.
    if (item?.server && item.server.id !== todo.id) return;
    if (kind === "deleted") {
      if (!item) return this.#countStranger(kind, todo);
      this.#countStranger(kind, item.server);
      this.#lose(item, true);
    } else if (item) {
      // Events from before a change of ours may arrive after its response.
      const isNews = todo.text !== item.server?.text || todo.completed !== item.server?.completed;
      if (isNews && performance.now() - item.answeredAt < HOLD) return this.#doubts.ask(todo);
      this.#note(item, todo);
      this.#view.show(item);
    } else {
      if (this.#holds(todo)) return;
      if (!this.#isInReach(todo)) return this.#countStranger(kind, todo);
      if (!isNew) return this.#doubts.ask(todo);
      this.#countStranger(kind, todo);
      this.#keep(new Item(todo));
    }
    this.#view.count();
  }

  /** Takes the counts of the stream once they cannot predate our changes. */
  learnCounts(counts) {
    this.#areCountsTold = true;
    clearTimeout(this.#countTimer);
    const wait = this.#isSending ? SETTLE : this.#settledAt + SETTLE - performance.now();
    if (wait > 0) {
      this.#countTimer = setTimeout(() => this.learnCounts(counts), wait);
    } else {
      this.#counts = { ...counts };
      this.#view.count();
    }
  }

  /** After a gap the counts are estimated until the stream sends them again. */
  forgetCounts() {
    this.#areCountsTold = false;
  }

  #put(item, change) {
    this.#settledAt = performance.now();
    const was = { text: item.text, completed: item.completed };
    return this.#queue.put({ item: item.name, was, ...change });
  }

  /** Overlays the items with their changes in the queue. */
  #overlay() {
    const before = this.#changing;
    const changing = new Set();
    const changes = new Map();
    for (const change of this.#queue.changes) {
      let item = this.#byName.get(change.item);
      // A held change is shown even if its todo is not loaded.
      if (!item && (change.held || isMaking(change))) {
        item = new Item(null, change.item);
        item.gone = change.held?.why === "gone";
        this.#byName.set(change.item, item);
      }
      const items = change.items ? change.items.map((id) => this.#byName.get(id)) : [item];
      for (const item of items) {
        if (!item) continue;
        changing.add(item);
        if (!changes.has(item)) changes.set(item, []);
        changes.get(item).push(change);
      }
    }
    this.#changing = changing;
    for (const item of new Set([...before, ...changing])) {
      item.changes = changes.get(item) ?? [];
      const isLeft = item.changes.length > 0 || (item.server && !item.gone);
      if (isLeft) this.#view.show(item);
      else this.#drop(item, false);
    }
    this.#view.count();
    this.#view.waiting(this.#queue);
    this.#countAnew();
  }

  /** The current state of a todo that conflicts with a change. */
  #found(todo) {
    const item = this.#byName.get(todo.id);
    if (item) this.#note(item, todo);
  }

  /** The server has applied a change. */
  #sent(change, todo) {
    this.#answers += 1;
    this.#settledAt = performance.now();
    for (const news of this.#news) news.add(todo?.id ?? change.item);
    const item = this.#byName.get(change.item);
    if (!item) {
      if (todo && change.kind !== "remove") this.#keep(new Item(todo));
      return;
    }
    if (todo) {
      this.#heldTodos = this.#heldTodos.filter(({ id }) => id !== todo.id);
      this.#note(item, todo);
      item.answeredAt = performance.now();
    } else {
      if (item.isListed) this.#count(item.server, -1);
      item.server = null;
      item.gone = true;
    }
  }

  /** The server has applied a bulk change, except to what others changed meanwhile. */
  #sentMany({ id, items, kind, completed, again }, todos) {
    this.#answers += 1;
    this.#settledAt = performance.now();
    const named = new Map(todos?.map((todo) => [todo.id, todo]));
    // After a lost response, a retry neither changes nor lists the same todos again.
    if (todos) this.#done.set(id, again ? items.map((name) => named.get(name) ?? { id: name }) : todos);
    if (this.#done.size > UNDO_LIMIT) this.#done.delete(this.#done.keys().next().value);
    const changed = todos && !again ? named : null;
    for (const name of items) {
      const item = this.#byName.get(name);
      if (changed && !changed.has(name)) continue;
      if (kind === "clear" && (!item || item.server?.completed)) {
        if (item?.isListed ?? true) this.#count(item ? item.server : { completed: true }, -1);
        if (item) Object.assign(item, { server: null, gone: true });
      } else if (kind === "all" && item?.server) {
        this.#note(item, { ...item.server, completed });
      } else if (kind === "all" && !item) {
        this.#counts.active += completed ? -1 : 1;
      }
      for (const news of this.#news) news.add(name);
    }
  }

  /** Holds back what may be our own new todo, whose response is still under way. */
  #holds(todo) {
    const mine = this.#queue.changes.some((change) => change.text === todo.text && !change.held && change.kind !== "text");
    if (mine) {
      this.#heldTodos.push(todo);
      setTimeout(() => this.#release(todo), HOLD);
    }
    return mine;
  }

  #release(todo) {
    if (!this.#heldTodos.includes(todo)) return;
    this.#heldTodos = this.#heldTodos.filter((other) => other !== todo);
    if (!this.#byName.has(todo.id)) this.#doubts.ask(todo);
  }

  /** The current state of a todo that an event was about. */
  #learnOf(todo) {
    const item = this.#byName.get(todo.id);
    if (item) {
      this.#note(item, todo);
      this.#view.show(item);
    } else {
      this.#countStranger("created", todo);
      this.#keep(new Item(todo));
    }
    this.#view.count();
  }

  #keep(item) {
    this.#newest = Math.max(this.#newest, item.server?.id ?? 0);
    this.#byName.set(item.name, item);
    this.#overlayOne(item);
    this.#view.show(item);
    this.#view.count();
    return item;
  }

  /** Overlays an item that appears after its changes. */
  #overlayOne(item) {
    item.changes = this.#queue.changes.filter((change) => change.item === item.name || change.items?.includes(item.name));
    if (item.changes.length > 0) this.#changing.add(item);
  }

  #drop(item, byOthers) {
    for (const [name, other] of [...this.#namesOf(item)]) if (other === item) this.#byName.delete(name);
    this.#changing.delete(item);
    item.changes = [];
    this.#view.drop(item, byOthers);
    this.#view.count();
  }

  *#namesOf(item) {
    yield [item.key, item];
    yield [Number(item.key), item];
    if (item.server) yield [item.server.id, this.#byName.get(item.server.id)];
  }

  /** The server no longer has `item`. What the person wrote over it stays. */
  #lose(item, byOthers) {
    const keeps = item.changes.some(({ kind }) => kind === "text" || kind === "restore");
    if (keeps || this.#view.isEditing(item)) {
      if (byOthers) {
        item.gone = true;
        this.#view.show(item);
      }
    } else if (!item.changes.length || byOthers) {
      this.#drop(item, byOthers);
    }
  }

  /** Whether `todo` belongs in the loaded part of the list. */
  #isInReach(todo) {
    if (!this.next) return true;
    const stranger = new Item(todo);
    for (const item of this.#byName.values()) if (item.server && stranger.isAbove(item)) return true;
    return false;
  }

  #takePage({ page: { todos, next, total, active }, news, isMixed }) {
    for (const todo of todos) {
      if (news.has(todo.id)) continue;
      const item = this.#byName.get(todo.id);
      if (!item) {
        if (!this.#holds(todo)) this.#keep(new Item(todo));
      } else {
        item.server = todo;
        item.gone = false;
        item.isListed = true;
        this.#view.show(item);
      }
    }
    this.next = next;
    // The counts of the stream are newer than any list.
    if (!this.#areCountsTold) {
      const held = this.#heldTodos;
      this.#counts = { total: total - held.length, active: active - held.filter(({ completed }) => !completed).length };
      if (isMixed) this.#areCountsInDoubt = true;
    }
    this.#view.count();
    this.#countAnew();
  }

  /** Once a change is answered, requests counts again that may or may not include it. */
  #countAnew() {
    if (!this.#areCountsInDoubt || this.#isSending) return;
    this.#areCountsInDoubt = false;
    this.reload().catch(() => {});
  }

  /** The server has `todo` now. */
  #note(item, todo) {
    if (item.server && item.server.id === todo.id) {
      if (!this.#areCountsTold || item.changes.length > 0) {
        this.#counts.active += Number(!todo.completed) - Number(!item.server.completed);
      }
    } else {
      const twin = this.#byName.get(todo.id);
      if (twin && twin !== item) this.#drop(twin, false);
      else this.#count(todo, 1);
      if (item.server) this.#count(item.server, -1);
      this.#byName.set(todo.id, item);
    }
    item.server = todo;
    item.gone = false;
    item.isListed = true;
  }

  #count(todo, step) {
    if (!todo) return;
    this.#counts.total += step;
    this.#counts.active += step * Number(!todo.completed);
  }

  /** Counts what somebody else did, unless the stream sends the counts. */
  #countStranger(kind, todo) {
    if (this.#areCountsTold || !todo) return;
    if (kind === "created") this.#count(todo, 1);
    if (kind === "deleted") this.#count(todo, -1);
  }

  #place() {
    return { filter: this.filter, search: this.search };
  }

  #isAt({ filter, search }) {
    return filter === this.filter && search === this.search;
  }

  /** Retries `call` until it succeeds; null once the page has left `place`. */
  async #try(place, call) {
    for (let tries = 1; this.#isAt(place); tries += 1) {
      try {
        const result = await call();
        this.#view.reached();
        return result;
      } catch (error) {
        if (error instanceof Refused) throw error;
        this.#view.unreached();
        await this.#pauses.wait(tries, error.wait);
      }
    }
    return null;
  }
}
