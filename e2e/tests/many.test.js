// Changes of many todos: one request each, with one Undo, and without touching
// what others do meanwhile.

import { deepEqual, equal, match, ok } from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { eventually, leave, suite } from "../lib/suite.js";
import { startStandalone } from "../lib/system.js";

const world = suite(startStandalone);
beforeEach(() => world.clean());

const states = async () => (await world.api.list()).map(({ text, completed }) => `${text}${completed ? " ✓" : ""}`);
const statesBecome = (wanted) => eventually(states, (found) => String(found) === String(wanted));
const live = (todo) => todo.page.locator("#live[data-connected=true]").waitFor();

/** The changes that the page requests, as `METHOD path?query`. */
function changesOf(todo) {
  const changes = [];
  todo.page.on("request", (request) => {
    const { pathname, search } = new URL(request.url());
    if (request.method() !== "GET") changes.push(`${request.method()} ${pathname}${search}`);
  });
  return changes;
}

test("Clear completed is one request, and leaves alone what others tick and untick meanwhile", async () => {
  const [untick, tick] = [await world.api.add("unticked meanwhile", true), await world.api.add("ticked meanwhile")];
  await world.api.add("done", true);
  await world.api.add("done too", true);
  const todo = await world.open({ prepare: (context) => context.clock.install() });
  await live(todo);
  const changes = changesOf(todo);
  await todo.clear.click();
  await todo.row("done").waitFor({ state: "detached" });
  match(await todo.page.locator(".toast").textContent(), /Cleared 3 todos/);
  equal(await todo.left.textContent(), "1 item left");
  await world.api.update(untick.id, { completed: false });
  await world.api.update(tick.id, { completed: true });
  await todo.list.getByRole("checkbox", { name: "ticked meanwhile", checked: true }).waitFor();
  await todo.page.mouse.move(1, 1);
  await todo.page.clock.runFor(8_000);
  await statesBecome(["ticked meanwhile ✓", "unticked meanwhile"]);
  await todo.row("unticked meanwhile").waitFor();
  await todo.page.clock.runFor(2_000);
  await eventually(() => todo.left.textContent(), (left) => left === "1 item left");
  deepEqual(changes, ["DELETE /staging/todos/?completed=true"]);
});

test("one Undo brings back all that was cleared, before it is sent and after", async () => {
  for (const text of ["c", "b", "a"]) await world.api.add(text, true);
  const todo = await world.open({ prepare: (context) => context.clock.install() });
  await todo.clear.click();
  await todo.row("a").waitFor({ state: "detached" });
  await todo.undo.click();
  await todo.row("a").waitFor();
  deepEqual(await todo.texts(), ["a", "b", "c"]);
  await todo.page.clock.runFor(10_000);
  await statesBecome(["a ✓", "b ✓", "c ✓"]);

  await todo.clear.click();
  await todo.page.mouse.move(1, 1);
  await todo.page.clock.runFor(8_000);
  await statesBecome([]);
  await todo.newTodo.press("Escape");
  await todo.page.keyboard.press("u");
  await eventually(states, (found) => String(found.sort()) === "a ✓,b ✓,c ✓");
});

test("Complete all is one request with one Undo, which leaves alone what others changed since", async () => {
  const [milk] = [await world.api.add("Milk"), await world.api.add("Bread"), await world.api.add("Done", true)];
  const todo = await world.open();
  await live(todo);
  const changes = changesOf(todo);
  await todo.page.getByRole("button", { name: "Complete all" }).click();
  await statesBecome(["Done ✓", "Bread ✓", "Milk ✓"]);
  await eventually(() => todo.left.textContent(), (left) => left === "0 items left");
  await world.api.update(milk.id, { text: "Oat milk" });
  await todo.row("Oat milk").waitFor();
  await todo.undo.click();
  await statesBecome(["Done ✓", "Bread", "Oat milk ✓"]);
  await eventually(() => todo.left.textContent(), (left) => left === "1 item left");
  await todo.list.getByRole("checkbox", { name: "Oat milk", checked: true }).waitFor();
  deepEqual(changes, ["PUT /staging/todos/?completed=false", "PUT /staging/todos/?completed=true"]);
});

test("Complete all can be undone even if its response was lost and it was sent again", async () => {
  for (const text of ["c", "b", "a"]) await world.api.add(text);
  const todo = await world.open();
  await live(todo);
  let lost = 0;
  await todo.page.route("**/staging/todos/?completed=false", async (route) => {
    lost += 1;
    if (lost > 1) return route.continue();
    await route.fetch();
    return route.abort();
  });
  await todo.page.getByRole("button", { name: "Complete all" }).click();
  await statesBecome(["a ✓", "b ✓", "c ✓"]);
  await todo.alert.filter({ hasText: "not saved" }).waitFor();
  await todo.alert.waitFor({ state: "detached" });
  await todo.newTodo.press("Escape");
  await todo.page.keyboard.press("u");
  await statesBecome(["a", "b", "c"]);
  await eventually(() => todo.left.textContent(), (left) => left === "3 items left");
});

test("Clear completed clears what is not loaded, too", { timeout: 60_000 }, async () => {
  for (let n = 0; n < 120; n += 20) await Promise.all(Array.from({ length: 20 }, (_, m) => world.api.add(`todo ${n + m}`, true)));
  await world.api.add("stays");
  const todo = await world.open();
  ok((await todo.texts()).length < 121);
  await todo.clear.click();
  match(await todo.page.locator(".toast").textContent(), /Cleared 120 todos/);
  await leave(todo.page);
  await statesBecome(["stays"]);
});
