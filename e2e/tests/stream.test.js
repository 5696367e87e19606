// The event stream is monitored, and shared by the tabs of a browser.

import { deepEqual, equal, ok } from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { startCluster } from "../lib/ingress.js";
import { eventually, setHidden, suite, withSight } from "../lib/suite.js";
import { startStandalone, startTodoApp } from "../lib/system.js";

const world = suite(() => startCluster({ startStandalone, startTodoApp }));
beforeEach(async () => {
  world.system.setDown(false);
  world.system.setSilent(false);
  await world.clean();
});

const live = (todo) => todo.page.locator("#live[data-connected=true]").waitFor();
const notLive = (todo) => todo.page.locator("#live[data-connected=false]").waitFor();

function deferred() {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}

/** Every request of the browser, as `METHOD path`. */
function requestsOf(context) {
  const requests = [];
  context.on("request", (request) => requests.push(`${request.method()} ${new URL(request.url()).pathname}${new URL(request.url()).search}`));
  return requests;
}

/** The reads of the list without a response yet. */
function openReads(context) {
  const reads = new Set();
  context.on("request", (request) => /\/todos\/\?/.test(request.url()) && reads.add(request));
  for (const end of ["requestfinished", "requestfailed"]) context.on(end, (request) => reads.delete(request));
  return reads;
}

test("a silently dead connection is detected, reported and replaced", async () => {
  let reads;
  const todo = await world.open({
    prepare: (context) => {
      reads = openReads(context);
      return context.clock.install();
    },
  });
  await live(todo);
  // A read that is cut off takes 10 s, which the page's fake clock does not shorten.
  await eventually(() => reads.size, (size) => size === 0);
  world.system.setSilent(true);
  await world.system.add("Missed");
  await todo.page.clock.runFor(26_000);
  await notLive(todo);
  equal(await todo.page.locator("#live").textContent(), "Reconnecting…");
  world.system.setSilent(false);
  await todo.page.clock.runFor(40_000);
  await live(todo);
  await todo.row("Missed").waitFor();
});

test("a heartbeat keeps a quiet connection", { timeout: 60_000 }, async () => {
  const todo = await world.open();
  await live(todo);
  const requests = requestsOf(todo.page.context());
  await todo.page.evaluate(() => {
    window.said = new Set();
    new MutationObserver(() => window.said.add(document.getElementById("live").dataset.connected)).observe(
      document.getElementById("live"),
      { attributes: true },
    );
  });
  await todo.page.waitForTimeout(28_000);
  deepEqual(await todo.page.evaluate(() => [...window.said].filter((connected) => connected !== "true")), []);
  deepEqual(requests.filter((request) => request.includes("/events")), []);
});

test("a page opened in the background is up to date when it is first seen", async () => {
  const todo = await world.open({ prepare: (context) => withSight(context, true) });
  const requests = requestsOf(todo.page.context());
  await world.api.add("Made meanwhile");
  await setHidden(todo, false);
  await todo.row("Made meanwhile").waitFor();
  await eventually(() => requests.filter((request) => request.endsWith("/events")).length, (count) => count === 1);
});

test("a hidden tab has no connection and sends no requests", async () => {
  const todo = await world.open({ prepare: (context) => withSight(context) });
  await live(todo);
  await setHidden(todo, true);
  const requests = requestsOf(todo.page.context());
  await todo.page.clock.install();
  await world.api.add("Milk");
  await todo.page.clock.runFor(120_000);
  deepEqual(requests, []);
  deepEqual(await todo.texts(), []);
  await setHidden(todo, false);
  await todo.row("Milk").waitFor();
});

test("changes do not make an open page request the counts", async () => {
  const todo = await world.open();
  await live(todo);
  await todo.row("nothing").waitFor({ state: "detached" });
  const requests = requestsOf(todo.page.context());
  for (let n = 0; n < 5; n += 1) await world.api.add(`todo ${n}`);
  await todo.row("todo 4").waitFor();
  await eventually(() => todo.left.textContent(), (left) => left === "5 items left");
  deepEqual(requests.filter((request) => request.includes("/todos")), []);
});

test("the counts are right while todos are added, ticked and deleted here and elsewhere", async () => {
  const todo = await world.open();
  await live(todo);
  const wrong = await todo.page.evaluateHandle(() => {
    const seen = [];
    new MutationObserver(() => seen.push(document.getElementById("left").textContent)).observe(document.getElementById("left"), {
      childList: true,
      characterData: true,
      subtree: true,
    });
    return seen;
  });
  for (let n = 0; n < 5; n += 1) {
    await todo.add(`mine ${n}`);
    await world.api.add(`theirs ${n}`);
  }
  await eventually(() => todo.left.textContent(), (left) => left === "10 items left");
  // The count only grew.
  const numbers = (await wrong.jsonValue()).map((words) => Number.parseInt(words, 10));
  deepEqual(numbers, [...numbers].sort((a, b) => a - b));
  await todo.page.waitForTimeout(1_500);
  equal(await todo.left.textContent(), "10 items left");
});

test("seven tabs share one connection, and each shows what others do", { timeout: 90_000 }, async () => {
  const first = await world.open();
  await live(first);
  const context = first.page.context();
  const requests = requestsOf(context);
  const tabs = [first];
  for (let n = 1; n < 7; n += 1) tabs.push(await world.open({ context }));
  for (const todo of tabs) await live(todo);
  deepEqual(requests.filter((request) => request.endsWith("/events")), []);
  await world.api.add("For all");
  for (const todo of tabs) await todo.row("For all").waitFor();
  await tabs[6].add("From the seventh");
  await tabs[0].row("From the seventh").waitFor();
  // When the tab with the connection closes, another takes over.
  await tabs[0].page.close();
  await eventually(() => requests.filter((request) => request.endsWith("/events")).length, (count) => count === 1);
  await world.api.add("After the first");
  for (const todo of tabs.slice(1)) await todo.row("After the first").waitFor();
});

test("a tab that holds the stream but forwards nothing is replaced", async () => {
  const first = await world.open();
  await live(first);
  await first.page.context().clock.install();
  const second = await world.open({ context: first.page.context() });
  await live(second);
  await first.page.evaluate(() => {
    BroadcastChannel.prototype.postMessage = () => {};
  });
  await second.page.clock.runFor(31_000);
  await live(second);
  await world.api.add("Milk");
  await second.row("Milk").waitFor();
});

test("a page restored from the back/forward cache is up to date, with its typed text", async () => {
  await world.api.add("Milk");
  const todo = await world.open();
  await live(todo);
  await todo.newTodo.fill("Half a sen");
  await todo.page.goto(`${world.system.url}/staging/nope`);
  await world.api.add("Meanwhile");
  await todo.page.goBack();
  await todo.row("Meanwhile").waitFor();
  await eventually(() => todo.newTodo.inputValue(), (value) => value === "Half a sen");
  await live(todo);
  await world.api.add("Live again");
  await todo.row("Live again").waitFor();
});

test("a list that was loading during a change does not overwrite it", async () => {
  const gone = await world.api.add("Gone");
  const old = await world.api.add("Old");
  const todo = await world.open();
  await live(todo);
  let release;
  const held = new Promise((resolve) => (release = resolve));
  await todo.page.route("**/staging/todos/?*", async (route) => {
    const response = await route.fetch();
    await held;
    await route.fulfill({ response });
  });
  const listed = todo.page.waitForResponse(/\/staging\/todos\/\?/);
  await todo.filter("Active").click();
  await world.api.add("New");
  await world.api.update(old.id, { text: "Renamed" });
  await world.api.remove(gone.id);
  await todo.row("New").waitFor();
  await todo.row("Renamed").waitFor();
  await todo.row("Gone").waitFor({ state: "detached" });
  release();
  await listed;
  await todo.page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 100)));
  deepEqual(await todo.texts(), ["New", "Renamed"]);
});

/** A page whose stream sends `events`, each `[kind, todo]`, once the list was read. */
async function openWithEvents(events, path) {
  let asked;
  const lines = events.map(([kind, todo]) => `event: ${kind}\ndata: ${JSON.stringify(todo)}\n\n`);
  const todo = await world.open({
    path,
    async prepare(context) {
      asked = context.waitForEvent("response", (response) => /\/todos\/\d+$/.test(response.url()));
      const listed = context.waitForEvent("response", (response) => response.url().includes("?limit="));
      let connections = 0;
      await context.route("**/todos/events", async (route) => {
        connections += 1;
        // The page reads the list once it is connected, which here means once a response is complete.
        if (connections > 1) await listed;
        const body = connections === 1 ? "retry: 50\n\n" : `retry: 1000000\n\n${lines.join("")}`;
        await route.fulfill({ contentType: "text/event-stream", body });
      });
    },
  });
  // The page requests the todo as soon as it gets the event, maybe before anybody awaits it.
  return { todo, asked };
}

test("events that arrive long after their change bring back no deleted todo", async () => {
  const { id, ...rest } = await world.api.add("Old");
  await world.api.remove(id);
  const late = { id, ...rest, created_at: new Date(Date.now() - 3_600_000).toISOString() };
  const empty = await openWithEvents([["created", late]]);
  equal((await empty.asked).status(), 404);
  deepEqual(await empty.todo.texts(), []);

  await world.api.add("New");
  const { todo, asked } = await openWithEvents([["created", late], ["updated", late]]);
  equal((await asked).status(), 404);
  deepEqual(await todo.texts(), ["New"]);
  equal(await todo.left.textContent(), "1 item left");
});

test("an event from before our change that arrives after its response shows no old state", async () => {
  const milk = await world.api.add("Milk");
  const answered = (response) => response.request().method() === "PUT";
  let connections = 0;
  const todo = await world.open({
    prepare: (context) =>
      context.route("**/todos/events", async (route) => {
        connections += 1;
        if (connections > 1) await context.waitForEvent("response", answered);
        const body = connections === 1 ? "retry: 50\n\n" : `retry: 1000000\n\nevent: updated\ndata: ${JSON.stringify(milk)}\n\n`;
        await route.fulfill({ contentType: "text/event-stream", body });
      }),
  });
  await eventually(async () => connections, (count) => count === 2);
  await todo.page.evaluate(() => {
    window.seen = [];
    const look = () => window.seen.push(document.querySelector("#todos .text").textContent);
    new MutationObserver(look).observe(document.getElementById("todos"), { childList: true, characterData: true, subtree: true });
  });
  const asked = todo.page.waitForResponse((response) => response.url().endsWith(`/todos/${milk.id}`) && response.request().method() === "GET");
  await todo.button("Edit", "Milk").click();
  await todo.editor("Milk").fill("Oat milk");
  await todo.page.evaluate(() => window.seen.splice(0));
  await todo.editor("Milk").press("Enter");
  // The page requests the current todo once before the change, to be sure of what it overwrites.
  await asked;
  await eventually(() => todo.page.evaluate(() => window.seen.at(-1)), (text) => text === "Oat milk");
  await todo.page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 300)));
  deepEqual(await todo.page.evaluate(() => window.seen.slice(window.seen.indexOf("Oat milk")).filter((text) => text !== "Oat milk")), []);
});

test("a late event about a todo that the page does not have shows its current state", async () => {
  const done = await world.api.add("Done", true);
  await world.api.add("Open");
  const { todo, asked } = await openWithEvents([["updated", { ...done, completed: false }]], "/staging/?filter=active");
  equal((await asked).status(), 200);
  deepEqual(await todo.texts(), ["Open"]);
});

for (const [kind, act, texts, left] of [
  ["add", (todo) => todo.newTodo.fill("New").then(() => todo.newTodo.press("Enter")), ["New", "Second", "First"], 3],
  ["tick", (todo) => todo.tick("First").click(), ["Second", "First"], 1],
  ["delete", (todo) => todo.button("Delete", "First").click(), ["Second"], 1],
  ["complete all", (todo) => todo.page.getByRole("button", { name: "Complete all" }).click(), ["Second", "First"], 0],
]) {
  test(`a list that is read before the response to a change arrives counts the change once (${kind})`, async () => {
    await world.api.add("First");
    await world.api.add("Second");
    const done = deferred();
    const answer = deferred();
    const todo = await world.open({
      async prepare(context) {
        await withSight(context);
        await context.route("**/todos/events", (route) => route.fulfill({ status: 404 }));
        await context.route("**/todos/**", async (route) => {
          if (route.request().method() === "GET") return route.fallback();
          const response = await route.fetch();
          done.resolve();
          await answer.promise;
          return route.fulfill({ response });
        });
      },
    });
    /** Reloads the list, which shows a todo of somebody else, and returns the other texts. */
    const readAgain = async (text) => {
      await world.api.add(text);
      await todo.page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
      await todo.row(text).waitFor();
      return (await todo.texts()).filter((text) => !text.startsWith("Of somebody"));
    };
    await act(todo);
    // Hiding the page sends the change at once, even during the time for an Undo.
    await setHidden(todo, true);
    await done.promise;
    deepEqual(await readAgain("Of somebody else"), texts);
    equal(parseInt(await todo.left.textContent()), left + 1);
    answer.resolve();
    await eventually(() => todo.left.textContent(), (words) => parseInt(words) === left + 1);
    deepEqual(await readAgain("Of somebody again"), texts);
    await eventually(() => todo.left.textContent(), (words) => parseInt(words) === left + 2);
  });
}

test("unreadable events make the page reload the list, one request at a time", async () => {
  await world.api.add("Milk");
  const nonsense = ["not JSON", "null", "[]", '{"id":1}', '"text"', "{}"];
  const kinds = ["created", "updated", "deleted", "counts", "heartbeat", "nonsense"];
  const body = kinds.flatMap((kind) => nonsense.map((data) => `event: ${kind}\ndata: ${data}\n\n`)).join("");
  let lists = 0;
  const todo = await world.open({
    async prepare(context) {
      await context.route("**/todos/events", (route) =>
        route.fulfill({ contentType: "text/event-stream", body: `retry: 1000000\n\n${body}` }),
      );
      await context.route("**/todos/?limit=*", async (route) => {
        lists += 1;
        const response = await route.fetch();
        // The first list is from before this todo.
        if (lists === 1) await world.api.add("Missed");
        return route.fulfill({ response });
      });
    },
  });
  await todo.row("Missed").waitFor();
  deepEqual(await todo.texts(), ["Missed", "Milk"]);
  await eventually(() => todo.left.textContent(), (left) => left === "2 items left");
  ok(lists <= 3, `${lists} lists`);
  await todo.add("Works on");
});
