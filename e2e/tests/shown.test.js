// What the page shows: when searched, printed, in forced colours, and in motion.

import { deepEqual, equal, notEqual, ok } from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { eventually, suite } from "../lib/suite.js";
import { startStandalone } from "../lib/system.js";

const world = suite(startStandalone);
beforeEach(() => world.clean());

const searchOf = (todo) => todo.page.getByRole("searchbox", { name: "Search" });
const queryOf = (todo) => new URL(todo.page.url()).searchParams.get("q");

test("a search is in the URL, finds todos that are not loaded, and Back leaves it", async () => {
  await world.api.add("Needle in the first");
  for (let n = 0; n < 60; n += 1) await world.api.add(`Hay ${n}`);
  const todo = await world.open();
  await todo.newTodo.press("Escape");
  await todo.page.keyboard.press("/");
  await todo.page.keyboard.type("needle");
  await eventually(() => todo.texts(), (texts) => String(texts) === "Needle in the first");
  equal(queryOf(todo), "needle");
  ok(await searchOf(todo).evaluate((field) => field === document.activeElement));
  await world.api.add("Another NEEDLE");
  await world.api.add("More hay");
  await eventually(() => todo.texts(), (texts) => String(texts) === "Another NEEDLE,Needle in the first");
  await todo.page.goBack();
  await todo.row("More hay").waitFor();
  equal(queryOf(todo), null);
  equal(await searchOf(todo).inputValue(), "");
});

test("a search ignores case like the server does, and covers live changes", async () => {
  await world.api.add("Straße fegen");
  await world.api.add("ΟΔΟΣ");
  const todo = await world.open({ path: `/staging/?q=${encodeURIComponent("STRASSE")}` });
  deepEqual(await todo.texts(), ["Straße fegen"]);
  await todo.page.locator("#live[data-connected=true]").waitFor();
  await world.api.add("Hauptstrasse");
  await todo.row("Hauptstrasse").waitFor();
  await searchOf(todo).fill("οδος");
  await eventually(() => todo.texts(), (texts) => String(texts) === "ΟΔΟΣ");
});

for (const javaScriptEnabled of [true, false]) {
  test(`counts and actions for the whole list are hidden during a search (JavaScript ${javaScriptEnabled ? "on" : "off"})`, async () => {
    for (const text of ["Milk", "Bread"]) await world.api.add(text);
    await world.api.add("Done", true);
    const todo = await world.open({ path: "/staging/?q=Mi", javaScriptEnabled });
    const completeAll = todo.page.getByRole("button", { name: "Complete all" });
    deepEqual(await todo.page.locator("[data-count]").allTextContents(), ["", "", ""]);
    deepEqual([await completeAll.isVisible(), await todo.clear.isVisible()], [false, false]);
    await todo.page.getByRole("link", { name: "Show all" }).click();
    await todo.row("Bread").waitFor();
    deepEqual(await todo.page.locator("[data-count]").allTextContents(), ["3", "2", "1"]);
    deepEqual([await completeAll.isVisible(), await todo.clear.isVisible()], [true, true]);
  });
}

test("a search without a result says so, and Show all ends it", async () => {
  await world.api.add("Milk");
  const todo = await world.open();
  await searchOf(todo).fill("no such thing");
  await todo.page.getByText("No todo matches.").waitFor();
  await todo.page.getByRole("link", { name: "Show all" }).click();
  await todo.row("Milk").waitFor();
});

test("a search text is shown as text, whatever is in it", async () => {
  const todo = await world.open();
  const text = `<img src=x onerror="document.title='broken'"> & % _ ' "`;
  await world.api.add(text);
  await todo.row(text).waitFor();
  await searchOf(todo).fill(text);
  await eventually(() => queryOf(todo), (query) => query === text.trim());
  deepEqual(await todo.texts(), [text]);
  await todo.page.reload();
  deepEqual(await todo.texts(), [text]);
  notEqual(await todo.page.title(), "broken");
});

test("the print page has the whole list and nothing else", async () => {
  for (let n = 0; n < 120; n += 1) await world.api.add(`Todo ${n}`, n === 7);
  const todo = await world.open();
  await todo.page.getByRole("link", { name: "Print" }).click();
  await todo.page.waitForURL(/\/print/);
  await todo.page.emulateMedia({ media: "print" });
  const items = todo.page.locator("main li");
  equal(await items.count(), 120);
  ok((await items.nth(112).textContent()).includes("☑"));
  for (const name of ["Back to the todos", "Add"]) equal(await todo.page.getByRole("link", { name }).filter({ visible: true }).count(), 0);
  const background = await todo.page.locator("body").evaluate((body) => getComputedStyle(body).backgroundColor);
  ok(["rgba(0, 0, 0, 0)", "rgb(255, 255, 255)"].includes(background), background);
});

test("the list itself prints without its controls", async () => {
  await world.api.add("Milk");
  const todo = await world.open();
  await todo.page.emulateMedia({ media: "print" });
  ok(await todo.page.getByText("Milk", { exact: true }).isVisible());
  for (const locator of [todo.newTodo, todo.button("Delete", "Milk"), searchOf(todo)]) equal(await locator.isVisible(), false);
});

test("with forced colours the current filter and a tick stay distinguishable", async () => {
  await world.api.add("Done", true);
  await world.api.add("Open");
  const todo = await world.open({ forcedColors: "active" });
  const background = (locator) => locator.evaluate((element) => getComputedStyle(element).backgroundColor);
  notEqual(await background(todo.filter("All")), await background(todo.filter("Active")));
  const icon = (text) => todo.tick(text).locator(".icon");
  notEqual(await background(icon("Done")), await background(icon("Open")));
});

/** The elements that move or glow during `act` and the next frame. */
async function movements(todo, act) {
  await todo.page.evaluate(() => {
    window.moved = [];
    const { animate } = Element.prototype;
    Element.prototype.animate = function (frames, options) {
      window.moved.push({ glows: frames.some((frame) => frame.backgroundColor), duration: options.duration ?? options });
      return animate.call(this, frames, options);
    };
  });
  await act();
  await todo.page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))));
  return todo.page.evaluate(() => window.moved);
}

test("a new row glows once, for 150 ms, and the others make room", async () => {
  await world.api.add("Below");
  const todo = await world.open();
  const moved = await movements(todo, () => todo.add("New"));
  equal(moved.filter(({ glows }) => glows).length, 1);
  ok(moved.length > 1 && moved.every(({ duration }) => duration === 150));
});

for (const viewport of [{ width: 412, height: 823 }, { width: 1280, height: 800 }]) {
  test(`nothing jumps while the page starts (${viewport.width} pixels)`, async () => {
    for (const text of ["Milk", "Bread", "Eggs"]) await world.api.add(text);
    const todo = await world.open({
      viewport,
      prepare: (context) =>
        context.addInitScript(() => {
          window.shift = 0;
          new PerformanceObserver((list) => {
            for (const { value } of list.getEntries()) window.shift += value;
          }).observe({ type: "layout-shift", buffered: true });
        }),
    });
    await todo.page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 300)));
    const shift = await todo.page.evaluate(() => window.shift);
    // A good score is 0.1 at most (web.dev, Cumulative Layout Shift).
    ok(shift < 0.02, `a shift of ${shift}`);
  });
}

test("nothing moves with reduced motion", async () => {
  await world.api.add("Below");
  const todo = await world.open({ reducedMotion: "reduce" });
  deepEqual(await movements(todo, () => todo.add("New")), []);
  const durations = await todo.tick("New").locator(".icon").evaluate((icon) => getComputedStyle(icon).transitionDuration);
  equal(durations, "0s");
});

test("the inbox shows what happens while it is open, as a person reads it", async () => {
  await world.api.add("Before");
  const { page } = await world.open({ path: "/staging/inbox" });
  await page.getByText("Added: Before").waitFor();
  await world.api.add("<!channel> & <b>bold</b>");
  await page.getByText("Added: <!channel> & <b>bold</b>").waitFor();
});

test("an inbox retries after an error response to its stream, and shows what it missed", async () => {
  let asked = 0;
  const { page } = await world.open({
    path: "/staging/inbox",
    prepare: (context) =>
      context.route("**/inbox/live", (route) => {
        asked += 1;
        return asked < 3 ? route.fulfill({ status: 503 }) : route.fallback();
      }),
  });
  await world.api.add("Meanwhile");
  await page.getByText("Added: Meanwhile").waitFor();
  equal(asked, 3);
});
