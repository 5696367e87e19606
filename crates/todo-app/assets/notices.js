// Messages of the page: alerts that stay while they are true, announcements for
// screen readers, and one short notice with an Undo.

import { button, paragraph } from "./elements.js";
import { give } from "./focus.js";
import { UNDO_LIMIT, UNDO_TIME } from "./queue.js";

/** @typedef {(string | Node)[]} Words a message; user text is in `<bdi>` */

export class Notices {
  #alerts;
  #toasts;
  #voice;
  #home;
  #undos = [];
  #toast = null;
  #timer = 0;
  #from = null;

  /** @param {HTMLElement} home gets the focus of a notice that is removed */
  constructor(alerts, toasts, home) {
    this.#alerts = alerts;
    this.#toasts = toasts;
    this.#home = home;
    this.#voice = document.createElement("p");
    this.#voice.className = "visually-hidden";
    this.#voice.setAttribute("role", "status");
    toasts.after(this.#voice);
    document.addEventListener("keydown", (event) => this.#tab(event), true);
  }

  /**
   * Replaces the alert of that `name`; removes it if there are no words.
   * An alert stays until it is replaced or dismissed.
   *
   * @param {Words} words
   * @param {HTMLButtonElement[]} actions
   */
  alert(name, words = [], actions = []) {
    const old = this.#alerts.querySelector(`[data-name="${name}"]`);
    const message = paragraph(...words);
    if (old?.firstChild.textContent === message.textContent) return;
    if (old) this.#takeAway(old);
    if (words.length === 0) return;
    const alert = document.createElement("div");
    alert.className = "alert";
    alert.dataset.name = name;
    const close = () => this.#takeAway(alert);
    alert.append(message, ...(actions.length > 0 ? actions : [button("Dismiss", close)]));
    this.#alerts.append(alert);
  }

  /** Announces to screen readers. @param {Words} words */
  say(...words) {
    this.#voice.replaceChildren(...words);
  }

  /**
   * Offers to undo a change: by key for long, by button for a while. Only the
   * newest change has a button.
   *
   * @param {Words} words
   * @param {() => void} undo
   * @param {{quiet?: boolean}} options no button, for a change that is visible
   */
  offerUndo(words, undo, { quiet = false } = {}) {
    const entry = { words, undo, until: performance.now() + UNDO_TIME, quiet };
    this.#undos.push(entry);
    if (this.#undos.length > UNDO_LIMIT) this.#undos.shift();
    if (quiet) this.say(...words.map((word) => word.cloneNode?.(true) ?? word), ". Undo with U or Control Z.");
    else this.#show(entry);
    return entry;
  }

  /** Undoes the last change. */
  undoLast() {
    const entry = this.#undos.at(-1);
    if (entry) this.#undo(entry);
    else this.say("There is nothing to undo.");
  }

  #undo(entry) {
    this.#undos = this.#undos.filter((other) => other !== entry);
    const hadFocus = this.#toast?.contains(document.activeElement);
    entry.undo();
    this.say("Undone.");
    this.#showNext();
    if (hadFocus && (document.activeElement === document.body || this.#toasts.contains(document.activeElement))) this.#giveBack();
  }

  #show(entry) {
    clearTimeout(this.#timer);
    const toast = document.createElement("div");
    toast.className = "toast";
    const undo = button("Undo", () => this.#undo(entry));
    undo.setAttribute("aria-keyshortcuts", "u Control+Z");
    toast.append(paragraph(...entry.words), undo);
    const start = () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#showNext(), Math.max(0, entry.until - performance.now()));
    };
    const stop = () => {
      clearTimeout(this.#timer);
      entry.until = Math.max(entry.until, performance.now() + 2_000);
    };
    // The button must not vanish just before it is pressed.
    toast.addEventListener("pointerenter", stop);
    toast.addEventListener("pointerleave", start);
    toast.addEventListener("focusin", stop);
    toast.addEventListener("focusout", start);
    this.#toasts.replaceChildren(toast);
    this.#toast = toast;
    this.#from = null;
    start();
  }

  #showNext() {
    clearTimeout(this.#timer);
    this.#toasts.replaceChildren();
    this.#toast = null;
    const next = this.#undos.findLast((entry) => !entry.quiet && entry.until > performance.now());
    if (next) this.#show(next);
  }

  /** Undo is one Tab away from anywhere, and one Tab leads back. */
  #tab(event) {
    if (event.key !== "Tab" || event.ctrlKey || event.altKey || event.metaKey || !this.#toast) return;
    if (this.#toast.contains(document.activeElement)) {
      event.preventDefault();
      this.#giveBack();
    } else if (!this.#from && !event.shiftKey && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      this.#from = document.activeElement;
      this.#toast.querySelector("button").focus();
    }
  }

  #giveBack() {
    const from = this.#from;
    give(from?.isConnected && from !== document.body ? from : this.#home);
  }

  #takeAway(alert) {
    const hadFocus = alert.contains(document.activeElement);
    alert.remove();
    if (hadFocus) give(this.#home);
  }
}
