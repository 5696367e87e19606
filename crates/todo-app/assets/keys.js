// Keyboard shortcuts, and the dialog that tells them.

import { keep, read } from "./kept.js";

const SWITCH = "shortcuts";

/** @param commands by key, as `KeyboardEvent.key` names it */
export function useKeys({ dialog, opener, toggle, commands }) {
  const open = () => dialog.open || dialog.showModal();
  opener.hidden = false;
  opener.addEventListener("click", open);

  // Single keys get in the way of some people's tools (WCAG 2.1.4).
  toggle.checked = read(SWITCH) !== "off";
  toggle.addEventListener("change", () => {
    keep(SWITCH, toggle.checked ? "on" : "off");
  });

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.isComposing || !toggle.checked || dialog.open) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const command = event.key === "?" ? open : commands[event.key];
    if (!command) return;
    event.preventDefault();
    command(event.target);
  });
}
