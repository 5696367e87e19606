// The text of a todo, by the rules of the server.

const BREAKS = /\r\n|[\n\v\f\r\u0085\u2028\u2029]/;
const SHOWN = 40;

/** How many characters a text has, as the server counts them: code points. */
export const lengthOf = (text) => [...text].length;

/** `text` on one line: line breaks become spaces. */
export const oneLine = (text) => text.split(BREAKS).join(" ");

/** What is saved of typed text. */
export const cleaned = (text) => oneLine(text.toWellFormed?.() ?? text).trim();

/** The lines of `text` that are not blank. */
export const linesOf = (text) => text.split(BREAKS).map(cleaned).filter(isVisible);

/** Whether `text` has any visible character. */
const isVisible = (text) => /[^\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/u.test(text);

/** Why `text` cannot be saved; empty if it can. */
export function faultOf(text, limit) {
  if (!isVisible(text)) return "Enter what needs to be done.";
  const length = lengthOf(text);
  return length > limit ? `Too long: ${length} characters, the limit is ${limit}.` : "";
}

/** The start of `text`, for a message. */
export const short = (text) => (lengthOf(text) > SHOWN ? `${[...text].slice(0, SHOWN - 1).join("")}…` : text);
