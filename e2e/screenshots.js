// Takes the README's screenshots, under docs/images/.

import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { launch } from "./lib/browser.js";
import { addExamples } from "./lib/example.js";
import { startCluster } from "./lib/ingress.js";
import { startStandalone, startTodoApp } from "./lib/system.js";

const FOLDER = process.argv[2] ?? fileURLToPath(new URL("../docs/images", import.meta.url));

const cluster = await startCluster({ startStandalone, startTodoApp });
const browser = await launch();

async function open(options, path = "/staging/") {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(cluster.url + path);
  await page.waitForFunction(() => [...document.images].every((image) => image.complete));
  // The first visit may show the fallback font.
  await page.reload();
  await page.waitForFunction(() => document.fonts.check("1rem Figtree"));
  await page.waitForFunction(() => [...document.images].every((image) => image.complete));
  return page;
}

const shot = (page, name) => page.screenshot({ path: join(FOLDER, `${name}.png`), animations: "disabled" });

await addExamples(`${cluster.url}/staging/todos/`);

const wide = { viewport: { width: 1120, height: 700 } };
await shot(await open({ ...wide, colorScheme: "light", deviceScaleFactor: 2 }), "todos");
await shot(await open({ ...wide, colorScheme: "dark", deviceScaleFactor: 2 }), "dark");

await browser.close();
await cluster.stop();
