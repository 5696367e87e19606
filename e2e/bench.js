// Prints a table of how fast the page is with few and with many todos.
//
//   node bench.js [rows…]

import { TodoPage, launch } from "./lib/browser.js";
import { started } from "./lib/suite.js";
import { serveAssets } from "./lib/assets.js";
import { startStandalone } from "./lib/system.js";

const ROUNDS = 9;
const sizes = process.argv.slice(2).map(Number);

/** Resolves after the next frame is painted. */
const PAINTED = `new Promise((resolve) => requestAnimationFrame(() => {
  const { port1, port2 } = new MessageChannel();
  port2.onmessage = resolve;
  port1.postMessage(null);
}))`;

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

async function fill(url, count) {
  const add = (n) =>
    fetch(`${url}/staging/todos/`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ text: `Todo number ${n}` }),
    });
  for (let n = 0; n < count; n += 50) {
    await Promise.all(Array.from({ length: Math.min(50, count - n) }, (_, m) => add(n + m)));
  }
}

/** The page with all of its rows loaded. */
async function loaded(page, count) {
  for (;;) {
    const rows = await page.locator("#todos > li, #todos li").count();
    if (rows >= count) return;
    await page.evaluate(() => document.getElementById("older").click());
    await page.waitForTimeout(20);
  }
}

async function measure(browser, count) {
  const system = await startStandalone();
  try {
    await fill(system.url, count);
    const context = await browser.newContext({ serviceWorkers: "block" });
    await serveAssets(context);
    const page = await context.newPage();
    await page.goto(`${system.url}/staging/`);
    await started(page);
    await loaded(page, count);
    const todo = new TodoPage(page);
    await todo.newTodo.waitFor();
    /** `find` is the element that a user has already found before the time starts. */
    const timed = async (act, find = "null") => {
      const times = [];
      for (let round = 0; round < ROUNDS; round += 1) {
        times.push(
          await page.evaluate(
            `(async () => {
              const round = ${round};
              const found = ${find};
              const start = performance.now();
              ${act}
              await ${PAINTED};
              return performance.now() - start;
            })()`,
          ),
        );
        await page.waitForTimeout(150);
      }
      return median(times);
    };
    const enter = await timed(`
      const field = document.getElementById("new-todo");
      field.value = "new " + round;
      field.form.requestSubmit();`);
    const tick = await timed("found[round % found.length].click();", `document.querySelectorAll("#todos .tick")`);
    const remove = await timed("found.click();", `document.querySelector("#todos [data-form=delete] button")`);
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    const cdp = await context.newCDPSession(page);
    await cdp.send("HeapProfiler.collectGarbage");
    const { usedSize } = await cdp.send("Runtime.getHeapUsage");
    await context.close();
    return { rows: count, "Enter to painted, ms": enter.toFixed(1), "tick, ms": tick.toFixed(1), "delete, ms": remove.toFixed(1), "heap, MB": (usedSize / 1e6).toFixed(1) };
  } finally {
    await system.stop();
  }
}

const browser = await launch();
const table = [];
for (const count of sizes.length > 0 ? sizes : [3, 1_000, 10_000]) table.push(await measure(browser, count));
await browser.close();
console.table(table);
