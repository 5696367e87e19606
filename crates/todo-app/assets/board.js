// The list with its forms, which also work without this script.

import { Actions } from "./actions.js";
import { Api } from "./api.js";
import { Database } from "./database.js";
import { Drafts } from "./drafts.js";
import { bdi, button } from "./elements.js";
import { Field } from "./field.js";
import { give } from "./focus.js";
import { guardPresses } from "./guard.js";
import { Notices } from "./notices.js";
import { belongs, placeOf, setAddress, showPlace, useAddress } from "./place.js";
import { Rows } from "./rows.js";
import { report, start } from "./run.js";
import { isRemoval, Store } from "./store.js";
import { short } from "./text.js";

const $ = (id) => document.getElementById(id);
const main = $("board");
const limit = Number(main.dataset.limit);
/** Each environment has a list of its own. */
const name = `todos ${main.dataset.api}`;
const older = $("older");
const counters = document.querySelectorAll("[data-count]");

const api = new Api(main.dataset.api);
const db = new Database(name, (opened) => {
  opened.createObjectStore("ops", { keyPath: "seq", autoIncrement: true });
  opened.createObjectStore("drafts", { keyPath: "tab" });
});
const notices = new Notices($("alerts"), $("toasts"), $("new-todo"));
const drafts = new Drafts(db, name);

// What is not saved, in words.

const isLate = (item) => Boolean(store.queue.failure) && item.changes.some((change) => !change.held);

function stateOf(item) {
  const held = item.held?.held;
  if (held?.why === "refused") return `not saved: ${held.message}`;
  if (!isLate(item)) return "";
  return item.removal ? "not deleted yet" : "not saved yet";
}

const isListed = (item) =>
  (!item.removal || (isLate(item) && item.removal.tried)) &&
  (rows.isEditing(item) || item.held || belongs(item, store));

const rows = new Rows($("todos"), {
  rowTemplate: $("row-template"),
  editorTemplate: $("editor-template"),
  limit,
  on: {
    state: stateOf,
    save: (item, text, seen) => actions.rewrite(item, text, seen),
    giveUp: (item) => store.giveUp(item),
    addAgain: (item, text) => actions.addAgain(item, text),
    typed: saveDraft,
    closed(item) {
      saveDraft();
      if (item.gone) store.release(item);
      else show(item);
    },
  },
});

function show(item) {
  const held = item.held?.held;
  if (held && item.held.kind === "remove") {
    // A todo that somebody else changed is not deleted; the person can delete it again.
    const { theirs } = held;
    store.giveUp(item);
    notices.alert("kept", ["It was changed to “", bdi(theirs), "” by somebody else, and was not deleted."]);
    return;
  }
  if (!isListed(item)) {
    rows.drop(item, false);
    return;
  }
  rows.show(item);
  const needsChoice = held?.why === "conflict" || held?.why === "gone";
  if (needsChoice && !rows.isEditing(item)) {
    rows.edit(item, { focus: false, seen: item.held.was.text, text: item.held.text });
  }
}

const store = new Store(api, db, name, {
  show,
  drop(item, byOthers) {
    if (byOthers && rows.holdsFocus(item)) notices.say("“", bdi(item.text), "” was deleted by somebody else.");
    rows.drop(item, byOthers);
  },
  isEditing: (item) => rows.isEditing(item),
  size: () => rows.size,
  count,
  waiting,
  refused(change, item, message) {
    const text = item?.text ?? change.was?.text;
    const what = change.items || !text ? ["The todos"] : ["“", bdi(short(text)), "”"];
    const done = isRemoval(change) ? "deleted" : change.completed ? "completed" : "marked as to do";
    notices.alert("refused", [...what, ` could not be ${done}: ${message}.`]);
  },
  reached() {
    $("trouble").hidden = true;
    count();
    notices.alert("unreached");
  },
  unreached() {
    // One alert per fault: the one about unsaved changes covers this.
    if (!$("trouble").hidden || late() > 0) return;
    notices.alert("unreached", ["The todos are unavailable. What you see may be out of date; retrying."], [
      button("Try now", () => store.retry()),
    ]);
  },
});

const actions = new Actions(store, rows, notices);

/** How many changes could not be sent. */
const late = () => (store.queue.failure ? store.queue.changes.filter((change) => !change.held).length : 0);

/** Reports what waits, and what closing the page would lose. */
function waiting(queue) {
  const count = late();
  const changes = count === 1 ? "One change is" : `${count} changes are`;
  const reason = queue.failure?.alone ? `the server says “${queue.failure.message}”` : "the todos are unavailable";
  const kept = queue.isKept
    ? "It is kept here and will be sent again automatically."
    : "This browser stores nothing for the page: keep it open until everything is saved.";
  const words = count > 0 ? [`${changes} not saved: ${reason}. ${kept}`] : [];
  if (count > 0) notices.alert("unreached");
  notices.alert("unsaved", words, [button("Try now", () => store.retry())]);
  if (!queue.isFull) notices.alert("full");
}

const wouldBeLost = () => !store.queue.isKept || (!drafts.isKept && (field.text !== "" || rows.edits.length > 0));
addEventListener("beforeunload", (event) => wouldBeLost() && event.preventDefault());

/** Hides `element`; if it has the focus, the field gets it. */
function hide(element, isHidden) {
  if (!element || element.hidden === isHidden) return;
  const hadFocus = element.contains(document.activeElement);
  element.hidden = isHidden;
  if (isHidden && hadFocus) give($("new-todo"));
}

let counting = false;

/** Updates the counts, batching the changes of one task. */
function count() {
  if (counting) return;
  counting = true;
  queueMicrotask(() => {
    counting = false;
    const { total, active } = store.counts;
    const words = `${active} ${active === 1 ? "item" : "items"} left`;
    if ($("left").textContent !== words) $("left").textContent = words;
    const counts = { all: total, active, completed: total - active };
    for (const element of counters) {
      // Counts are of the whole list: unknown during a search, and before the list has loaded.
      const isKnown = !store.search && $("trouble").hidden;
      const text = isKnown ? String(counts[element.dataset.count]) : "";
      if (element.textContent !== text) element.textContent = text;
    }
    // These act on the whole list, too.
    hide($("clear"), total <= active || store.search !== "");
    hide($("complete"), active === 0 || store.search !== "");
    $("loading").hidden = !store.loading || rows.size > 0;
    $("empty").hidden = store.loading || rows.size > 0 || Boolean(store.next);
    older.hidden = !store.next;
    // Even without the server's list there may be todos that are not sent yet.
    $("list").hidden = !$("trouble").hidden && rows.size === 0;
    const tally = $("tally");
    if (tally) tally.hidden = $("list").hidden;
  });
}

// What is typed

const field = new Field($("new-todo"), $("new-todo-hint"), {
  limit,
  on: {
    add: (texts) => actions.add(texts),
    typed: saveDraft,
    down: () => rows.move(1),
    ask: (lines) => ask(lines),
  },
});

function saveDraft() {
  const edits = rows.edits
    .filter(([item]) => !item.held && typeof item.name === "number")
    .map(([item, seen, text]) => ({ item: item.name, seen, text }));
  drafts.save({ text: field.text, edits });
}

async function resumeDraft() {
  const { text, edits } = await drafts.resume(() => field.text === "");
  if (text) field.text = text;
  for (const edit of edits) {
    const item = await store.bring(edit.item, edit.seen);
    if (!rows.isEditing(item)) rows.edit(item, { ...edit, focus: false });
  }
  saveDraft();
}

/** Asks before a paste creates many todos. */
function ask(lines) {
  const dialog = document.createElement("dialog");
  const question = document.createElement("h2");
  question.textContent = `Add ${lines} todos?`;
  question.id = "question";
  dialog.setAttribute("aria-labelledby", question.id);
  const yes = button(`Add ${lines} todos`, () => dialog.close("yes"));
  yes.classList.add("primary");
  dialog.append(question, yes, " ", button("Cancel", () => dialog.close()));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(dialog.returnValue === "yes");
    });
  });
}

// What is pressed

const forms = {
  add: () => field.submit(),
  clear: () => actions.clearCompleted(),
  complete: () => actions.completeAll(),
  search: () => goTo({ filter: store.filter, search: $("search").value.trim() }),
  toggle: (item) => actions.toggle(item),
  delete: (item) => actions.remove(item),
  open: (item) => rows.edit(item),
};

// Another part of the list, without leaving the page

const reload = () => store.reload().catch((error) => notices.alert("unreached", [error.message]));

function arrive(place) {
  store.filter = place.filter;
  store.search = place.search;
  store.next = "";
  showPlace(place);
  for (const item of store.items) show(item);
  count();
  return reload();
}

const goTo = (place, replace) => {
  setAddress(place, replace);
  arrive(place);
};
const goToFilter = (filter) => goTo({ filter, search: store.search });

// Search as you type: the URL follows, and one Back leaves the search.
let typing = 0;
$("search")?.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const search = $("search").value.trim();
    if (search !== store.search) goTo({ filter: store.filter, search }, Boolean(store.search));
  }, 200);
});

// More of the list on reaching its end

const more = () => store.more().catch(() => {});
// Start: take over what the server rendered

const { at, total, active, next, unreached, kept } = main.dataset;
const address = new URL(location.href);
const editing = address.searchParams.get("edit");
Object.assign(store, placeOf(address));
store.adopt(rows.adopt(), { at: Number(at), total: Number(total), active: Number(active), next });
// A page kept from the last visit is out of date.
if (unreached !== undefined || kept !== undefined || editing || address.searchParams.has("cursor")) {
  $("newest")?.remove();
  reload().then(() => {
    const item = editing && store.find(editing);
    if (item) rows.edit(item);
  });
}
setAddress(store, true);
count();

// Everything has started: from here on, the scripts handle forms and links.

document.addEventListener("submit", (event) => {
  const run = forms[event.target.dataset.form];
  if (!run) return;
  event.preventDefault();
  const item = rows.itemAt(event.target);
  if (item || run.length === 0) run(item);
});

$("todos").addEventListener("click", (event) => {
  // Selecting a part of the text must not open the editor.
  if (!event.target.closest(".text") || event.target.closest(".edit") || !getSelection().isCollapsed) return;
  const item = rows.itemAt(event.target);
  if (item) rows.edit(item);
});

older.addEventListener("click", (event) => {
  event.preventDefault();
  more();
});

useAddress(goTo, arrive);
document.body.classList.add("scripted");
start("guard", () => guardPresses([$("todos"), $("toasts")]));
start("more", () => {
  const near = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && more(), {
    rootMargin: "400px",
  });
  near.observe(older);
});

store.queue.resume().catch((error) => report("queue", error));
resumeDraft().catch((error) => report("drafts", error));

addEventListener("online", () => store.retry());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) store.queue.hurry();
  else store.retry();
});
addEventListener("pagehide", () => store.queue.hurry());
addEventListener("pageshow", ({ persisted }) => {
  if (!persisted) return;
  store.queue.resume().catch((error) => report("queue", error));
  reload();
});

const atRow = (run) => (target) => {
  const item = rows.itemAt(target);
  if (item) run(item);
};

/** What other parts of the page need from this one. */
export const board = {
  events: {
    url: api.events,
    changed: (kind, todo) => store.learn(kind, todo),
    counts: (counts) => store.learnCounts(counts),
    missed() {
      store.forgetCounts();
      store.retry();
      reload();
    },
    state(connected) {
      // Shown only after the first connection: a backend may have no stream.
      if (connected) $("live").hidden = false;
      else store.forgetCounts();
      $("live").dataset.connected = connected;
      $("live").textContent = connected ? "Live" : "Reconnecting…";
    },
  },
  keys: {
    dialog: $("help"),
    opener: $("help-opener"),
    toggle: $("shortcuts"),
    undo: () => notices.undoLast(),
    commands: {
      n: () => field.focus(),
      "/": () => $("search")?.focus(),
      j: () => rows.move(1),
      k: () => rows.move(-1),
      ArrowDown: () => rows.move(1),
      ArrowUp: () => rows.move(-1),
      u: () => notices.undoLast(),
      1: () => goToFilter("all"),
      2: () => goToFilter("active"),
      3: () => goToFilter("completed"),
    },
    rowCommands: {
      x: atRow((item) => actions.toggle(item)),
      e: atRow((item) => rows.edit(item)),
      d: atRow((item) => actions.remove(item)),
    },
  },
};
