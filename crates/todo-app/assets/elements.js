// Parts of a message.

/** Isolates user text, so its direction does not affect the text around it. */
export function bdi(text) {
  const element = document.createElement("bdi");
  element.textContent = text;
  return element;
}

/** @param {() => void} run */
export function button(label, run) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "button";
  element.textContent = label;
  element.addEventListener("click", run);
  return element;
}

/** @param {(string | Node)[]} parts */
export function paragraph(...parts) {
  const element = document.createElement("p");
  element.append(...parts);
  return element;
}
