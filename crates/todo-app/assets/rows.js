// The list as it is seen: one row an item, in order, with its editor.

import { setTime } from "./time.js";

/** How many characters a text has, as the server counts them: code points. */
export const lengthOf = (text) => [...text].length;

/** Why `text` cannot be saved; empty where it can. */
export function faultOf(text, limit) {
  if (text === "") return "Write what is to be done.";
  const length = lengthOf(text);
  return length > limit ? `Make it shorter: it has ${length} characters, and ${limit} fit.` : "";
}

/** What is saved of what was typed. */
export const cleaned = (text) => (text.toWellFormed?.() ?? text).trim();

/** The row of one item. */
class Row {
  constructor(element) {
    this.element = element;
    const find = (selector) => element.querySelector(selector);
    this.tick = find(".tick");
    this.words = find(".text");
    this.time = find("time");
    this.unsaved = find(".unsaved");
    this.edit = find("[data-form=open] button");
    this.remove = find("[data-form=delete] button");
    this.editor = null;
  }

  update(item) {
    const { key, text, completed } = item;
    this.element.dataset.key = key;
    this.words.id = `text-${key}`;
    this.words.textContent = text;
    this.tick.setAttribute("aria-labelledby", this.words.id);
    this.tick.setAttribute("aria-checked", String(completed));
    this.edit.setAttribute("aria-label", `Edit ${text}`);
    this.remove.setAttribute("aria-label", `Delete ${text}`);
    setTime(this.time, item.createdAt ?? new Date().toISOString());
    this.element.classList.toggle("failed", item.failed);
    this.unsaved.hidden = !item.failed;
    this.unsaved.textContent = item.wish.deleted ? "not deleted yet" : "not saved yet";
  }
}

export class Rows {
  #list;
  #rowTemplate;
  #editorTemplate;
  #limit;
  #rendered = new Map();
  #rows = new Map();
  #items = new Map();
  #saved;

  /** @param saved is called with an item and the text that was edited */
  constructor(list, { rowTemplate, editorTemplate, limit, saved }) {
    this.#list = list;
    this.#rowTemplate = rowTemplate;
    this.#editorTemplate = editorTemplate;
    this.#limit = limit;
    this.#saved = saved;
  }

  get size() {
    return this.#rows.size;
  }

  /** The todos of the rows that the server rendered, which are used further. */
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
    return todos;
  }

  /** The item whose row holds `node`. */
  itemAt(node) {
    return this.#items.get(node.closest?.(".todo"));
  }

  /** Puts the row of `item` where it belongs, or brings it up to date. */
  show(item) {
    let row = this.#rows.get(item);
    if (!row) {
      const rendered = this.#rendered.get(item.server?.id);
      row = rendered ?? new Row(this.#rowTemplate.content.firstElementChild.cloneNode(true));
      this.#rows.set(item, row);
      if (rendered) this.#rendered.delete(item.server.id);
      else this.#place(row.element, item);
      this.#items.set(row.element, item);
    }
    row.update(item);
  }

  drop(item) {
    const row = this.#rows.get(item);
    if (!row) return;
    const { element } = row;
    if (element.contains(document.activeElement)) this.#focusBeside(element);
    this.#rows.delete(item);
    this.#items.delete(element);
    element.remove();
  }

  focus(item, part = "tick") {
    this.#rows.get(item)?.[part].focus();
  }

  /** Moves the focus `step` rows down, from the row that has it. */
  move(step) {
    const rows = [...this.#list.children];
    const at = rows.findIndex((element) => element.contains(document.activeElement));
    const next = at < 0 ? (step > 0 ? 0 : -1) : Math.min(rows.length - 1, Math.max(0, at + step));
    const element = rows.at(next);
    (element?.querySelector(".edit input") ?? element?.querySelector(".tick"))?.focus();
    element?.scrollIntoView({ block: "nearest" });
  }

  isEditing(item) {
    return Boolean(this.#rows.get(item)?.editor);
  }

  /** Turns the row into a field. */
  edit(item) {
    const row = this.#rows.get(item);
    if (!row || row.editor) return;
    const form = this.#editorTemplate.content.firstElementChild.cloneNode(true);
    const input = form.elements.namedItem("text");
    const fault = form.querySelector(".error");
    fault.id = `fault-${item.key}`;
    input.value = item.text;
    input.setAttribute("aria-label", `Edit ${item.text}`);

    const say = (message) => {
      fault.textContent = message;
      fault.hidden = !message;
      if (message) {
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-describedby", fault.id);
      } else {
        input.removeAttribute("aria-invalid");
        input.removeAttribute("aria-describedby");
      }
    };
    const close = (focus) => {
      if (row.editor !== form) return;
      row.editor = null;
      row.element.classList.remove("editing");
      form.remove();
      if (focus) row.edit.focus();
    };
    const save = (focus) => {
      if (row.editor !== form) return;
      const text = cleaned(input.value);
      const message = faultOf(text, this.#limit);
      if (message) {
        say(message);
        return;
      }
      close(focus);
      if (text !== item.text) this.#saved(item, text);
    };

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      save(true);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.stopPropagation();
      close(true);
    });
    form.querySelector(".cancel").addEventListener("click", () => close(true));
    input.addEventListener("input", () => say(""));
    form.addEventListener("focusout", (event) => {
      // The window lost the focus, not the field; or it went to our buttons.
      if (document.activeElement === input || form.contains(event.relatedTarget)) return;
      save(false);
    });

    row.editor = form;
    row.element.classList.add("editing");
    row.element.append(form);
    input.focus();
    input.setSelectionRange(input.value.length, input.value.length);
  }

  #place(element, item) {
    const last = this.#items.get(this.#list.lastElementChild);
    // A page of the list is longer below: no search there.
    const isLast = !last || !item.isAbove(last);
    const below = isLast
      ? null
      : [...this.#list.children].find((other) => item.isAbove(this.#items.get(other)));
    this.#list.insertBefore(element, below ?? null);
  }

  /** Gives the focus to the row below, or above, or nobody. */
  #focusBeside(element) {
    const beside = element.nextElementSibling ?? element.previousElementSibling;
    const control = beside?.querySelector(".tick") ?? document.getElementById("new-todo");
    control.focus({ preventScroll: true });
  }
}
