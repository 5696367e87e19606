// Starts the parts of the page independently. Without them the forms and links
// work as the server rendered them.

import { start } from "./run.js";

const parts = [
  start("times", async () => (await import("./times.js")).keepTimes()),
  start("picture", async () => (await import("./picture.js")).followPicture(document.getElementById("picture"))),
  start("offline", async () => (await import("./offline.js")).openOffline()),
];
const board = await start("board", async () => (await import("./board.js")).board);
if (board) {
  parts.push(
    start("keys", async () => (await import("./keys.js")).useKeys(board.keys)),
    start("live", async () => (await import("./live.js")).follow(board.events.url, board.events)),
  );
}
await Promise.all(parts);
document.documentElement.dataset.parts = "started";
