// The setup that every test file shares.

import { after, before } from "node:test";

import { serveAssets } from "./assets.js";
import { launch, TodoPage } from "./browser.js";

/**
 * Starts a system with `start` and a browser for the tests of a file. `open`
 * returns a page of staging in its own context.
 */
export function suite(start) {
  const state = {};
  const contexts = new Set();
  before(async () => {
    // Stop what has started even if the other one failed.
    const [system, browser] = await Promise.allSettled([start(), launch()]);
    Object.assign(state, { system: system.value, browser: browser.value });
    for (const { reason } of [system, browser]) if (reason) throw reason;
    state.api = new Api(`${state.system.url}/staging/todos/`);
  });
  after(async () => {
    await state.browser?.close();
    await state.system?.stop();
  });
  /**
   * `prepare(context)` may set traps before the page loads; `context` is an
   * existing one, to open another tab in it.
   */
  state.open = async ({ path = "/staging/", prepare, context, ...options } = {}) => {
    if (!context) {
      // A service worker would bypass the traps that the tests set.
      context = await state.browser.newContext({ serviceWorkers: "block", ...options });
      contexts.add(context);
      await serveAssets(context);
      await prepare?.(context);
    }
    const page = await context.newPage();
    page.setDefaultTimeout(10_000);
    page.on("pageerror", (error) => {
      throw error;
    });
    page.on("dialog", (dialog) => {
      throw new Error(`a dialog opened: ${dialog.message()}`);
    });
    await page.goto(state.system.url + path);
    const scripted = options.javaScriptEnabled ?? true;
    if (scripted && (await page.locator("#board").count())) await started(page);
    return new TodoPage(page);
  };
  /** Leaves an empty list and no page open. */
  state.clean = async () => {
    for (const context of contexts) await context.close();
    contexts.clear();
    await state.api.empty();
  };
  return state;
}

/** Waits until every part of the page's scripts has started, or failed. */
export async function started(page) {
  await page.locator("html[data-parts=started]").waitFor({ state: "attached" });
}

/** A browser in which `setHidden` controls whether a page is visible. */
export const withSight = (context, startsHidden = false) =>
  context.addInitScript((start) => {
    let hidden = start;
    Object.defineProperty(document, "hidden", { get: () => hidden });
    window.setHidden = (value) => {
      hidden = value;
      document.dispatchEvent(new Event("visibilitychange"));
    };
  }, startsHidden);
export const setHidden = (todo, value) => todo.page.evaluate((hidden) => window.setHidden(hidden), value);

/** Stops the clock of a page, which then advances by `runFor` only, however slow the machine. */
export async function stopClock(page) {
  await page.clock.install();
  await page.clock.pauseAt((await page.evaluate(() => Date.now())) + 1_000);
}

/** The REST API, as `curl` calls it. */
class Api {
  constructor(url) {
    this.url = url;
  }

  async #call(method, path, body) {
    const response = await fetch(this.url + path, {
      method,
      headers: { "content-type": "application/json" },
      body: body && JSON.stringify(body),
    });
    // It is fine if somebody else has deleted it.
    if (method === "DELETE" && response.status === 404) return null;
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  list(query = "") {
    return this.#call("GET", query);
  }

  async texts() {
    return (await this.list()).map((todo) => todo.text);
  }

  async add(text, completed = false) {
    const todo = await this.#call("POST", "", { text });
    return completed ? this.update(todo.id, { completed }) : todo;
  }

  update(id, change) {
    return this.#call("PUT", String(id), change);
  }

  remove(id) {
    return this.#call("DELETE", String(id));
  }

  async empty() {
    for (;;) {
      const todos = await this.list();
      if (todos.length === 0) return;
      await Promise.all(todos.slice(0, 50).map((todo) => this.remove(todo.id)));
    }
  }
}

/** Presses "Try now", unless the waiting changes were just sent automatically. */
export function tryNow(todo) {
  return todo.page.getByRole("button", { name: "Try now" }).evaluateAll((buttons) => buttons[0]?.click());
}

/** Leaves once the page no longer warns before leaving, as everything is stored by then. */
export async function leave(page) {
  const asks = () => page.evaluate(() => dispatchEvent(new Event("beforeunload", { cancelable: true })));
  await eventually(asks, (mayGo) => mayGo);
  await page.goto("about:blank");
}

/** Polls `ask` until its result satisfies `wanted`, and returns it. */
export async function eventually(ask, wanted, timeout = 10_000) {
  const end = Date.now() + timeout;
  for (;;) {
    const found = await ask();
    if (wanted(found)) return found;
    if (Date.now() > end) throw new Error(`it stayed ${JSON.stringify(found)}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
