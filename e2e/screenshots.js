// Makes the pictures of the README, under docs/images/.

import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { launch, TodoPage } from "./lib/browser.js";
import { startCluster } from "./lib/ingress.js";
import { startStandalone, startTodoApp } from "./lib/system.js";

const FOLDER = process.argv[2] ?? fileURLToPath(new URL("../docs/images", import.meta.url));
const TODOS = [
  ["Return the library books", true],
  ["Ask Ming about the outbox metrics", false],
  ["Book a table for six on Friday", true],
  ["Renew the certificate of the staging cluster before the end of the month, and write down how", false],
  ["שלום עולם: לקנות לחם", false],
  ["Water the plants", false],
];

const cluster = await startCluster({ startStandalone, startTodoApp });
const browser = await launch();

async function open(options, path = "/staging/", url = cluster.url) {
  const context = await browser.newContext({ ...options });
  const page = await context.newPage();
  await page.goto(url + path);
  await page.waitForFunction(() => [...document.images].every((image) => image.complete));
  return page;
}

const shot = (page, name, options = {}) =>
  page.screenshot({ path: join(FOLDER, `${name}.png`), animations: "disabled", ...options });

const api = `${cluster.url}/staging/todos/`;
const headers = { "content-type": "application/json" };
for (const [text, completed] of TODOS) {
  const made = await fetch(api, { method: "POST", headers, body: JSON.stringify({ text }) });
  const { id } = await made.json();
  if (completed) {
    await fetch(api + id, { method: "PUT", headers, body: JSON.stringify({ completed }) });
  }
}

const wide = { viewport: { width: 1120, height: 760 } };
const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
await shot(await open({ ...wide, colorScheme: "light", deviceScaleFactor: 2 }), "todos");
await shot(await open({ ...wide, colorScheme: "dark" }), "dark");
await shot(await open({ ...wide }, "/production/", cluster.standalone), "production");
await shot(await open(phone), "phone");

const unsaved = await open(wide);
cluster.setDown(true);
await new TodoPage(unsaved).add("Written while the backend was away");
await new TodoPage(unsaved).alert.first().waitFor();
await shot(unsaved, "unsaved");
await shot(await open(wide), "backend-down");
cluster.setDown(false);

await fetch(`${api}?completed=true`, { method: "DELETE" });
await shot(await open(wide, "/staging/?filter=completed"), "empty");

await browser.close();
await cluster.stop();
