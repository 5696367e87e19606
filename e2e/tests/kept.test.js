// Changes are kept until the server has them, even if the page or the server
// dies, and are applied once.

import { deepEqual, equal, ok } from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { startCluster } from "../lib/ingress.js";
import { eventually, setHidden, started, stopClock, suite, tryNow, withSight } from "../lib/suite.js";
import { startStandalone, startTodoApp } from "../lib/system.js";

const world = suite(() => startCluster({ startStandalone, startTodoApp }));
const up = () => world.system.setDown(false);
const down = () => world.system.setDown(true);
beforeEach(async () => {
  up();
  await world.clean();
});

const states = async () => (await world.api.list()).map(({ text, completed }) => `${text}${completed ? " ✓" : ""}`);
const statesBecome = (wanted, timeout) => eventually(states, (found) => String(found) === String(wanted), timeout);
const late = (todo, text) => todo.alert.filter({ hasText: text }).waitFor();

/** Waits until the browser's database has `count` changes. */
const isWritten = (todo, count) =>
  eventually(
    () =>
      todo.page.evaluate(
        () =>
          new Promise((resolve) => {
            const request = indexedDB.open(`todos ${document.getElementById("board").dataset.api}`);
            request.onsuccess = () => {
              const all = request.result.transaction("ops").objectStore("ops").count();
              all.onsuccess = () => {
                request.result.close();
                resolve(all.result);
              };
            };
          }),
      ),
    (found) => found === count,
  );

test("additions, edits, ticks and deletes made offline are sent after the tab is closed and reopened", async () => {
  for (const text of ["Bread", "Milk", "Eggs"]) await world.api.add(text);
  const todo = await world.open();
  const context = todo.page.context();
  down();
  await todo.add("Butter");
  await todo.tick("Butter").click();
  await todo.tick("Bread").click();
  await todo.button("Edit", "Milk").click();
  await todo.editor("Milk").fill("Oat milk");
  await todo.editor("Milk").press("Enter");
  await todo.button("Delete", "Eggs").click();
  await isWritten(todo, 5);
  await todo.page.close();
  deepEqual(await states().catch(() => "down"), "down");

  const again = await world.open({ context });
  await again.row("Butter").waitFor();
  await again.row("Butter").getByText("not saved yet").waitFor();
  up();
  await statesBecome(["Butter ✓", "Oat milk", "Bread ✓"]);
  await again.alert.waitFor({ state: "detached" });
  deepEqual(await again.texts(), ["Butter", "Oat milk", "Bread"]);
});

test("a todo created offline can be changed, ticked and deleted before it has an id", async () => {
  const todo = await world.open();
  down();
  await todo.add("First");
  await late(todo, "not saved");
  await todo.button("Edit", "First").click();
  await todo.editor("First").fill("Second");
  await todo.editor("First").press("Enter");
  await todo.tick("Second").click();
  await todo.add("Never mind");
  await todo.button("Delete", "Never mind").click();
  const posts = [];
  todo.page.on("request", (request) => request.method() === "POST" && posts.push(request.postDataJSON().text));
  await todo.page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 7_100)));
  up();
  await todo.page.evaluate(() => dispatchEvent(new Event("online")));
  await statesBecome(["Second ✓"]);
  ok(!posts.slice(-1).includes("Never mind"));
});

test("fifty changes made offline are all applied, once and in order, despite a closed page and a killed server", { timeout: 120_000 }, async () => {
  for (let n = 9; n >= 0; n -= 1) await world.api.add(`old ${n}`);
  const todo = await world.open();
  const context = todo.page.context();
  down();
  for (let n = 0; n < 30; n += 1) {
    await todo.newTodo.fill(`new ${n}`);
    await todo.newTodo.press("Enter");
  }
  for (let n = 0; n < 10; n += 1) await todo.tick(`old ${n}`).evaluate((tick) => tick.click());
  for (let n = 0; n < 5; n += 1) {
    await todo.button("Edit", `old ${n}`).evaluate((button) => button.click());
    await todo.editor(`old ${n}`).fill(`changed ${n}`);
    await todo.editor(`old ${n}`).press("Enter");
  }
  for (let n = 5; n < 10; n += 1) await todo.button("Delete", `old ${n}`).evaluate((button) => button.click());
  await isWritten(todo, 50);
  await todo.page.close();

  const again = await world.open({ context });
  up();
  // The server dies halfway through.
  await eventually(() => world.api.texts(), (texts) => texts.includes("new 5"), 60_000);
  await world.system.kill();
  await world.system.revive();
  const wanted = [];
  for (let n = 29; n >= 0; n -= 1) wanted.push(`new ${n}`);
  for (let n = 0; n < 5; n += 1) wanted.push(`changed ${n} ✓`);
  await statesBecome(wanted, 60_000);
  await eventually(() => again.texts(), (texts) => String(texts) === String(wanted.map((text) => text.replace(" ✓", ""))));
  await isWritten(again, 0);
});

test("two offline tabs share one queue, and each change is sent once", async () => {
  const one = await world.open();
  const two = await world.open({ context: one.page.context() });
  const posts = [];
  one.page.context().on("request", (request) => request.method() === "POST" && posts.push(request.postDataJSON()?.text));
  down();
  await one.add("From one");
  await two.row("From one").waitFor();
  await two.add("From two");
  await one.row("From two").waitFor();
  await late(one, "not saved");
  posts.length = 0;
  up();
  await Promise.all([one, two].map((todo) => todo.page.evaluate(() => dispatchEvent(new Event("online")))));
  await statesBecome(["From two", "From one"]);
  for (const todo of [one, two]) {
    await todo.alert.waitFor({ state: "detached" });
    deepEqual(await todo.texts(), ["From two", "From one"]);
  }
  deepEqual(posts.filter(Boolean).sort(), ["From one", "From two"]);
});

test("todos completed and cleared offline are cleared later", async () => {
  await world.api.add("Bread", true);
  await world.api.add("Milk");
  const todo = await world.open();
  down();
  await todo.add("Eggs");
  await todo.tick("Eggs").click();
  await todo.clear.click();
  await todo.row("Eggs").waitFor({ state: "detached" });
  await todo.row("Bread").waitFor({ state: "detached" });
  await todo.page.reload();
  await started(todo.page);
  up();
  await todo.page.evaluate(() => dispatchEvent(new Event("online")));
  await statesBecome(["Milk"], 20_000);
  await isWritten(todo, 0);
});

test("an Undo of a delete that could not be sent cancels it", async () => {
  await world.api.add("Milk");
  const todo = await world.open();
  await stopClock(todo.page);
  down();
  await todo.button("Delete", "Milk").click();
  await todo.page.mouse.move(1, 1);
  await todo.page.clock.runFor(8_000);
  await todo.page.getByText("not deleted yet").waitFor();
  await todo.button("Delete", "Milk").click();
  await todo.newTodo.press("Escape");
  await todo.page.keyboard.press("u");
  await todo.page.getByText("not deleted yet").waitFor({ state: "hidden" });
  up();
  await todo.page.clock.runFor(60_000);
  await todo.alert.waitFor({ state: "detached" });
  await isWritten(todo, 0);
  deepEqual(await states(), ["Milk"]);
  deepEqual(await todo.texts(), ["Milk"]);
});

test("a delete is sent when the page is hidden", async () => {
  await world.api.add("Bread");
  await world.api.add("Milk");
  const todo = await world.open({ prepare: withSight });
  // The time for an Undo never ends.
  await stopClock(todo.page);
  await todo.button("Delete", "Milk").click();
  await setHidden(todo, true);
  await statesBecome(["Bread"]);
});

test("a delete survives a crash of the browser", async () => {
  await world.api.add("Bread");
  const other = await world.open();
  const context = other.page.context();
  await other.button("Delete", "Bread").click();
  await isWritten(other, 1);
  // A killed renderer runs no more handlers.
  const crashed = other.page.waitForEvent("crash");
  await other.page.goto("chrome://crash").catch(() => {});
  await crashed;
  const again = await world.open({ context });
  await statesBecome([], 15_000);
  await eventually(() => again.texts(), (texts) => texts.length === 0);
});

test("a delete of a todo that somebody changed is dropped, and the page says so", async () => {
  const milk = await world.api.add("Milk");
  const todo = await world.open({ prepare: (context) => context.route("**/events", (route) => route.abort()) });
  await stopClock(todo.page);
  await todo.button("Delete", "Milk").click();
  await todo.page.mouse.move(1, 1);
  await world.api.update(milk.id, { text: "Milk for the guests" });
  await todo.page.clock.runFor(8_000);
  await todo.alert.filter({ hasText: "changed to “Milk for the guests”" }).waitFor();
  deepEqual(await states(), ["Milk for the guests"]);
});

describe("responses to changes", () => {
  /** Answers changes with `status` until `stop`. */
  async function answering(status, { method = "POST", headers = {}, json = { detail: "Nope" } } = {}) {
    const todo = await world.open();
    let answers = 0;
    const pattern = /\/staging\/todos\/(\d+)?$/;
    await todo.page.route(pattern, (route) => {
      if (route.request().method() !== method) return route.continue();
      answers += 1;
      return route.fulfill({ status, headers, json });
    });
    return { todo, answers: () => answers, stop: () => todo.page.unroute(pattern) };
  }

  for (const status of [401, 403, 429, 500, 502, 503, 504, 507]) {
    test(`after ${status} it waits, says so, and is sent again`, async () => {
      const { todo, stop } = await answering(status, { headers: { "retry-after": "1" } });
      await todo.add("Milk");
      await late(todo, "not saved");
      await stop();
      await tryNow(todo);
      await statesBecome(["Milk"]);
      await todo.alert.waitFor({ state: "detached" });
    });
  }

  test("an HTML response, such as a sign-in page, loses nothing", async () => {
    const todo = await world.open();
    await todo.page.route("**/staging/todos/", (route) =>
      route.request().method() === "POST" ? route.fulfill({ status: 200, contentType: "text/html", body: "<h1>Sign in</h1>" }) : route.continue(),
    );
    await todo.add("Milk");
    await late(todo, "not saved");
    await todo.page.unroute("**/staging/todos/");
    await tryNow(todo);
    await statesBecome(["Milk"]);
  });

  for (const status of [400, 413, 415, 422]) {
    test(`after ${status} the text stays with the reason, over a reload too, until it is changed or deleted`, async () => {
      const { todo, stop } = await answering(status);
      await todo.add("Milk");
      await todo.row("Milk").getByText("not saved: Nope").waitFor();
      await todo.page.reload();
      await started(todo.page);
      await todo.row("Milk").getByText("not saved: Nope").waitFor();
      await stop();
      await todo.button("Edit", "Milk").click();
      await todo.list.locator(".edit [name=text]").fill("Oat milk");
      await todo.list.locator(".edit [name=text]").press("Enter");
      await statesBecome(["Oat milk"]);
      await todo.row("Oat milk").waitFor();
      equal(await todo.rows.count(), 1);
    });
  }

  test("a refused text can be deleted, which empties the queue", async () => {
    const { todo } = await answering(422);
    await todo.add("Milk");
    await todo.row("Milk").getByText("not saved: Nope").waitFor();
    await todo.button("Delete", "Milk").click();
    await todo.row("Milk").waitFor({ state: "detached" });
    await isWritten(todo, 0);
  });

  /** What a user can do: the method, the action, and the todos stored afterwards. */
  const KINDS = {
    tick: { method: "PUT", act: (todo) => todo.tick("Milk").click(), done: ["Bread ✓", "Milk ✓"] },
    edit: {
      method: "PUT",
      async act(todo) {
        await todo.button("Edit", "Milk").click();
        await todo.list.locator(".edit [name=text]").fill("Oat milk");
        await todo.list.locator(".edit [name=text]").press("Enter");
      },
      done: ["Bread ✓", "Oat milk"],
    },
    delete: { method: "DELETE", act: (todo) => todo.button("Delete", "Milk").click(), done: ["Bread ✓"] },
    "clear completed": { method: "DELETE", act: (todo) => todo.clear.click(), done: ["Milk"] },
    "complete all": {
      method: "PUT",
      act: (todo) => todo.page.getByRole("button", { name: "Complete all" }).click(),
      done: ["Bread ✓", "Milk ✓"],
    },
  };
  for (const [kind, { method, act, done }] of Object.entries(KINDS)) {
    /** A page with two todos, whose changes get `answer`. */
    const openWith = async (answer) => {
      await world.api.add("Milk");
      await world.api.add("Bread", true);
      const todo = await world.open({ prepare: (context) => context.clock.install() });
      const pattern = /\/staging\/todos\/(\d+)?(\?completed=(true|false))?$/;
      await todo.page.route(pattern, (route) => (route.request().method() === method ? route.fulfill(answer) : route.continue()));
      return { todo, stop: () => todo.page.unroute(pattern) };
    };
    /** Acts, and waits until the time for an Undo is over. */
    const finish = async (todo) => {
      await todo.page.mouse.move(1, 1);
      await todo.page.clock.runFor(500);
      await act(todo);
      await todo.page.mouse.move(1, 1);
      await todo.page.clock.runFor(8_000);
    };

    for (const status of [409, 429, 503, 507]) {
      test(`${kind}: after ${status} it waits, says so, and is applied later`, async () => {
        const { todo, stop } = await openWith({ status, headers: { "retry-after": "1" }, json: { detail: "Nope" } });
        await finish(todo);
        await late(todo, "One change is not saved");
        await stop();
        await tryNow(todo);
        await statesBecome(done);
        await isWritten(todo, 0);
      });
    }

    for (const [what, answer] of Object.entries({
      "a page that is not found": { status: 404, contentType: "text/html", body: "<h1>Not found</h1>" },
      "an address that is not known": { status: 404, json: { detail: "Not Found" } },
      "a page in place of an answer": { status: 200, contentType: "text/html", body: "<h1>Sign in</h1>" },
    })) {
      test(`${kind}: ${what} does not count as a response, and nothing is lost`, async () => {
        const { todo, stop } = await openWith(answer);
        await finish(todo);
        await late(todo, "One change is not saved");
        await stop();
        await tryNow(todo);
        await statesBecome(done);
      });
    }

    for (const status of [413, 422]) {
      test(`${kind}: after ${status} the page says so, does not show it as applied, and it can be repeated`, async () => {
        const { todo, stop } = await openWith({ status, json: { detail: "Nope" } });
        await finish(todo);
        await todo.page.locator("main").getByText(/(not saved|could not be .*): Nope/).first().waitFor();
        await todo.row("Bread").waitFor();
        equal(await todo.rows.count(), 2);
        deepEqual(await states(), ["Bread ✓", "Milk"]);
        await stop();
        if (kind !== "edit") await isWritten(todo, 0);
        if (kind === "edit") await todo.button("Edit", "Oat milk").waitFor();
        await (kind === "edit" ? todo.button("Delete", "Oat milk").click() : finish(todo));
        await todo.page.mouse.move(1, 1);
        await todo.page.clock.runFor(8_000);
        await statesBecome(kind === "edit" ? ["Bread ✓"] : done);
        await isWritten(todo, 0);
      });
    }
  }

  test("a change that fails does not block those of other todos", async () => {
    await world.api.add("Bread");
    const { todo } = await answering(507);
    await todo.add("Milk");
    await late(todo, "the server says “Nope”");
    await todo.tick("Bread").click();
    await statesBecome(["Bread ✓"]);
  });

  test("Retry-After is respected", async () => {
    const { todo, answers } = await answering(503, { headers: { "retry-after": "5" } });
    await stopClock(todo.page);
    await todo.add("Milk");
    await late(todo, "not saved");
    equal(answers(), 1);
    await todo.page.clock.runFor(4_000);
    equal(answers(), 1);
    await todo.page.clock.runFor(2_000);
    await eventually(answers, (count) => count === 2);
  });
});

describe("a browser that stores nothing", () => {
  const refuse = () => {
    IDBFactory.prototype.open = () => {
      throw new DOMException("no", "SecurityError");
    };
  };
  const full = () => {
    IDBObjectStore.prototype.add = IDBObjectStore.prototype.put = () => {
      throw new DOMException("full", "QuotaExceededError");
    };
  };
  const stuck = () => {
    IDBFactory.prototype.open = () => new EventTarget();
  };

  for (const [what, trap] of Object.entries({ refuse, full, stuck })) {
    test(`keeps working, and says what it cannot store (${what})`, { timeout: 60_000 }, async () => {
      const todo = await world.open({ prepare: (context) => context.addInitScript(trap) });
      await todo.add("Saved");
      await statesBecome(["Saved"], 20_000);
      down();
      await todo.add("Not saved");
      await late(todo, "This browser stores nothing for the page");
      const asked = await todo.page.evaluate(() => !dispatchEvent(new Event("beforeunload", { cancelable: true })));
      ok(asked, "closing the page is asked about");
      up();
      await tryNow(todo);
      await statesBecome(["Not saved", "Saved"]);
      await todo.alert.waitFor({ state: "detached" });
      const askedAgain = await todo.page.evaluate(() => !dispatchEvent(new Event("beforeunload", { cancelable: true })));
      equal(askedAgain, false);
    });
  }

  test("a browser that stores everything does not ask before closing", async () => {
    const todo = await world.open();
    down();
    await todo.add("Kept");
    await late(todo, "It is kept here");
    await isWritten(todo, 1);
    await todo.newTodo.fill("A draft");
    equal(await todo.page.evaluate(() => dispatchEvent(new Event("beforeunload", { cancelable: true }))), true);
  });

  test("deleting the database under the page loses nothing that the page shows", async () => {
    const todo = await world.open();
    down();
    await todo.add("Milk");
    await isWritten(todo, 1);
    await todo.page.evaluate(
      () =>
        new Promise((resolve, reject) => {
          const request = indexedDB.deleteDatabase(`todos ${document.getElementById("board").dataset.api}`);
          request.onsuccess = resolve;
          request.onerror = request.onblocked = reject;
        }),
    );
    await todo.add("Bread");
    up();
    await tryNow(todo);
    await statesBecome(["Bread", "Milk"]);
  });
});
