// Takes screenshots of every page in every width and scheme, for review:
//
//   node looks.js FOLDER [name…]

import { mkdir } from "node:fs/promises";
import { join } from "node:path";

import { launch } from "./lib/browser.js";
import { addExamples } from "./lib/example.js";
import { startCluster } from "./lib/ingress.js";
import { eventually, started } from "./lib/suite.js";
import { startStandalone, startTodoApp } from "./lib/system.js";

const [FOLDER, ...names] = process.argv.slice(2);
const WIDTHS = { 1280: 800, 768: 1024, 390: 844, 320: 568 };
const SCHEMES = {
  light: { colorScheme: "light" },
  dark: { colorScheme: "dark" },
  forced: { colorScheme: "dark", forcedColors: "active" },
};

const cluster = await startCluster({ startStandalone, startTodoApp });
const browser = await launch();
const api = `${cluster.standalone}/staging/todos/`;
const call = async (method, path, body) => {
  const headers = { "content-type": "application/json" };
  return (await fetch(api + path, { method, headers, body: body && JSON.stringify(body) })).json();
};
const made = await addExamples(api);
const plants = made["Water the plants"];

const edit = (page, text) => page.getByRole("button", { name: `Edit ${text}`, exact: true }).evaluate((button) => button.click());

/** What a screenshot shows: a URL, and the actions on it. */
const SCENES = {
  list: { path: "/staging/" },
  editing: { path: "/staging/", act: (page) => edit(page, "Water the plants") },
  conflict: {
    path: "/staging/",
    async act(page) {
      await edit(page, "Water the plants");
      await page.locator(".edit [name=text]").fill("Water the herbs on the balcony");
      await call("PUT", String(plants.id), { text: "Water the plants of the neighbours, too" });
      await page.getByText("Somebody else changed it").waitFor();
    },
    after: () => call("PUT", String(plants.id), { text: plants.text }),
  },
  search: { path: "/staging/?q=the" },
  offline: {
    path: "/staging/",
    async act(page) {
      cluster.setDown(true);
      await page.getByRole("textbox", { name: "New todo" }).fill("Written on the train");
      await page.keyboard.press("Enter");
      await page.getByRole("alert").filter({ hasText: "not saved" }).first().waitFor();
    },
    after: () => cluster.setDown(false),
  },
  undo: {
    path: "/staging/",
    act: (page) => page.getByRole("button", { name: "Delete Ask Ming" }).first().evaluate((button) => button.click()),
    // Leaving the page deletes the todo.
    after: () => call("POST", "", { text: "Ask Ming about the outbox metrics" }),
  },
  empty: { path: "/staging/?q=nowhere" },
  unavailable: { path: "/staging/", before: () => cluster.setDown(true), after: () => cluster.setDown(false) },
  print: { path: "/staging/print" },
  start: { url: `${cluster.standalone}/` },
  inbox: { url: `${cluster.standalone}/staging/inbox` },
  docs: { path: "/staging/todos/docs" },
  "not-found": { path: "/staging/nope" },
};

await mkdir(FOLDER, { recursive: true });
for (const [name, scene] of Object.entries(SCENES)) {
  if (names.length > 0 && !names.includes(name)) continue;
  for (const [width, height] of Object.entries(WIDTHS)) {
    for (const [scheme, options] of Object.entries(SCHEMES)) {
      const viewport = { width: Number(width), height };
      const context = await browser.newContext({ viewport, hasTouch: width < 700, isMobile: width < 700, serviceWorkers: "block", ...options });
      const page = await context.newPage();
      await scene.before?.();
      await page.goto(scene.url ?? cluster.url + scene.path);
      if (await page.locator("#board").count()) await started(page);
      await scene.act?.(page);
      await eventually(() => page.evaluate(() => [...document.images].every((image) => image.complete)), Boolean);
      await page.screenshot({ path: join(FOLDER, `${name}-${width}-${scheme}.png`), animations: "disabled" });
      await scene.after?.();
      await context.close();
    }
  }
}
await browser.close();
await cluster.stop();
