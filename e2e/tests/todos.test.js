// What a user does with todos, with JavaScript and without.

import { deepEqual, equal, match, ok, rejects } from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { eventually, leave, suite } from "../lib/suite.js";
import { startLosingFirst } from "../lib/ingress.js";
import { startStandalone } from "../lib/system.js";

const world = suite(startStandalone);

for (const javaScriptEnabled of [true, false]) {
  describe(`JavaScript ${javaScriptEnabled ? "on" : "off"}`, () => {
    const open = (options = {}) => world.open({ javaScriptEnabled, ...options });
    const saved = (wanted) =>
      eventually(
        async () => (await world.api.list()).map(({ text, completed }) => [text, completed]),
        (found) => JSON.stringify(found) === JSON.stringify(wanted),
      );
    beforeEach(() => world.clean());

    test("the page names itself, and its field has the focus", async () => {
      const todo = await open();
      await todo.page.getByRole("heading", { level: 1, name: "The Project App", exact: true }).waitFor();
      ok(await todo.newTodo.evaluate((field) => field === document.activeElement));
      match(await todo.page.title(), /Staging/);
      ok(await todo.page.getByText("Staging", { exact: true }).first().isVisible());
      // Events from emptying the previous test's list may arrive late.
      await todo.page.getByText("Nothing here yet").waitFor();
      equal(await todo.left.textContent(), "0 items left");
      equal(await todo.clear.count(), 0);
    });

    test("production does not look like staging", async () => {
      const todo = await open({ path: "/production/" });
      equal(await todo.page.locator(".staging").count(), 0);
      match(await todo.page.title(), /Production/);
    });

    test("a todo is added on top, and the field is free for the next", async () => {
      const todo = await open();
      await todo.add("First");
      await todo.add("  Second  ");
      deepEqual(await todo.texts(), ["Second", "First"]);
      equal(await todo.newTodo.inputValue(), "");
      equal(await todo.left.textContent(), "2 items left");
      await saved([["Second", false], ["First", false]]);
    });

    test("a todo is ticked and unticked", async () => {
      await world.api.add("Milk");
      const todo = await open();
      await todo.tick("Milk").click();
      await todo.list.getByRole("checkbox", { name: "Milk", checked: true }).waitFor();
      equal(await todo.left.textContent(), "0 items left");
      await saved([["Milk", true]]);
      await todo.tick("Milk").click();
      await todo.list.getByRole("checkbox", { name: "Milk", checked: false }).waitFor();
      equal(await todo.left.textContent(), "1 item left");
      await saved([["Milk", false]]);
    });

    test("Enter saves an edited todo", async () => {
      await world.api.add("Milk");
      const todo = await open();
      await todo.button("Edit", "Milk").click();
      const editor = todo.editor("Milk");
      ok(await editor.evaluate((field) => field === document.activeElement));
      equal(await editor.inputValue(), "Milk");
      await editor.fill(" Oat milk ");
      await editor.press("Enter");
      await todo.row("Oat milk").waitFor();
      await saved([["Oat milk", false]]);
    });

    test("Cancel leaves a todo as it was", async () => {
      await world.api.add("Milk");
      const todo = await open();
      await todo.button("Edit", "Milk").click();
      await todo.editor("Milk").fill("Something else");
      await todo.page.locator(".edit .cancel").click();
      await todo.button("Edit", "Milk").waitFor();
      deepEqual(await todo.texts(), ["Milk"]);
      deepEqual(await world.api.texts(), ["Milk"]);
    });

    test("an edit to an empty text is refused beside the field", async () => {
      await world.api.add("Milk");
      const todo = await open();
      await todo.button("Edit", "Milk").click();
      await todo.editor("Milk").fill("");
      await todo.editor("Milk").press("Enter");
      await todo.alert.filter({ hasText: "Enter what needs to be done." }).waitFor();
      equal(await todo.editor("Milk").getAttribute("aria-invalid"), "true");
      deepEqual(await world.api.texts(), ["Milk"]);
    });

    test("Enter held down adds one todo, without an error", async () => {
      const todo = await open();
      await todo.newTodo.fill("a");
      for (let n = 0; n < 15; n += 1) await todo.page.keyboard.down("Enter");
      await todo.page.keyboard.up("Enter");
      await todo.row("a").waitFor();
      await saved([["a", false]]);
      equal(await todo.alert.count(), 0);
    });

    test("140 characters fit, however many bytes they have, and 141 do not", async () => {
      const todo = await open();
      await todo.newTodo.fill("😀".repeat(141));
      await todo.newTodo.press("Enter");
      await todo.alert.filter({ hasText: "Too long: 141 characters, the limit is 140" }).waitFor();
      equal(await todo.newTodo.inputValue(), "😀".repeat(141));
      equal(await todo.newTodo.getAttribute("aria-invalid"), "true");
      await todo.add("😀".repeat(140));
      await saved([["😀".repeat(140), false]]);
    });

    test("an empty text is not added", async () => {
      const todo = await open();
      await todo.newTodo.fill("   ");
      await todo.newTodo.press("Enter");
      await todo.alert.filter({ hasText: "Enter what needs to be done." }).waitFor();
      deepEqual(await world.api.texts(), []);
    });

    // A zero width space, a word joiner, a Hangul filler, a blank Braille pattern, a soft hyphen, a mark with nothing to mark.
    for (const text of ["\u200B", "\u2060", "\u3164", "\u2800", "\u00AD", " \u202E\u034F "]) {
      test(`an invisible text is not added (U+${text.trim().codePointAt(0).toString(16)})`, async () => {
        const todo = await open();
        await todo.newTodo.fill(text);
        await todo.newTodo.press("Enter");
        await todo.alert.filter({ hasText: "Enter what needs to be done." }).waitFor();
        await rejects(world.api.add(text), /422/);
        deepEqual(await world.api.texts(), []);
      });
    }

    test("a double click on Add, on a tick or on Delete acts once, and offers Undo", async () => {
      const todo = await open({ path: "/staging/?filter=active" });
      for (const text of ["d", "c", "b"]) await world.api.add(text);
      await todo.newTodo.fill("a");
      await todo.page.getByRole("button", { name: "Add", exact: true }).dblclick({ delay: 50 });
      await saved([["a", false], ["b", false], ["c", false], ["d", false]]);
      await todo.row("d").waitFor();
      equal(await todo.alert.count(), 0);
      await todo.tick("a").dblclick({ delay: 50 });
      await todo.row("a").waitFor({ state: "detached" });
      deepEqual(await todo.texts(), ["b", "c", "d"]);
      await todo.button("Delete", "b").dblclick({ delay: 50 });
      await todo.row("b").waitFor({ state: "detached" });
      deepEqual(await todo.texts(), ["c", "d"]);
      equal(await todo.alert.count(), 0);
      await todo.undo.waitFor();
      await todo.undo.click();
      await todo.row("b").waitFor();
      await eventually(() => world.api.texts(), (texts) => String(texts.sort()) === "a,b,c,d");
    });

    if (!javaScriptEnabled) {
      test("the second press of a slow double click does nothing on the page loaded meanwhile", async () => {
        for (const text of ["d", "c", "b"]) await world.api.add(text);
        const todo = await open();
        const { page } = todo;
        const cdp = await page.context().newCDPSession(page);
        await cdp.send("Animation.enable");
        /** Presses the same point on this page and on the one that it leads to, however slow that is. */
        const pressTwice = async (button) => {
          await button.click({ trial: true });
          const box = await button.boundingBox();
          const point = [box.x + box.width / 2, box.y + box.height / 2];
          // Stops the animations of the page that loads next, so that nothing timed ends on it.
          await cdp.send("Animation.setPlaybackRate", { playbackRate: 0 });
          const came = page.waitForEvent("load");
          await page.mouse.click(...point);
          await came;
          const url = page.url();
          const posts = [];
          page.on("request", (request) => request.method() === "POST" && posts.push(request.url()));
          await page.mouse.click(...point);
          await cdp.send("Animation.setPlaybackRate", { playbackRate: 1 });
          await todo.newTodo.click({ trial: true });
          deepEqual(posts, []);
          equal(page.url(), url);
        };
        await todo.newTodo.fill("a");
        await pressTwice(page.getByRole("button", { name: "Add", exact: true }));
        await pressTwice(todo.tick("a"));
        await pressTwice(todo.button("Delete", "b"));
        await pressTwice(todo.undo);
        await pressTwice(page.getByRole("button", { name: "Complete all" }));
        await pressTwice(page.getByRole("button", { name: "Clear completed" }));
        equal(await todo.alert.count(), 0);
        deepEqual(await world.api.list(), []);
      });
    }

    // A browser discards the response to a form that is sent again.
    for (const [name, done, after] of [
      ["Clear completed", true, ["Bread"]],
      ["Complete all", false, ["Milk ✓", "Jam ✓", "Bread ✓"]],
    ]) {
      test(`a double click on ${name} acts once, and one Undo reverts it`, async (t) => {
        await world.api.add("Bread");
        await world.api.add("Jam", done);
        await world.api.add("Milk", done);
        const before = (await world.api.list()).map(({ text, completed }) => [text, completed]);
        const proxy = await startLosingFirst(world.system.url);
        t.after(proxy.stop);
        const todo = await open();
        await todo.page.goto(`${proxy.url}/staging/`);
        await todo.page.getByRole("button", { name }).dblclick({ delay: 50 });
        await todo.undo.waitFor();
        const rows = await todo.list.getByRole("checkbox").evaluateAll((ticks) =>
          ticks.map((tick) => {
            const text = document.getElementById(tick.getAttribute("aria-labelledby")).textContent;
            return tick.ariaChecked === "true" ? `${text} ✓` : text;
          }),
        );
        deepEqual(rows, after);
        await todo.undo.click();
        await saved(before);
      });
    }

    test("user text does not affect the direction of the text around it", async () => {
      for (const text of ["שלום", "\u202Egnikcab"]) {
        await world.api.add(text);
        const todo = await open();
        await todo.button("Delete", text).click();
        const toast = todo.page.locator(".toast");
        await toast.filter({ hasText: text }).waitFor();
        equal(await toast.locator("bdi").textContent(), text);
        equal(await toast.locator("bdi").evaluate((element) => getComputedStyle(element).unicodeBidi), "isolate");
      }
    });

    test("the text of a todo can be selected, and a click on it opens the editor", async () => {
      await world.api.add("Milk and honey");
      const todo = await open();
      const box = await todo.page.getByText("Milk and honey").boundingBox();
      // Playwright's own mouse drags with scripts in the page.
      const cdp = await todo.page.context().newCDPSession(todo.page);
      const mouse = (type, x) =>
        cdp.send("Input.dispatchMouseEvent", { type, x: box.x + x, y: box.y + box.height / 2, button: "left", clickCount: 1 });
      await todo.page.getByText("Milk and honey").click({ trial: true });
      await mouse("mousePressed", 10);
      for (const x of [30, 50, 70]) await mouse("mouseMoved", x);
      await mouse("mouseReleased", 70);
      ok((await todo.page.evaluate(() => String(getSelection()))).length > 0);
      equal(await todo.editor("Milk and honey").count(), 0);
      for (const type of ["mousePressed", "mouseReleased"]) await mouse(type, box.width - 10);
      await todo.editor("Milk and honey").waitFor();
    });

    test("a deleted todo comes back by Undo, as it was", async () => {
      await world.api.add("Bread");
      await world.api.add("Milk", true);
      const todo = await open();
      await todo.button("Delete", "Milk").click();
      await todo.undo.waitFor();
      deepEqual(await todo.texts(), ["Bread"]);
      await todo.undo.click();
      await todo.list.getByRole("checkbox", { name: "Milk", checked: true }).waitFor();
      await saved([["Milk", true], ["Bread", false]]);
    });

    test("a deleted todo is gone after leaving the page", async () => {
      await world.api.add("Milk");
      const todo = await open();
      await todo.button("Delete", "Milk").click();
      await todo.undo.waitFor();
      await leave(todo.page);
      await saved([]);
    });

    test("filters are in the URL, and Back leads back", async () => {
      await world.api.add("Open one");
      await world.api.add("Closed one", true);
      const todo = await open();
      await todo.filter("Active").click();
      await todo.row("Closed one").waitFor({ state: "detached" });
      match(todo.page.url(), /filter=active/);
      equal(await todo.filter("Active").getAttribute("aria-current"), "page");
      equal(await todo.filter("All").getAttribute("aria-current"), null);
      await todo.filter("Completed").click();
      await todo.row("Closed one").waitFor();
      deepEqual(await todo.texts(), ["Closed one"]);
      equal(await todo.left.textContent(), "1 item left");
      await todo.page.goBack();
      await todo.row("Open one").waitFor();
      deepEqual(await todo.texts(), ["Open one"]);
      await todo.page.reload();
      deepEqual(await todo.texts(), ["Open one"]);
    });

    test("Clear completed keeps the active todos", async () => {
      await world.api.add("Open one");
      await world.api.add("Closed one", true);
      const todo = await open();
      await todo.clear.click();
      await todo.row("Closed one").waitFor({ state: "detached" });
      await todo.clear.waitFor({ state: "hidden" });
      await leave(todo.page);
      await saved([["Open one", false]]);
    });

    test("a text is shown as text, whatever is in it", async () => {
      const probes = [
        "<script>window.hacked = true</script>",
        '<img src=x onerror="window.hacked = true">',
        "\"><svg onload='window.hacked = true'>",
        "javascript:window.hacked=true",
        "{{ 7 * 7 }} &amp; &lt;b&gt; ${7*7}",
      ];
      const todo = await open();
      for (const probe of probes) await todo.add(probe);
      const newestFirst = [...probes].reverse();
      deepEqual(await todo.texts(), newestFirst);
      await todo.page.reload();
      deepEqual(await todo.texts(), newestFirst);
      await todo.button("Edit", probes[0]).click();
      equal(await todo.editor(probes[0]).inputValue(), probes[0]);
      if (javaScriptEnabled) equal(await todo.page.evaluate(() => window.hacked), undefined);
      equal(await todo.list.locator("img, script").count(), 0);
    });

    test("every script keeps its own direction", async () => {
      await world.api.add("שלום עולם");
      await world.api.add("plain words");
      const todo = await open();
      const direction = (text) =>
        todo.page.getByText(text, { exact: true }).evaluate((element) => getComputedStyle(element).direction);
      equal(await direction("שלום עולם"), "rtl");
      equal(await direction("plain words"), "ltr");
    });

    test("times are relative and exact, and hidden if of today", async () => {
      await world.api.add("Milk");
      const todo = await open();
      const time = todo.row("Milk").locator("time");
      equal(await time.isVisible(), false);
      equal(await time.textContent(), "just now");
      match(await time.getAttribute("title"), /\d{1,2} \w+ 20\d\d.*\d\d:\d\d:\d\d/);
    });

    test("the picture has an alternative text, and details on request", async () => {
      const todo = await open();
      // It is fetched in the background, so the first page may be too early.
      await eventually(
        async () => {
          await todo.page.reload();
          return todo.page.getByRole("img", { name: "A random photograph" }).count();
        },
        (count) => count === 1,
      );
      const figure = todo.page.locator("figure");
      equal((await figure.innerText()).trim(), "A new picture every 10 minutes");
      await figure.locator("summary").click();
      match(await figure.innerText(), /Fetched[\s\S]*Next one in[\s\S]*Seen \d+ time/);
    });

    // A zoom of 200 % leaves 640 of 1280 pixels, one of 400 % leaves 320
    // (WCAG 2.2, 1.4.4 and 1.4.10).
    const screens = {
      "a screen of 320 pixels": { viewport: { width: 320, height: 600 } },
      "a zoom of 200 %": { viewport: { width: 640, height: 400 }, deviceScaleFactor: 2 },
    };
    for (const [name, screen] of Object.entries(screens)) {
      test(`the whole page fits ${name}`, async () => {
        await world.api.add("Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen".repeat(2));
        await world.api.add("Milk", true);
        const todo = await open(screen);
        const fits = () =>
          todo.page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);
        ok(await fits());
        await todo.button("Edit", "Milk").click();
        await todo.editor("Milk").waitFor();
        // Before its styles are loaded, no page fits.
        await eventually(fits, Boolean);
      });
    }

    test("text of twice the size stays inside the page", async () => {
      await world.api.add("Milk", true);
      const todo = await open();
      await todo.page.evaluate(() => {
        document.documentElement.style.fontSize = "200%";
      });
      const cutOff = await todo.page.evaluate(() => {
        const cut = (element) =>
          element.clientWidth > 1 &&
          element.scrollWidth > element.clientWidth + 1 &&
          getComputedStyle(element).overflowX !== "visible";
        return [...document.querySelectorAll("main *, header *")].filter(cut).map((element) => element.outerHTML);
      });
      deepEqual(cutOff, []);
      await todo.newTodo.fill("Bread");
      ok(await todo.button("Edit", "Milk").isVisible());
    });

    test("everything can be done with the keyboard alone", async () => {
      const todo = await open();
      const { keyboard } = todo.page;
      const tabTo = async (locator) => {
        for (let presses = 0; presses < 40; presses += 1) {
          if (await locator.evaluate((element) => element === document.activeElement)) return;
          await keyboard.press("Tab");
        }
        throw new Error(`Tab does not lead to ${locator}`);
      };
      // The browser sets the focus after the page loads; earlier keys are lost.
      await todo.newTodo.and(todo.page.locator(":focus")).waitFor();
      await keyboard.type("Milk");
      await keyboard.press("Enter");
      await todo.row("Milk").waitFor();
      await tabTo(todo.tick("Milk"));
      await keyboard.press("Space");
      await todo.list.getByRole("checkbox", { name: "Milk", checked: true }).waitFor();
      await tabTo(todo.button("Edit", "Milk"));
      await keyboard.press("Enter");
      await todo.editor("Milk").waitFor();
      await keyboard.press("Control+A");
      await keyboard.type("Oat milk");
      await keyboard.press("Enter");
      await todo.row("Oat milk").waitFor();
      await tabTo(todo.button("Delete", "Oat milk"));
      await keyboard.press("Enter");
      await todo.row("Oat milk").waitFor({ state: "detached" });
      await tabTo(todo.undo);
      await keyboard.press("Enter");
      await todo.row("Oat milk").waitFor();
      await saved([["Oat milk", true]]);
    });

    test("an unknown URL shows a page with a link back", async () => {
      const todo = await open({ path: "/staging/nope" });
      await todo.page.getByRole("heading", { name: "Page not found" }).waitFor();
      await todo.page.getByRole("link", { name: "To the todos" }).click();
      await todo.newTodo.waitFor();
    });
  });
}
