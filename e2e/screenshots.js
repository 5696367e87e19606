// Makes the pictures of the README, under docs/images/.

import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { launch } from "./lib/browser.js";
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

async function open(options, path = "/staging/") {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(cluster.url + path);
  await page.waitForFunction(() => [...document.images].every((image) => image.complete));
  // The first visit may be shown with the fallback of the font.
  await page.reload();
  await page.waitForFunction(() => document.fonts.check("1rem Figtree"));
  await page.waitForFunction(() => [...document.images].every((image) => image.complete));
  return page;
}

const shot = (page, name) => page.screenshot({ path: join(FOLDER, `${name}.png`), animations: "disabled" });

const api = `${cluster.url}/staging/todos/`;
const headers = { "content-type": "application/json" };
for (const [text, completed] of TODOS) {
  const made = await fetch(api, { method: "POST", headers, body: JSON.stringify({ text }) });
  const { id } = await made.json();
  if (completed) {
    await fetch(api + id, { method: "PUT", headers, body: JSON.stringify({ completed }) });
  }
}

const wide = { viewport: { width: 1120, height: 700 } };
await shot(await open({ ...wide, colorScheme: "light", deviceScaleFactor: 2 }), "todos");
await shot(await open({ ...wide, colorScheme: "dark", deviceScaleFactor: 2 }), "dark");

await browser.close();
await cluster.stop();
