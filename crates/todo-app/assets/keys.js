// Keyboard shortcuts, and the dialog that lists them.

import { isSeen } from "./focus.js";
import { keep, read } from "./kept.js";

const SWITCH = "shortcuts";
const FIELDS = "input:not([type=checkbox]), textarea, select, [contenteditable]";

/**
 * @param commands by key, as `KeyboardEvent.key` names it
 * @param rowCommands the same, for the row that has the focus: `run(target)`
 * @param undo for Ctrl-Z outside of fields
 */
export function useKeys({ dialog, opener, toggle, commands, rowCommands, undo }) {
  const open = () => dialog.open || dialog.showModal();
  opener.hidden = false;
  opener.addEventListener("click", open);

  // Single keys conflict with some assistive tools (WCAG 2.1.4).
  toggle.checked = read(SWITCH) !== "off";
  toggle.addEventListener("change", () => keep(SWITCH, toggle.checked ? "on" : "off"));

  /** A key that ran a command does nothing more until released, wherever the focus is. */
  let held = null;
  addEventListener("keyup", ({ key }) => {
    if (key === held) held = null;
  });
  addEventListener("blur", () => {
    held = null;
  });

  function commandOf(event) {
    if (event.ctrlKey || event.metaKey) {
      return event.key.toLowerCase() === "z" && !event.shiftKey && !event.altKey ? undo : null;
    }
    if (event.altKey || !toggle.checked) return null;
    if (event.key === "?") return open;
    const forRow = rowCommands[event.key];
    if (forRow) return isSeen() ? () => forRow(event.target) : null;
    return commands[event.key] ?? null;
  }

  document.addEventListener("keydown", (event) => {
    if (event.repeat && event.key === held) return event.preventDefault();
    if (event.defaultPrevented || event.isComposing || dialog.open || document.querySelector("dialog[open]")) return;
    if (event.target.closest?.(FIELDS)) return;
    const command = commandOf(event);
    if (!command) return;
    // Moving through the list may repeat.
    if (event.repeat && !/^(j|k|Arrow)/.test(event.key)) return event.preventDefault();
    event.preventDefault();
    if (!/^(j|k|Arrow)/.test(event.key)) held = event.key;
    command();
  });
}
