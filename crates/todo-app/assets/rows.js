// The list on the page: one row per item, in order.

import { Editor } from "./editor.js";
import { give } from "./focus.js";
import { arrived, leaving } from "./motion.js";
import { setTime } from "./time.js";

/** How many rows the browser lays out or skips together. */
const CHUNK = 50;

/** The row `step` below or above `row`; null at the end of the list. */
function beside(row, step) {
  const [side, end] = step > 0 ? ["nextElementSibling", "firstElementChild"] : ["previousElementSibling", "lastElementChild"];
  return row[side] ?? row.parentElement[side]?.[end] ?? null;
}

/** The row of one item. */
class Row {
  constructor(element) {
    this.element = element;
    // Its parent is a chunk, which has no role for screen readers.
    element.setAttribute("role", "listitem");
    const find = (selector) => element.querySelector(selector);
    this.tick = find(".tick");
    this.words = find(".text");
    this.time = find("time");
    this.unsaved = find(".unsaved");
    this.edit = find("[data-form=open] button");
    this.remove = find("[data-form=delete] button");
    // Without scripts the text is the label of the button.
    this.words.removeAttribute("for");
    this.edit.removeAttribute("id");
    /** @type {Editor | null} */
    this.editor = null;
  }

  /** @param {string} state what to say about unsaved changes; may be empty */
  update(item, state) {
    const { key, text, completed } = item;
    const { element, words, tick, unsaved } = this;
    if (element.dataset.key !== key) {
      element.dataset.key = key;
      element.id = `todo-${key}`;
      words.id = `text-${key}`;
      tick.setAttribute("aria-labelledby", words.id);
    }
    // Write only what changed: screen readers announce every write.
    if (words.textContent !== text || !this.edit.hasAttribute("aria-label")) {
      words.textContent = text;
      this.edit.setAttribute("aria-label", `Edit ${text}`);
      this.remove.setAttribute("aria-label", `Delete ${text}`);
    }
    if (tick.getAttribute("aria-checked") !== String(completed)) tick.setAttribute("aria-checked", String(completed));
    if (item.createdAt !== this.at || !item.createdAt) {
      this.at = item.createdAt;
      setTime(this.time, item.createdAt ?? new Date().toISOString());
    }
    element.classList.toggle("failed", Boolean(state));
    unsaved.hidden = !state;
    if (unsaved.textContent !== state) unsaved.textContent = state;
  }
}

export class Rows {
  #list;
  #rowTemplate;
  #editorTemplate;
  #on;
  #limit;
  #rendered = new Map();
  #rows = new Map();
  #items = new Map();
  #editing = new Set();
  /** Where the next step continues after the focused row is removed. */
  #lost = null;

  /**
   * @param on `state(item)` describes its unsaved changes; the rest is for the
   *   {@link Editor}
   */
  constructor(list, { rowTemplate, editorTemplate, limit, on }) {
    this.#list = list;
    this.#rowTemplate = rowTemplate;
    this.#editorTemplate = editorTemplate;
    // The hidden fields are for the server; the scripts do not need them.
    for (const field of rowTemplate.content.querySelectorAll("input")) field.remove();
    this.#limit = limit;
    this.#on = on;
  }

  get size() {
    return this.#rows.size;
  }

  /** Takes over the rows that the server rendered, and returns their todos. */
  adopt() {
    const todos = [];
    for (const element of [...this.#list.children]) {
      if (element.classList.contains("editing")) {
        element.remove();
        continue;
      }
      const row = new Row(element);
      const id = Number(element.dataset.id);
      this.#rendered.set(id, row);
      todos.push({
        id,
        text: row.words.textContent,
        completed: row.tick.getAttribute("aria-checked") === "true",
        created_at: row.time.dateTime,
      });
    }
    if (todos.length > 0) this.#list.append(this.#newChunk(...this.#list.children));
    return todos;
  }

  /** The item whose row holds `node`. */
  itemAt(node) {
    return this.#items.get(node?.closest?.(".todo"));
  }

  /** Inserts the row of `item` where it belongs, or updates it. */
  show(item) {
    let row = this.#rows.get(item);
    if (!row) {
      const rendered = this.#rendered.get(item.server?.id);
      row = rendered ?? new Row(this.#rowTemplate.content.firstElementChild.cloneNode(true));
      this.#rows.set(item, row);
      if (rendered) this.#rendered.delete(item.server.id);
      else this.#place(row.element, item);
      if (!rendered) arrived(row.element);
      this.#items.set(row.element, item);
    }
    row.update(item, this.#on.state(item));
    row.editor?.update();
  }

  /**
   * Removes the row of `item`. If the person did it, the focus moves to the row
   * beside it; if somebody else did, it moves nowhere, and the next step continues
   * from there.
   */
  drop(item, byOthers) {
    const row = this.#rows.get(item);
    if (!row) return;
    const { element } = row;
    if (element.contains(document.activeElement)) {
      this.#lost = { next: beside(element, 1), previous: beside(element, -1) };
      const next = this.#lost.next ?? this.#lost.previous;
      if (!byOthers) give(next?.querySelector(".tick") ?? document.getElementById("new-todo"));
    }
    row.editor?.end();
    this.#rows.delete(item);
    this.#items.delete(element);
    const chunk = element.parentElement;
    leaving(element);
    element.remove();
    if (!chunk.firstElementChild) chunk.remove();
  }

  focus(item, part = "tick") {
    const row = this.#rows.get(item);
    if (row) give(row[part]);
    return Boolean(row);
  }

  /** Moves the focus down by `step` rows, at the person's request. */
  move(step) {
    const current = document.activeElement?.closest(".todo");
    const lost = this.#lost;
    this.#lost = null;
    let next;
    if (current) next = beside(current, step);
    else if (lost?.next?.isConnected || lost?.previous?.isConnected) next = step > 0 ? lost.next : lost.previous;
    else next = step > 0 ? this.#first : this.#last;
    next ??= current;
    (next?.querySelector(".edit [name=text]") ?? next?.querySelector(".tick"))?.focus();
    next?.scrollIntoView({ block: "nearest" });
  }

  has(item) {
    return this.#rows.has(item);
  }

  holdsFocus(item) {
    return this.#rows.get(item)?.element.contains(document.activeElement) ?? false;
  }

  isEditing(item) {
    return Boolean(this.#rows.get(item)?.editor);
  }

  /** The changed editors: `[item, text that was seen, text in the field]`. */
  get edits() {
    const edits = [];
    for (const item of this.#editing) {
      const { editor } = this.#rows.get(item);
      if (editor.isChanged) edits.push([item, editor.seen, editor.text]);
    }
    return edits;
  }

  /**
   * Opens the editor of the row.
   *
   * @param {{focus?: boolean, seen?: string, text?: string}} draft its contents,
   *   if not the text of the item
   */
  edit(item, { focus = true, ...draft } = {}) {
    const row = this.#rows.get(item);
    if (!row) return;
    if (!row.editor) {
      const form = this.#editorTemplate.content.firstElementChild.cloneNode(true);
      row.editor = new Editor(form, item, {
        ...draft,
        limit: this.#limit,
        on: this.#on,
        closed: (back) => {
          row.editor = null;
          this.#editing.delete(item);
          row.element.classList.remove("editing");
          form.remove();
          if (back && row.element.isConnected) row.edit.focus();
          this.#on.closed(item);
        },
      });
      this.#editing.add(item);
      row.element.classList.add("editing");
      row.element.append(form);
      row.editor.update();
    }
    if (focus) row.editor.focus();
  }

  get #first() {
    return this.#list.firstElementChild?.firstElementChild ?? null;
  }

  get #last() {
    return this.#list.lastElementChild?.lastElementChild ?? null;
  }

  /** Moves rows into a new chunk, which is not in the list yet. */
  #newChunk(...rows) {
    const chunk = document.createElement("div");
    chunk.className = "chunk";
    chunk.setAttribute("role", "none");
    chunk.append(...rows);
    return chunk;
  }

  #place(element, item) {
    const first = this.#first;
    const isAbove = (other) => item.isAbove(this.#items.get(other));
    const isFull = (chunk) => !chunk || chunk.childElementCount >= CHUNK;
    if (!first || isAbove(first)) {
      const chunk = this.#list.firstElementChild;
      if (isFull(chunk)) this.#list.prepend(this.#newChunk(element));
      else chunk.prepend(element);
      return;
    }
    // The next page of the list goes to the end, which needs no search.
    if (!isAbove(this.#last)) {
      const chunk = this.#list.lastElementChild;
      if (isFull(chunk)) this.#list.append(this.#newChunk(element));
      else chunk.append(element);
      return;
    }
    const rows = this.#list.querySelectorAll(".todo");
    let low = 0;
    let high = rows.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isAbove(rows[middle])) high = middle;
      else low = middle + 1;
    }
    rows[low].before(element);
  }
}
