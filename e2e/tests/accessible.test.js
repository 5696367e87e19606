// axe finds no violation, on any page in any state, in light and dark mode.

import { ok } from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { expectAccessible } from "../lib/browser.js";
import { startCluster } from "../lib/ingress.js";
import { eventually, suite } from "../lib/suite.js";
import { startStandalone, startTodoApp } from "../lib/system.js";

const world = suite(() => startCluster({ startStandalone, startTodoApp }));
beforeEach(async () => {
  world.system.setDown(false);
  await world.clean();
});

describe("axe finds no violation", () => {
  test("on an empty list", async () => {
    const todo = await world.open();
    await expectAccessible(todo.page);
  });

  test("on a list with every kind of todo", async () => {
    await world.api.add("שלום עולם");
    await world.api.add("Completed", true);
    for (let n = 0; n < 60; n += 1) await world.api.add(`Todo ${n}`);
    const todo = await world.open();
    await expectAccessible(todo.page);
  });

  test("on a screen of 320 pixels", async () => {
    await world.api.add("Milk", true);
    const todo = await world.open({ viewport: { width: 320, height: 600 } });
    await expectAccessible(todo.page);
  });

  test("on an edit that was refused", async () => {
    await world.api.add("Milk");
    const todo = await world.open();
    await todo.button("Edit", "Milk").click();
    await todo.editor("Milk").fill("");
    await todo.page.keyboard.press("Enter");
    await expectAccessible(todo.page);
  });

  test("on a refused todo and a counter below zero", async () => {
    const todo = await world.open();
    await todo.newTodo.press("Enter");
    await expectAccessible(todo.page);
    await todo.newTodo.fill("x".repeat(150));
    await expectAccessible(todo.page);
  });

  test("beside Undo", async () => {
    await world.api.add("Milk");
    const todo = await world.open();
    await todo.button("Delete", "Milk").click();
    await expectAccessible(todo.page);
  });

  test("in the dialog of the shortcuts", async () => {
    const todo = await world.open();
    await todo.page.getByRole("button", { name: "Keyboard shortcuts" }).click();
    await expectAccessible(todo.page);
  });

  test("on what could not be saved", async () => {
    const todo = await world.open();
    world.system.setDown(true);
    await todo.add("Milk");
    await todo.alert.first().waitFor();
    await expectAccessible(todo.page);
  });

  test("on a page without its todos", async () => {
    world.system.setDown(true);
    const todo = await world.open();
    await expectAccessible(todo.page);
  });

  test("in the inbox, empty and with events", async () => {
    // The test's cluster has no inbox: it belongs to the standalone process.
    const path = `${world.system.standalone}/production/inbox`;
    const todo = await world.open();
    await todo.page.goto(path);
    await expectAccessible(todo.page);
    const inbox = async () => {
      await todo.page.reload();
      return todo.page.locator("pre").count();
    };
    await fetch(`${world.system.standalone}/production/todos/`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ text: "<b>Milk</b> ".repeat(10) }),
    });
    await eventually(inbox, (events) => events > 0);
    await todo.page.setViewportSize({ width: 320, height: 600 });
    await expectAccessible(todo.page);
    ok(await todo.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  });

  test("on the start page", async () => {
    const todo = await world.open();
    await todo.page.goto(`${world.system.standalone}/`);
    await expectAccessible(todo.page);
  });

  test("on the description of the API, which fits a small screen", async () => {
    const todo = await world.open({ path: "/staging/todos/docs", viewport: { width: 320, height: 600 } });
    await expectAccessible(todo.page);
    ok(await todo.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  });

  test("on a page that does not exist, wherever it is", async () => {
    for (const path of ["/staging/nope", "/staging/todos/nope", "/nope"]) {
      const todo = await world.open({ path: "/staging/nope" });
      await todo.page.goto(world.system.standalone + path);
      await todo.page.getByRole("heading", { name: /Page not found|That did not work/ }).waitFor();
      await expectAccessible(todo.page);
    }
  });

  test("on a search without a result, and on more than can be undone", async () => {
    for (let n = 0; n < 130; n += 1) await world.api.add(`Todo ${n}`);
    const todo = await world.open({ path: "/staging/?q=nowhere" });
    await expectAccessible(todo.page);
    const page = await world.open();
    await page.page.route("**/*.js", (route) => route.abort());
    await page.page.reload();
    await page.page.getByRole("button", { name: "Complete all" }).click();
    await page.page.getByRole("heading", { name: "Complete 130 todos?" }).waitFor();
    await expectAccessible(page.page);
  });

  test("on an edit of what somebody else changed or deleted", async () => {
    const milk = await world.api.add("Milk");
    const todo = await world.open();
    await todo.page.route("**/*.js", (route) => route.abort());
    for (const meddle of [() => world.api.update(milk.id, { text: "Oat milk" }), () => world.api.remove(milk.id)]) {
      await todo.page.goto(`${world.system.url}/staging/?edit=${milk.id}`);
      await meddle();
      await todo.page.locator(".edit [name=text]").fill("Soy milk");
      await todo.page.keyboard.press("Enter");
      await todo.page.getByText(/Somebody (changed|deleted) this todo/).waitFor();
      await expectAccessible(todo.page);
    }
  });
});

describe("axe finds no violation without JavaScript", () => {
  // axe itself is JavaScript, so it runs once the forms have built the pages.
  const states = {
    "on a list": "/staging/",
    "on an edit": "/staging/?edit=",
    "on a search": "/staging/?q=Mi",
    "on the page for paper": "/staging/print",
    "further down the list": "/staging/?cursor=4102444800000000-1",
  };
  for (const [name, path] of Object.entries(states)) {
    test(name, async () => {
      const { id } = await world.api.add("Milk", true);
      const todo = await world.open({ path: "/staging/nope" });
      await todo.page.route("**/*.js", (route) => route.abort());
      await todo.page.goto(world.system.url + path.replace("edit=", `edit=${id}`));
      await expectAccessible(todo.page);
    });
  }
});
