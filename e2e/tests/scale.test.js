// A long list is as fast as a short one.

import { equal, ok } from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { eventually, setHidden, suite, withSight } from "../lib/suite.js";
import { startStandalone } from "../lib/system.js";

const world = suite(startStandalone);
beforeEach(() => world.clean());

test("ten thousand todos are shown as fast as ten", { timeout: 300_000 }, async () => {
  const numbers = Array.from({ length: 10_000 }, (_, n) => n);
  while (numbers.length > 0) {
    await Promise.all(numbers.splice(0, 50).map((n) => world.api.add(`Todo number ${n}`)));
  }
  const todo = await world.open({ prepare: withSight });
  equal(await todo.left.textContent(), "10000 items left");
  ok((await todo.texts()).length <= 200);
  const timing = await todo.page.evaluate(() => performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd);
  ok(timing < 2_000, `the page took ${timing} ms`);

  // Scrolling loads the rest, and the page stays fast.
  for (let loaded = 0; loaded < 1_000; ) {
    await todo.page.mouse.wheel(0, 20_000);
    loaded = await eventually(() => todo.list.locator("li").count(), (count) => count > loaded);
  }
  const ticked = await todo.page.evaluate(async () => {
    const start = performance.now();
    document.querySelector("#todos .tick").click();
    await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    return performance.now() - start;
  });
  ok(ticked < 500, `a tick took ${ticked} ms`);
  await eventually(() => todo.left.textContent(), (left) => left === "9999 items left");

  // After a while in another tab, the page keeps its scroll position and shows what changed.
  for (let loaded = 0; loaded < 2_500; ) {
    await todo.page.mouse.wheel(0, 50_000);
    loaded = await eventually(() => todo.list.locator("li").count(), (count) => count > loaded);
  }
  const inSight = () => todo.page.evaluate(() => document.elementFromPoint(innerWidth / 3, innerHeight / 2).closest(".todo").id);
  const place = await inSight();
  await setHidden(todo, true);
  await world.api.remove((await world.api.list("?limit=1&completed=false"))[0].id);
  const last = todo.page.waitForResponse((response) => response.url().includes("?limit=") && !response.url().includes("limit=1000"));
  await setHidden(todo, false);
  await last;
  await eventually(() => todo.left.textContent(), (left) => left === "9998 items left");
  equal(await inSight(), place);
  ok((await todo.list.locator("li").count()) >= 2_499);

  // Changes all of them, even those that are not loaded, with one Undo.
  await todo.page.getByRole("button", { name: "Complete all" }).click();
  await todo.page.locator(".toast").filter({ hasText: "Completed 9998 todos" }).waitFor({ timeout: 60_000 });
  const active = async () => (await world.api.list("?limit=1&completed=false")).length;
  await eventually(active, (count) => count === 0, 60_000);
  await todo.newTodo.press("Escape");
  await todo.page.keyboard.press("u");
  await eventually(() => todo.left.textContent(), (left) => left === "9998 items left", 60_000);
});
