// The editor of a todo, and what somebody else did to the todo meanwhile.

import { bdi, button } from "./elements.js";
import { cleaned, faultOf, oneLine } from "./text.js";

export class Editor {
  /** The text when the person began to edit. */
  seen;
  #form;
  #field;
  #fault;
  #others;
  #item;
  #limit;
  #on;
  #closed;
  #isOpen = true;
  #isPressing = false;

  /**
   * @param {HTMLFormElement} form
   * @param {import("./store.js").Item} item
   * @param options `on.save(item, text, seen)` replaces the text that was
   *   seen, `on.keepMine(item)`, `on.giveUp(item)`, `on.addAgain(item, text)`,
   *   `on.typed()`; `closed(back)` reports whether the focus returns to the row
   */
  constructor(form, item, { limit, on, closed, seen, text }) {
    this.#form = form;
    this.#item = item;
    this.#limit = limit;
    this.#on = on;
    this.#closed = closed;
    this.#field = form.elements.namedItem("text");
    this.#fault = form.querySelector(".error");
    this.#fault.id = `fault-${item.key}`;
    this.seen = seen ?? this.#current;
    this.#field.value = oneLine(text ?? item.text);
    this.#field.setAttribute("aria-label", `Edit ${this.seen}`);
    this.#others = document.createElement("div");
    this.#others.className = "others";
    this.#others.setAttribute("role", "alert");
    form.append(this.#others);

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save(true);
    });
    form.addEventListener("keydown", (event) => this.#press(event));
    form.querySelector(".cancel").addEventListener("click", () => this.#cancel());
    this.#field.addEventListener("input", () => {
      this.#say("");
      on.typed();
    });
    // Safari does not focus a pressed button: the blur must not save.
    form.addEventListener("pointerdown", () => {
      this.#isPressing = true;
      const release = () => {
        this.#isPressing = false;
        removeEventListener("pointerup", release, true);
        removeEventListener("pointercancel", release, true);
      };
      addEventListener("pointerup", release, true);
      addEventListener("pointercancel", release, true);
    });
    form.addEventListener("focusout", ({ relatedTarget }) => {
      // The window lost the focus, not the field, or one of our buttons got it.
      if (this.#isPressing || document.activeElement === this.#field || form.contains(relatedTarget)) return;
      this.#save(false);
    });
  }

  get text() {
    return this.#field.value;
  }

  get isChanged() {
    return cleaned(this.text) !== cleaned(this.seen) || Boolean(this.#item.held);
  }

  focus() {
    this.#field.focus();
    this.#field.setSelectionRange(this.text.length, this.text.length);
  }

  /** Shows what became of the todo. */
  update() {
    const { held, gone } = this.#item;
    if (gone || held?.held.why === "gone") return this.#showGone();
    const theirs = held?.held.why === "conflict" ? held.held.theirs : this.#current;
    if (held?.held.why === "refused") this.#say(`Not saved: ${held.held.message}`);
    if (theirs === this.seen || held?.held.why === "refused") return this.#showOthers("");
    if (!this.isChanged) {
      // Nothing was typed: continue from the current text.
      this.seen = theirs;
      this.#field.value = oneLine(theirs);
      this.#field.setAttribute("aria-label", `Edit ${theirs}`);
      return this.#showOthers("");
    }
    if (cleaned(theirs) === cleaned(this.text) && !held) {
      this.seen = theirs;
      return this.#showOthers("");
    }
    return this.#showOthers(`conflict ${theirs}`, [
      "Somebody else changed it to “",
      bdi(theirs),
      "”.",
      button("Keep mine", () => this.#keepMine(theirs)),
      button("Take theirs", () => this.#takeTheirs()),
    ]);
  }

  /** Closes the editor without saving. */
  end() {
    this.#close(false);
  }

  /** The text that others see: the server's, or the one being sent to it. */
  get #current() {
    return this.#item.held ? (this.#item.server?.text ?? this.#item.text) : this.#item.text;
  }

  #press(event) {
    // Safari ends a composition before it reports the Enter that ended it.
    if (event.isComposing || event.keyCode === 229) {
      if (event.key === "Enter") event.preventDefault();
      return;
    }
    if (event.key === "Escape") {
      event.stopPropagation();
      event.preventDefault();
      this.#cancel();
    } else if (event.key === "Enter" && event.target === this.#field) {
      event.preventDefault();
      if (!event.repeat) this.#save(true);
    }
  }

  /** @param {boolean} asked by the person; otherwise the focus left */
  #save(asked) {
    if (!this.#isOpen) return;
    const text = cleaned(this.text);
    if (text === cleaned(this.seen) && !this.#others.dataset.state && !this.#item.held) return this.#close(asked);
    const message = faultOf(text, this.#limit);
    if (message) return this.#say(message);
    // The person must choose: losing the focus stores nothing.
    if (this.#others.dataset.state) {
      if (asked) this.#others.querySelector("button").focus();
      return undefined;
    }
    const { seen } = this;
    this.#close(asked);
    return this.#on.save(this.#item, text, seen);
  }

  #cancel() {
    if (this.#item.held || this.#item.gone) this.#on.giveUp(this.#item);
    this.#close(true);
  }

  #keepMine(theirs) {
    const text = cleaned(this.text);
    const message = faultOf(text, this.#limit);
    if (message) return this.#say(message);
    this.#close(true);
    return this.#on.save(this.#item, text, theirs);
  }

  #takeTheirs() {
    this.#on.giveUp(this.#item);
    this.#close(true);
  }

  #addAgain() {
    const text = cleaned(this.text);
    const message = faultOf(text, this.#limit);
    if (message) return this.#say(message);
    this.#close(false);
    return this.#on.addAgain(this.#item, text);
  }

  #showGone() {
    this.#showOthers("gone", [
      "Somebody else deleted this todo.",
      button("Add it again", () => this.#addAgain()),
      button("Discard", () => this.#cancel()),
    ]);
  }

  /** @param {string} state identifies what is shown, so it is announced once */
  #showOthers(state, parts = []) {
    if ((this.#others.dataset.state ?? "") === state) return;
    this.#others.dataset.state = state;
    if (!state) delete this.#others.dataset.state;
    const words = document.createElement("p");
    words.append(...parts.filter((part) => part.tagName !== "BUTTON"));
    this.#others.replaceChildren(...(state ? [words, ...parts.filter((part) => part.tagName === "BUTTON")] : []));
  }

  #say(message) {
    this.#fault.textContent = message;
    this.#fault.hidden = !message;
    if (message) {
      this.#field.setAttribute("aria-invalid", "true");
      this.#field.setAttribute("aria-describedby", this.#fault.id);
    } else {
      this.#field.removeAttribute("aria-invalid");
      this.#field.removeAttribute("aria-describedby");
    }
  }

  #close(back) {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#closed(back);
  }
}
