// The field of the new todo.

import { cleaned, faultOf, lengthOf, linesOf } from "./text.js";

/** With fewer characters left than this, the count is shown. */
const FEW = 20;
/** How long after adding a todo an empty submit is not an error. */
const JUST_ADDED = 1_000;
/** Above how many lines a paste asks first, and how many it may have at most. */
const ASK_ABOVE = 20;
const MOST_LINES = 500;

export class Field {
  #input;
  #hint;
  #limit;
  #on;
  #addedAt = -Infinity;

  /**
   * @param {HTMLInputElement} input
   * @param options `on.add(texts)` with the texts in the order of the list,
   *   `on.typed()`, `on.down()` when the person moves on to the list
   */
  constructor(input, hint, { limit, on }) {
    this.#input = input;
    this.#hint = hint;
    this.#limit = limit;
    this.#on = on;
    input.addEventListener("input", () => {
      this.#count();
      on.typed();
    });
    input.addEventListener("keydown", (event) => {
      // Safari ends a composition before it reports the Enter that ended it.
      if (event.keyCode === 229 && event.key === "Enter") event.preventDefault();
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Escape") input.blur();
      if (event.key === "ArrowDown") on.down();
    });
    input.addEventListener("paste", (event) => this.#insert(event, event.clipboardData));
    input.addEventListener("drop", (event) => this.#insert(event, event.dataTransfer));
    this.#count();
  }

  get text() {
    return this.#input.value;
  }

  set text(text) {
    this.#input.value = text;
    this.#count();
  }

  focus() {
    this.#input.focus();
  }

  /** Adds the text in the field. */
  submit() {
    const text = cleaned(this.text);
    // On a double press, the first one has added it.
    if (!text && performance.now() - this.#addedAt < JUST_ADDED) return;
    const fault = faultOf(text, this.#limit);
    if (fault) {
      this.#say(fault, { fault: true, role: "alert" });
      return;
    }
    if (!this.#on.add([text])) return;
    this.#addedAt = performance.now();
    this.text = "";
    this.#on.typed();
    this.focus();
  }

  /** Adds several lines as several todos, in their order. */
  async #insert(event, data) {
    const pasted = data?.getData("text/plain") ?? "";
    if (linesOf(pasted).length < 2) return;
    event.preventDefault();
    const { value, selectionStart, selectionEnd } = this.#input;
    const whole = value.slice(0, selectionStart) + pasted + value.slice(selectionEnd);
    const lines = linesOf(whole);
    if (lines.length > MOST_LINES) {
      this.#say(`That is ${lines.length} lines. Paste ${MOST_LINES} at most.`, { fault: true, role: "alert" });
      return;
    }
    if (lines.length > ASK_ABOVE && !(await this.#on.ask(lines.length))) return;
    const tooLong = lines.filter((line) => faultOf(line, this.#limit));
    const texts = lines.filter((line) => !faultOf(line, this.#limit));
    if (texts.length > 0 && !this.#on.add(texts)) return;
    // Keep the first line that is too long, so that it can be shortened.
    this.text = tooLong[0] ?? "";
    this.#on.typed();
    if (tooLong.length > 0) {
      const more = tooLong.length > 1 ? ` ${tooLong.length - 1} more of the lines are too long and were not added.` : "";
      this.#say(faultOf(tooLong[0], this.#limit) + more, { fault: true, role: "alert" });
    }
    this.focus();
  }

  #count() {
    const left = this.#limit - lengthOf(cleaned(this.text));
    // Show and announce the count only when it matters.
    if (left >= FEW) return this.#say("", { fault: false, role: "note" });
    const characters = left === 1 ? "1 character left" : `${left} characters left`;
    return this.#say(left < 0 ? `${-left} too many` : characters, { fault: left < 0, role: "status" });
  }

  #say(message, { fault, role }) {
    if (this.#hint.textContent === message) return;
    this.#hint.classList.toggle("error", fault);
    this.#hint.setAttribute("role", role);
    this.#hint.textContent = message;
    if (fault) this.#input.setAttribute("aria-invalid", "true");
    else this.#input.removeAttribute("aria-invalid");
  }
}
