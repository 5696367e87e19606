// What the page says by itself: alerts that stay while they are true, and
// short notices with a way back.

/** How long a change may be undone. */
const UNDO_TIME = 7_000;

export class Notices {
  #alerts;
  #toasts;
  #pending = new Set();

  constructor(alerts, toasts) {
    this.#alerts = alerts;
    this.#toasts = toasts;
  }

  /**
   * Shows an alert in place of the one with the same name; none where
   * `message` is empty. It stays until it is replaced or dismissed.
   */
  alert(name, message, action = null) {
    const old = this.#alerts.querySelector(`[data-name="${name}"]`);
    if (old?.firstChild?.textContent === message) return;
    old?.remove();
    if (!message) return;
    const alert = document.createElement("div");
    alert.className = "alert";
    alert.dataset.name = name;
    alert.append(paragraph(message));
    const close = () => alert.remove();
    alert.append(action ? button(action.label, action.run) : button("Dismiss", close));
    this.#alerts.append(alert);
  }

  /**
   * Says what was done and offers to undo it for a while. Then, or when the
   * page goes away (`last`), `commit` is called.
   */
  offerUndo(message, { commit, undo }) {
    const toast = document.createElement("div");
    toast.className = "toast";
    const entry = {
      end: (run) => {
        if (!this.#pending.delete(entry)) return;
        clearTimeout(timer);
        toast.remove();
        run();
      },
      commit: (last) => entry.end(() => commit({ last })),
      undo: () => entry.end(undo),
    };
    let timer;
    const start = () => {
      clearTimeout(timer);
      timer = setTimeout(() => entry.commit(false), UNDO_TIME);
    };
    const stop = () => clearTimeout(timer);
    // Who is about to press the button must not lose it.
    toast.addEventListener("pointerenter", stop);
    toast.addEventListener("pointerleave", start);
    toast.addEventListener("focusin", stop);
    toast.addEventListener("focusout", start);
    toast.append(paragraph(message), button("Undo", entry.undo));
    this.#pending.add(entry);
    this.#toasts.append(toast);
    start();
    return entry;
  }

  /** Undoes the last change that can be undone. */
  undoLast() {
    [...this.#pending].at(-1)?.undo();
  }

  commitAll() {
    for (const entry of [...this.#pending]) entry.commit(true);
  }
}

function paragraph(text) {
  const element = document.createElement("p");
  element.textContent = text;
  element.dir = "auto";
  return element;
}

function button(label, run) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "button";
  element.textContent = label;
  element.addEventListener("click", run);
  return element;
}
