// The backend becomes unavailable and comes back, in the parts of a cluster.

import { deepEqual, equal, ok } from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { startCluster } from "../lib/ingress.js";
import { eventually, stopClock, suite, tryNow } from "../lib/suite.js";
import { startStandalone, startTodoApp } from "../lib/system.js";

const world = suite(() => startCluster({ startStandalone, startTodoApp }));
const up = () => world.system.setDown(false);
const down = () => world.system.setDown(true);

describe("JavaScript off", () => {
  const open = () => world.open({ javaScriptEnabled: false });
  beforeEach(async () => {
    up();
    await world.clean();
  });

  test("a page without todos says so, and Try again brings them back", async () => {
    await world.api.add("Milk");
    down();
    const todo = await open();
    await todo.alert.filter({ hasText: "The todos are unavailable" }).waitFor();
    const response = await todo.page.reload();
    equal(response.status(), 503);
    ok(Number(response.headers()["retry-after"]) > 0);
    up();
    await todo.page.getByRole("link", { name: "Try again" }).click();
    await todo.row("Milk").waitFor();
  });

  test("a todo that was not saved is still in its field", async () => {
    const todo = await open();
    down();
    await todo.newTodo.fill("Not lost");
    await todo.newTodo.press("Enter");
    await todo.alert.filter({ hasText: "The change was not saved" }).waitFor();
    equal(await todo.newTodo.inputValue(), "Not lost");
    up();
    await todo.newTodo.press("Enter");
    await todo.row("Not lost").waitFor();
    deepEqual(await world.api.texts(), ["Not lost"]);
  });

  test("an edit that was not saved can be saved again", async () => {
    await world.api.add("Milk");
    const todo = await open();
    await todo.button("Edit", "Milk").click();
    down();
    await todo.editor("Milk").fill("Oat milk");
    await todo.editor("Milk").press("Enter");
    await todo.page.getByText("Oat milk").waitFor();
    up();
    await todo.page.getByRole("button", { name: "Save again" }).click();
    await todo.row("Oat milk").waitFor();
  });
});

describe("JavaScript on", () => {
  beforeEach(async () => {
    up();
    await world.clean();
  });

  test("a page without todos loads them automatically", async () => {
    await world.api.add("Milk");
    down();
    const todo = await world.open();
    await todo.alert.filter({ hasText: "The todos are unavailable" }).waitFor();
    deepEqual(await todo.page.locator("[data-count]").allTextContents(), ["", "", ""], "nobody knows how many there are");
    await todo.newTodo.fill("Half a sen");
    up();
    await todo.row("Milk").waitFor();
    await eventually(() => todo.page.locator("[data-count]").allTextContents(), (counts) => String(counts) === "1,1,0");
    equal(await todo.newTodo.inputValue(), "Half a sen");
    equal(await todo.alert.count(), 0);
  });

  test("an unsaved todo stays, an alert says so, and it is saved automatically", async () => {
    await world.api.add("Milk");
    await world.api.add("Bread");
    const todo = await world.open();
    down();
    await todo.add("Written meanwhile");
    await todo.tick("Milk").click();
    await todo.alert.filter({ hasText: "2 changes are not saved" }).waitFor();
    ok(await todo.row("Written meanwhile").getByText("not saved yet").isVisible());
    deepEqual(await todo.texts(), ["Written meanwhile", "Bread", "Milk"]);
    up();
    await todo.alert.waitFor({ state: "detached" });
    equal(await todo.page.getByText("not saved yet").filter({ visible: true }).count(), 0);
    const found = (await world.api.list()).map(({ text, completed }) => [text, completed]);
    deepEqual(found, [["Written meanwhile", false], ["Bread", false], ["Milk", true]]);
  });

  test("a lost response creates no second todo", async () => {
    const todo = await world.open();
    let lost = 0;
    await todo.page.route("**/staging/todos/", async (route) => {
      if (route.request().method() !== "POST" || lost > 0) return route.continue();
      lost += 1;
      await route.fetch();
      return route.abort();
    });
    await todo.add("Once");
    await todo.alert.filter({ hasText: "not saved" }).waitFor();
    await tryNow(todo);
    await todo.alert.waitFor({ state: "detached" });
    deepEqual(await world.api.texts(), ["Once"]);
    await eventually(() => todo.texts(), (texts) => String(texts) === "Once");
  });

  test("unsaved changes survive a reload of the page", async () => {
    const todo = await world.open();
    down();
    await todo.add("Kept");
    await todo.alert.first().waitFor();
    await todo.page.reload();
    await todo.row("Kept").waitFor();
    up();
    await eventually(() => world.api.texts(), (texts) => String(texts) === "Kept");
  });

  test("after the stream broke, the page shows what it missed", async () => {
    const todo = await world.open();
    await todo.page.locator("#live[data-connected=true]").waitFor();
    down();
    await todo.page.locator("#live[data-connected=false]").waitFor();
    up();
    await world.api.add("Missed");
    await todo.row("Missed").waitFor({ timeout: 30_000 });
    await todo.page.locator("#live[data-connected=true]").waitFor();
  });

  test("a delete that failed shows the todo again until it is deleted", async () => {
    await world.api.add("Milk");
    const todo = await world.open();
    await stopClock(todo.page);
    await todo.button("Delete", "Milk").click();
    await todo.page.mouse.move(0, 0);
    down();
    await todo.page.clock.runFor(8_000);
    await todo.page.getByText("not deleted yet").waitFor();
    up();
    await tryNow(todo);
    await todo.row("Milk").waitFor({ state: "detached" });
    await eventually(() => world.api.texts(), (texts) => texts.length === 0);
  });
});
