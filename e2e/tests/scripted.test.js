// What JavaScript adds: instant and live changes, single keys.

import { deepEqual, equal, match, ok } from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { eventually, started, stopClock, suite } from "../lib/suite.js";
import { startStandalone } from "../lib/system.js";

const world = suite(startStandalone);
beforeEach(() => world.clean());

const LIVE = 1_000;

test("changes by others appear on an open page within a second", async () => {
  const todo = await world.open();
  await todo.page.locator("#live[data-connected=true]").waitFor();
  const texts = (wanted) => eventually(() => todo.texts(), (found) => String(found) === String(wanted), LIVE);

  const milk = await world.api.add("Milk");
  await texts(["Milk"]);
  await world.api.update(milk.id, { text: "Oat milk", completed: true });
  await texts(["Oat milk"]);
  await todo.list.getByRole("checkbox", { name: "Oat milk", checked: true }).waitFor({ timeout: LIVE });
  await eventually(() => todo.left.textContent(), (left) => left === "0 items left", LIVE);
  await world.api.remove(milk.id);
  await texts([]);
});

test("two pages show each other's todos, once", async () => {
  const [one, two] = await Promise.all([world.open(), world.open()]);
  await one.page.locator("#live[data-connected=true]").waitFor();
  await two.page.locator("#live[data-connected=true]").waitFor();
  await one.add("From one");
  await two.row("From one").waitFor();
  await two.add("From two");
  await one.row("From two").waitFor();
  await two.tick("From one").click();
  await one.list.getByRole("checkbox", { name: "From one", checked: true }).waitFor();
  for (const page of [one, two]) {
    deepEqual(await page.texts(), ["From two", "From one"]);
    await eventually(() => page.left.textContent(), (left) => left === "1 item left");
  }
});

test("typing is not disturbed while the list changes", async () => {
  const old = await world.api.add("Old");
  const todo = await world.open();
  await todo.page.locator("#live[data-connected=true]").waitFor();
  await todo.newTodo.pressSequentially("Half a sen");
  await world.api.add("Made elsewhere");
  await todo.row("Made elsewhere").waitFor();
  await todo.newTodo.pressSequentially("tence");
  equal(await todo.newTodo.inputValue(), "Half a sentence");

  await todo.button("Edit", "Old").click();
  await todo.page.keyboard.type(" and");
  await world.api.update(old.id, { completed: true });
  await world.api.add("Another");
  await todo.row("Another").waitFor();
  await todo.page.keyboard.type(" more");
  await todo.page.keyboard.press("Enter");
  await todo.list.getByRole("checkbox", { name: "Old and more", checked: true }).waitFor();
});

test("leaving the field saves an edit, Escape does not", async () => {
  await world.api.add("Milk");
  const todo = await world.open();
  await todo.button("Edit", "Milk").click();
  await todo.editor("Milk").fill("Oat milk");
  await todo.newTodo.click();
  await todo.row("Oat milk").waitFor();
  await eventually(() => world.api.texts(), (texts) => String(texts) === "Oat milk");

  await todo.button("Edit", "Oat milk").click();
  await todo.editor("Oat milk").fill("Nonsense");
  await todo.page.keyboard.press("Escape");
  deepEqual(await todo.texts(), ["Oat milk"]);
  ok(await todo.button("Edit", "Oat milk").evaluate((button) => button === document.activeElement));
  deepEqual(await world.api.texts(), ["Oat milk"]);
});

test("a double click on its text edits a todo", async () => {
  await world.api.add("Milk");
  const todo = await world.open();
  await todo.page.getByText("Milk", { exact: true }).dblclick();
  await todo.editor("Milk").waitFor();
});

test("Undo is available for at least five seconds, and then the todo is deleted", async () => {
  await world.api.add("Milk");
  const todo = await world.open();
  await stopClock(todo.page);
  await todo.button("Delete", "Milk").click();
  await todo.page.mouse.move(0, 0);
  await todo.page.clock.runFor(5_500);
  ok(await todo.undo.isVisible());
  deepEqual(await world.api.texts(), ["Milk"]);
  await todo.page.clock.runFor(3_000);
  await todo.undo.waitFor({ state: "detached" });
  await eventually(() => world.api.texts(), (texts) => texts.length === 0);
});

test("a tick shows at once", async () => {
  await world.api.add("Milk");
  const todo = await world.open();
  await todo.tick("Milk").check();
  await todo.tick("Milk").uncheck();
});

test("after a delete the focus is on the todo beside it", async () => {
  for (const text of ["Three", "Two", "One"]) await world.api.add(text);
  const todo = await world.open();
  await todo.button("Delete", "Two").focus();
  await todo.page.keyboard.press("Enter");
  ok(await todo.tick("Three").evaluate((tick) => tick === document.activeElement));
});

test("Clear completed can be undone, and what is ticked meanwhile stays", async () => {
  await world.api.add("Later");
  await world.api.add("Done", true);
  const todo = await world.open();
  await todo.clear.click();
  await todo.undo.click();
  await todo.row("Done").waitFor();
  await todo.clear.click();
  await todo.tick("Later").click();
  await eventually(
    async () => (await world.api.list()).map(({ text, completed }) => `${text} ${completed}`),
    (found) => String(found) === "Later true",
  );
  await todo.row("Done").waitFor({ state: "detached" });
  deepEqual(await todo.texts(), ["Later"]);
});

test("the remaining characters are counted as on the server", async () => {
  const todo = await world.open();
  const hint = todo.page.locator("#new-todo-hint");
  equal(await hint.textContent(), "");
  await todo.newTodo.fill("x".repeat(125) + "👩‍👩‍👧");
  equal(await hint.textContent(), "10 characters left");
  await todo.newTodo.fill("x".repeat(139));
  equal(await hint.textContent(), "1 character left");
  await todo.newTodo.fill("x".repeat(143));
  equal(await hint.textContent(), "3 too many");
});

test("single keys do what the dialog says, and can be switched off", async () => {
  for (const text of ["Two", "One"]) await world.api.add(text);
  const todo = await world.open();
  const { keyboard } = todo.page;
  const dialog = todo.page.getByRole("dialog", { name: "Keyboard shortcuts" });

  await keyboard.type("n?j");
  equal(await todo.newTodo.inputValue(), "n?j");
  await keyboard.press("Escape");
  await keyboard.press("?");
  await dialog.waitFor();
  await keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });

  await keyboard.press("j");
  await keyboard.press("j");
  ok(await todo.tick("Two").evaluate((tick) => tick === document.activeElement));
  await keyboard.press("k");
  await keyboard.press("x");
  await todo.list.getByRole("checkbox", { name: "One", checked: true }).waitFor();
  await keyboard.press("e");
  await todo.editor("One").waitFor();
  await keyboard.press("Escape");
  await keyboard.press("d");
  await todo.row("One").waitFor({ state: "detached" });
  await keyboard.press("u");
  await todo.row("One").waitFor();
  await keyboard.press("2");
  await todo.row("One").waitFor({ state: "detached" });
  match(todo.page.url(), /filter=active/);
  await keyboard.press("n");
  ok(await todo.newTodo.evaluate((field) => field === document.activeElement));

  await keyboard.press("Escape");
  await keyboard.press("?");
  await dialog.getByRole("checkbox").uncheck();
  await keyboard.press("Escape");
  await keyboard.press("3");
  match(todo.page.url(), /filter=active/);
});

test("a todo that somebody else deletes during an edit can be added again", async () => {
  const milk = await world.api.add("Milk");
  const todo = await world.open();
  // Without the stream, so that the page learns of it from the response.
  await todo.page.route("**/events", (route) => route.abort());
  await todo.page.reload();
  await started(todo.page);
  await todo.button("Edit", "Milk").click();
  await world.api.remove(milk.id);
  await todo.editor("Milk").fill("Oat milk");
  await todo.page.keyboard.press("Enter");
  await todo.alert.filter({ hasText: "Somebody else deleted this todo" }).waitFor();
  await todo.page.getByRole("button", { name: "Add it again" }).click();
  await eventually(() => world.api.texts(), (texts) => String(texts) === "Oat milk");
});
