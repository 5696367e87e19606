// The list with its forms, which work without this too.

import { Api } from "./api.js";
import { keep, read } from "./kept.js";
import { Notices } from "./notices.js";
import { cleaned, faultOf, lengthOf, Rows } from "./rows.js";
import { Store } from "./store.js";

const $ = (id) => document.getElementById(id);
const main = $("board");
/** Each environment has a list of its own. */
const UNSAVED = `unsaved ${main.dataset.api}`;
const limit = Number(main.dataset.limit);
const input = $("new-todo");
const hint = $("new-todo-hint");
const older = $("older");

const notices = new Notices($("alerts"), $("toasts"));
const api = new Api(main.dataset.api);
const rows = new Rows($("todos"), {
  rowTemplate: $("row-template"),
  editorTemplate: $("editor-template"),
  limit,
  saved: (item, text) => store.change(item, { text }),
});

const isListed = (item) =>
  !item.hidden &&
  (!item.wish.deleted || item.failed) &&
  (store.filter === "all" ||
    item.completed === (store.filter === "completed") ||
    rows.isEditing(item));

const store = new Store(api, {
  show: (item) => (isListed(item) ? rows.show(item) : rows.drop(item)),
  drop: (item) => rows.drop(item),
  count,
  trouble(failed) {
    const changes = failed === 1 ? "One change is" : `${failed} changes are`;
    const message = `${changes} not saved: the todos cannot be reached. It is kept here and sent again by itself.`;
    notices.alert("unsaved", failed ? message : "", { label: "Try now", run: () => store.retry() });
  },
  refused(item, wish, error) {
    const text = wish.text ?? item.text;
    const gone = error.status === 404;
    const message = gone
      ? `“${text}” was deleted by somebody else.`
      : `“${text}” was not saved: ${error.message}`;
    const again = { label: "Add it again", run: () => addAgain(text) };
    notices.alert("refused", message, gone && wish.text ? again : null);
  },
  reached() {
    $("trouble").hidden = true;
    count();
    notices.alert("unreached", "");
  },
  unreached() {
    if (!$("trouble").hidden) return;
    notices.alert("unreached", "The todos cannot be reached. What you see may be old; trying again.");
  },
});

const reload = () => store.reload().catch((error) => notices.alert("unreached", error.message));

function addAgain(text) {
  notices.alert("refused", "");
  store.add(text);
}

function count() {
  const { total, active } = store.counts;
  const words = `${active} ${active === 1 ? "item" : "items"} left`;
  if ($("left").textContent !== words) $("left").textContent = words;
  $("clear").hidden = total <= active;
  $("loading").hidden = !store.loading || rows.size > 0;
  $("empty").hidden = store.loading || rows.size > 0 || Boolean(store.next);
  older.hidden = !store.next;
  // Without the list of the server there may be todos that it does not have yet.
  $("list").hidden = !$("trouble").hidden && rows.size === 0;
}

function sayBesideField(message, { fault, role }) {
  hint.classList.toggle("error", fault);
  hint.setAttribute("role", role);
  hint.textContent = message;
  if (fault) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

function countCharacters() {
  const left = limit - lengthOf(cleaned(input.value));
  const message = left === 1 ? "1 character left" : `${left} characters left`;
  // Only when it matters is it said aloud while somebody writes.
  sayBesideField(message, { fault: left < 0, role: left <= 20 ? "status" : "note" });
}

function add() {
  const text = cleaned(input.value);
  const fault = faultOf(text, limit);
  if (fault) {
    sayBesideField(fault, { fault: true, role: "alert" });
    return;
  }
  store.add(text);
  input.value = "";
  countCharacters();
  input.focus();
}

const short = (text) => (lengthOf(text) > 40 ? `${[...text].slice(0, 39).join("")}…` : text);

function remove(item) {
  store.hide([item]);
  notices.offerUndo(`Deleted “${short(item.text)}”`, {
    commit: (how) => store.remove(item, how),
    undo() {
      store.unhide([item]);
      rows.focus(item, "remove");
    },
  });
}

let clearing = null;

function clearCompleted() {
  const items = store.hideCompleted();
  clearing = notices.offerUndo("Cleared what was completed", {
    commit: (how) => store.clear(items, how),
    undo: () => store.unclear(items),
  });
  input.focus();
}

function toggle(item) {
  // What is ticked now must not be cleared with what was ticked before.
  clearing?.commit(false);
  clearing = null;
  store.change(item, { completed: !item.completed });
}

const forms = { add, clear: clearCompleted, toggle, delete: remove, open: (item) => rows.edit(item) };

document.addEventListener("submit", (event) => {
  const run = forms[event.target.dataset.form];
  if (!run) return;
  event.preventDefault();
  const item = rows.itemAt(event.target);
  if (item || run.length === 0) run(item);
});

$("todos").addEventListener("dblclick", (event) => {
  if (event.target.closest(".text")) rows.edit(rows.itemAt(event.target));
});

// The list of another filter, without leaving the page.

const filterOf = (url) => new URL(url).searchParams.get("filter") ?? "all";

async function setFilter(filter) {
  store.filter = filter;
  store.next = "";
  for (const link of document.querySelectorAll("[data-filter]")) {
    if (link.dataset.filter === filter) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const text of document.querySelectorAll("[data-empty]")) {
    text.hidden = text.dataset.empty !== filter;
  }
  for (const item of store.items) {
    if (isListed(item)) rows.show(item);
    else rows.drop(item);
  }
  count();
  await reload();
}

function goTo(url) {
  history.pushState(null, "", url);
  setFilter(filterOf(url));
}

document.querySelector(".filters").addEventListener("click", (event) => {
  const link = event.target.closest("[data-filter]");
  if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  goTo(link.href);
});
addEventListener("popstate", () => setFilter(filterOf(location.href)));

// More of the list, as one gets to its end.

const more = () => store.more().catch(() => {});
older.addEventListener("click", (event) => {
  event.preventDefault();
  more();
});
new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && more(), {
  rootMargin: "400px",
}).observe(older);

// Start: what the server rendered becomes ours.

const { total, active, next, unreached } = main.dataset;
const address = new URL(location.href);
const editing = address.searchParams.get("edit");
store.filter = filterOf(address);
store.adopt(rows.adopt(), { total: Number(total), active: Number(active), next });
history.replaceState(null, "", store.filter === "all" ? location.pathname : `?filter=${store.filter}`);
document.body.classList.add("scripted");
if (unreached !== undefined || editing || address.searchParams.has("cursor")) {
  $("newest")?.remove();
  reload().then(() => {
    const item = store.items.find((item) => item.key === editing);
    if (item) rows.edit(item);
  });
}

input.addEventListener("input", countCharacters);
input.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Escape") input.blur();
  if (event.key === "ArrowDown") rows.move(1);
});
countCharacters();

const events = {
  url: api.events,
  changed: (kind, todo) => store.learn(kind, todo),
  missed() {
    store.retry();
    reload();
  },
  state(connected) {
    // A backend without a stream is no fault of the moment.
    if (connected) $("live").hidden = false;
    $("live").dataset.connected = connected;
    $("live").textContent = connected ? "Live" : "Not live: connecting again";
  },
};
addEventListener("online", () => store.retry());
addEventListener("pagehide", () => {
  notices.commitAll();
  keep(UNSAVED, JSON.stringify(store.unsaved()), "sessionStorage");
});
store.resume(JSON.parse(read(UNSAVED, "sessionStorage") ?? "[]"));
keep(UNSAVED, "[]", "sessionStorage");
// What was sent as the page went away is not known to a page that comes back.
addEventListener("pageshow", (event) => event.persisted && location.reload());

const current = (run) => (target) => {
  const item = rows.itemAt(target);
  if (item) run(item);
};
/** What other parts of the page need of this one. */
export const board = {
  events,
  keys: {
    dialog: $("help"),
    opener: $("help-opener"),
    toggle: $("shortcuts"),
    commands: {
      n: () => input.focus(),
      j: () => rows.move(1),
      k: () => rows.move(-1),
      ArrowDown: () => rows.move(1),
      ArrowUp: () => rows.move(-1),
      x: current(toggle),
      e: current((item) => rows.edit(item)),
      d: current(remove),
      u: () => notices.undoLast(),
      1: () => goTo(document.querySelector("[data-filter=all]").href),
      2: () => goTo(document.querySelector("[data-filter=active]").href),
      3: () => goTo(document.querySelector("[data-filter=completed]").href),
    },
},
};
