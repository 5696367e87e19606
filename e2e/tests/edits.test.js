// An edit never overwrites what somebody else wrote, and typed text is never
// lost silently.

import { deepEqual, equal, ok } from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { eventually, leave, started, suite } from "../lib/suite.js";
import { startStandalone } from "../lib/system.js";

const world = suite(startStandalone);
beforeEach(() => world.clean());

const textsBecome = (wanted) => eventually(() => world.api.texts(), (texts) => String(texts) === String(wanted));
const live = (todo) => todo.page.locator("#live[data-connected=true]").waitFor();

async function openEditor(texts = ["Milk"]) {
  const todos = [];
  for (const text of texts) todos.push(await world.api.add(text));
  const todo = await world.open();
  await live(todo);
  await todo.button("Edit", texts[0]).click();
  return { todo, milk: todos[0], editor: todo.list.locator(".edit [name=text]") };
}

test("an editor whose todo somebody deletes keeps the text and the focus, and offers to add it again", async () => {
  const { todo, milk, editor } = await openEditor(["Milk", "Bread", "Eggs"]);
  await editor.fill("Oat milk");
  await world.api.remove(milk.id);
  await todo.alert.filter({ hasText: "Somebody else deleted this todo" }).waitFor();
  ok(await editor.evaluate((field) => field === document.activeElement));
  await todo.page.keyboard.type("dx");
  deepEqual(await world.api.list().then((list) => list.map(({ text, completed }) => [text, completed])), [["Eggs", false], ["Bread", false]]);
  await todo.page.getByRole("button", { name: "Add it again" }).click();
  await textsBecome(["Oat milkdx", "Eggs", "Bread"]);
});

test("discarding the editor of a deleted todo adds nothing", async () => {
  const { todo, milk, editor } = await openEditor();
  await editor.fill("Oat milk");
  await world.api.remove(milk.id);
  await todo.page.getByRole("button", { name: "Discard" }).click();
  await editor.waitFor({ state: "detached" });
  deepEqual(await todo.texts(), []);
  deepEqual(await world.api.texts(), []);
});

test("after the focused row is removed, keys act on no other row", async () => {
  const bread = await world.api.add("Bread");
  await world.api.add("Milk");
  const todo = await world.open();
  await live(todo);
  await todo.tick("Bread").focus();
  await world.api.remove(bread.id);
  await todo.row("Bread").waitFor({ state: "detached" });
  equal(await todo.page.evaluate(() => document.activeElement.closest(".todo")), null);
  await todo.page.keyboard.type("dxe");
  deepEqual((await world.api.list()).map(({ text, completed }) => [text, completed]), [["Milk", false]]);
  // The next key moves on from where the row was.
  await todo.page.keyboard.press("k");
  ok(await todo.tick("Milk").evaluate((tick) => tick === document.activeElement));
});

test("an unchanged editor follows the edits of others, and stores nothing", async () => {
  const { todo, milk, editor } = await openEditor();
  const { updated_at } = await world.api.update(milk.id, { text: "Oat milk" });
  await eventually(() => editor.inputValue(), (value) => value === "Oat milk");
  const puts = [];
  todo.page.on("request", (request) => request.method() === "PUT" && puts.push(request.url()));
  await todo.newTodo.click();
  await todo.row("Oat milk").waitFor();
  await textsBecome(["Oat milk"]);
  deepEqual(puts, [], String(updated_at));
});

for (const [choice, kept] of Object.entries({ "Keep mine": "Soy milk", "Take theirs": "Oat milk" })) {
  test(`a conflict shows both texts, and "${choice}" resolves it`, async () => {
    const { todo, milk, editor } = await openEditor();
    await editor.fill("Soy milk");
    await world.api.update(milk.id, { text: "Oat milk" });
    await todo.alert.filter({ hasText: "Somebody else changed it to “Oat milk”" }).waitFor();
    equal(await editor.inputValue(), "Soy milk");
    // Neither Enter nor leaving the field resolves the conflict.
    await editor.press("Enter");
    await todo.newTodo.click();
    deepEqual(await world.api.texts(), ["Oat milk"]);
    await todo.page.getByRole("button", { name: choice }).click();
    await textsBecome([kept]);
    await todo.row(kept).waitFor();
    await editor.waitFor({ state: "detached" });
  });
}

test("a conflict that only the response reveals opens the editor with both texts", async () => {
  const milk = await world.api.add("Milk");
  const todo = await world.open({ prepare: (context) => context.route("**/events", (route) => route.abort()) });
  await world.api.update(milk.id, { text: "Oat milk" });
  await todo.button("Edit", "Milk").click();
  await todo.editor("Milk").fill("Soy milk");
  await todo.editor("Milk").press("Enter");
  await todo.alert.filter({ hasText: "Somebody else changed it to “Oat milk”" }).waitFor();
  equal(await todo.list.locator(".edit [name=text]").inputValue(), "Soy milk");
  deepEqual(await world.api.texts(), ["Oat milk"]);
  // A reload does not resolve it either.
  await todo.page.reload();
  await started(todo.page);
  await todo.alert.filter({ hasText: "Somebody else changed it to “Oat milk”" }).waitFor();
  await todo.page.getByRole("button", { name: "Keep mine" }).click();
  await textsBecome(["Soy milk"]);
});

test("a tick by somebody else does not conflict with an edit", async () => {
  const milk = await world.api.add("Milk");
  const todo = await world.open({ prepare: (context) => context.route("**/events", (route) => route.abort()) });
  await todo.button("Edit", "Milk").click();
  await world.api.update(milk.id, { completed: true });
  await todo.editor("Milk").fill("Oat milk");
  await todo.editor("Milk").press("Enter");
  await textsBecome(["Oat milk"]);
  equal((await world.api.list())[0].completed, true);
});

test("every save carries the version that it is based on", async () => {
  const { todo, editor } = await openEditor();
  const [request] = await Promise.all([
    todo.page.waitForRequest((request) => request.method() === "PUT"),
    editor.fill("Oat milk").then(() => editor.press("Enter")),
  ]);
  ok(/^"\d+"$/.test(await request.headerValue("if-match")));
});

test("text typed into an editor is restored after a visit to another page", async () => {
  const { todo, editor } = await openEditor(["Milk", "Bread"]);
  await editor.fill("Oat mil");
  await todo.newTodo.evaluate((field) => {
    field.value = "Half a sen";
    field.dispatchEvent(new Event("input"));
  });
  for (const way of ["navigate", "reload"]) {
    await todo.page.waitForTimeout(0);
    if (way === "navigate") {
      await leave(todo.page);
      await todo.page.goto(`${world.system.url}/staging/`);
    } else {
      await todo.page.reload();
    }
    await started(todo.page);
    await eventually(() => editor.inputValue(), (value) => value === "Oat mil");
    equal(await todo.newTodo.inputValue(), "Half a sen");
  }
  await editor.press("Enter");
  await textsBecome(["Bread", "Oat mil"]);
});

test("a draft comes back in a new tab after its own was closed", async () => {
  const { todo, editor } = await openEditor();
  await editor.fill("Oat mil");
  const context = todo.page.context();
  await todo.page.close();
  const again = await world.open({ context });
  await eventually(() => again.list.locator(".edit [name=text]").inputValue(), (value) => value === "Oat mil");
});

test("the drafts of two tabs that were closed both come back, one after the other", async () => {
  const milk = await world.api.add("Milk");
  const write = async (todo, text, edit) => {
    await todo.newTodo.fill(text);
    await todo.button("Edit", "Milk").click();
    await todo.list.locator(".edit [name=text]").fill(edit);
  };
  const one = await world.open();
  const context = one.page.context();
  const two = await world.open({ context });
  await write(one, "First text", "First edit");
  await write(two, "Second text", "Second edit");
  for (const { page } of [one, two]) await leave(page).then(() => page.close());

  const found = [];
  for (let n = 0; n < 2; n += 1) {
    const todo = await world.open({ context });
    const editor = todo.list.locator(".edit [name=text]");
    found.push(await eventually(() => todo.newTodo.inputValue(), Boolean), await editor.inputValue());
    await todo.newTodo.fill("");
    await editor.press("Escape");
    await leave(todo.page);
    await todo.page.close();
  }
  deepEqual(found.sort(), ["First edit", "First text", "Second edit", "Second text"]);
  equal((await world.api.list())[0].text, milk.text);
});

test("the draft of a todo that is deleted meanwhile is not lost", async () => {
  const { todo, milk, editor } = await openEditor();
  await editor.fill("Oat mil");
  await leave(todo.page);
  await world.api.remove(milk.id);
  await todo.page.goto(`${world.system.url}/staging/`);
  await todo.alert.filter({ hasText: "Somebody else deleted this todo" }).waitFor();
  await todo.page.getByRole("button", { name: "Add it again" }).click();
  await textsBecome(["Oat mil"]);
});

test("Cancel saves nothing where a click gives no focus to buttons, as in Safari", async () => {
  const { todo, editor } = await openEditor();
  await todo.page.evaluate(() => {
    const asSafari = (event) => {
      if (!event.target.closest("button")) return;
      event.preventDefault();
      document.activeElement.blur();
    };
    addEventListener("mousedown", asSafari, true);
  });
  await editor.fill("Oat milk");
  await todo.page.locator(".edit .cancel").click();
  await editor.waitFor({ state: "detached" });
  deepEqual(await todo.texts(), ["Milk"]);
  deepEqual(await world.api.texts(), ["Milk"]);
});

test("a composition's Enter saves nothing", async () => {
  const { editor } = await openEditor();
  await editor.fill("Oat");
  await editor.evaluate((field) => {
    for (const init of [{ isComposing: true }, { keyCode: 229 }]) {
      field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true, ...init }));
    }
  });
  ok(await editor.isVisible());
  deepEqual(await world.api.texts(), ["Milk"]);
});

test("an edit with line breaks is stored on one line, and an old text with one is left as it is", async () => {
  const { todo, editor } = await openEditor(["Buy milk"]);
  await editor.evaluate((field) => {
    field.value = "Buy milk\nand bread";
  });
  await editor.press("Enter");
  await eventually(() => world.api.texts(), ([text]) => /^Buy milk ?and bread$/.test(text));
  await todo.page.route("**/staging/todos/?*", async (route) => {
    const response = await route.fetch();
    const todos = (await response.json()).map((item) => ({ ...item, text: "Buy milk\nand bread" }));
    await route.fulfill({ response, json: todos });
  });
  const puts = [];
  todo.page.on("request", (request) => request.method() === "PUT" && puts.push(request.postData()));
  await todo.filter("Active").click();
  await eventually(() => todo.texts(), ([text]) => text === "Buy milk\nand bread");
  await todo.list.getByRole("button", { name: /^Edit/ }).click();
  equal(await editor.inputValue(), "Buy milk and bread");
  await todo.newTodo.click();
  await editor.waitFor({ state: "detached" });
  deepEqual(puts, []);
});

test("undoing an edit restores the text, but never overwrites what somebody else wrote", async () => {
  const { todo, milk, editor } = await openEditor();
  await editor.fill("Oat milk");
  await editor.press("Enter");
  await textsBecome(["Oat milk"]);
  await todo.page.keyboard.press("u");
  await textsBecome(["Milk"]);
  await todo.row("Milk").waitFor();

  // The row moved under a resting pointer, where a click does nothing at first.
  await todo.page.mouse.move(1, 1);
  await todo.button("Edit", "Milk").click();
  await editor.fill("Soy milk");
  await editor.press("Enter");
  await textsBecome(["Soy milk"]);
  await world.api.update(milk.id, { text: "Rice milk" });
  await todo.row("Rice milk").waitFor();
  await todo.page.keyboard.press("Control+z");
  await todo.alert.filter({ hasText: "Somebody else changed it to “Rice milk”" }).waitFor();
  deepEqual(await world.api.texts(), ["Rice milk"]);
});
