// One part of the page that fails ends no other.

import { deepEqual, equal, ok } from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

import { eventually, suite } from "../lib/suite.js";
import { startStandalone } from "../lib/system.js";

/** Collects what the page reports, in `reports` of its window. */
const collectReports = () => {
  window.reports = [];
  addEventListener("report", ({ detail }) => window.reports.push(detail.part));
};
const reports = (todo) => todo.page.evaluate(() => window.reports);

/** Everything that a page does for a person, in short. */
async function useAll(world, todo, { keys = true, live = true } = {}) {
  await todo.add("Mine");
  await todo.tick("Mine").click();
  await eventually(() => world.api.list(), ([first]) => first?.text === "Mine" && first.completed);
  if (live) {
    await world.api.add("Theirs");
    await todo.row("Theirs").waitFor();
  }
  if (keys) {
    await todo.newTodo.press("Escape");
    await todo.page.keyboard.press("?");
    await todo.page.getByRole("dialog", { name: "Keyboard shortcuts" }).waitFor();
    await todo.page.keyboard.press("Escape");
  }
}

describe("with an unreachable origin of pictures", () => {
  const world = suite(() => startStandalone({ IMG_URL: "http://pictures.invalid/" }));

  test("a page without a picture does everything else", async () => {
    const todo = await world.open({ prepare: (context) => context.addInitScript(collectReports) });
    await useAll(world, todo);
    deepEqual(await reports(todo), []);
    const dates = await todo.page.locator("time").evaluateAll((times) => times.map((time) => time.getAttribute("datetime")));
    ok(!dates.includes(""), "no element has an empty date");
  });
});

describe("with all that a page needs", () => {
  const world = suite(startStandalone);
  beforeEach(() => world.clean());

  /** What a browser does to a page whose storage is blocked. */
  const blockStorage = () => {
    const refuse = () => {
      throw new DOMException("Access is denied for this document.", "SecurityError");
    };
    for (const name of ["localStorage", "sessionStorage", "indexedDB", "caches"]) {
      Object.defineProperty(window, name, { get: refuse });
    }
    LockManager.prototype.request = async () => refuse();
    LockManager.prototype.query = async () => refuse();
    ServiceWorkerContainer.prototype.register = async () => refuse();
  };

  test("with storage blocked, everything works but what needs it", async () => {
    const todo = await world.open({
      prepare: async (context) => {
        await context.addInitScript(collectReports);
        await context.addInitScript(blockStorage);
      },
    });
    await useAll(world, todo);
    deepEqual(await reports(todo), []);
  });

  for (const [part, without] of Object.entries({ times: {}, picture: {}, keys: { keys: false }, live: { live: false } })) {
    test(`without the part "${part}" the others work`, async () => {
      const todo = await world.open({
        prepare: async (context) => {
          await context.addInitScript(collectReports);
          await context.route(new RegExp(`/static/${part}\\.(.*\\.)?js$`), (route) => route.abort());
        },
      });
      equal((await reports(todo)).length, 1);
      await useAll(world, todo, without);
    });
  }

  /** What a browser may lack, or an extension of it may break. */
  const lacking = {
    "the formats of dates": () => {
      window.Intl = undefined;
    },
    "the list of what comes into sight": () => {
      window.IntersectionObserver = undefined;
    },
    "channels between tabs": () => {
      window.BroadcastChannel = undefined;
    },
    locks: () => Object.defineProperty(Navigator.prototype, "locks", { get: () => undefined }),
    "service workers": () => Object.defineProperty(Navigator.prototype, "serviceWorker", { get: () => undefined }),
    "changes of the address": () => {
      history.pushState = history.replaceState = () => {
        throw new DOMException("too often", "SecurityError");
      };
    },
  };
  for (const [what, trap] of Object.entries(lacking)) {
    test(`without ${what} everything else works`, async () => {
      const todo = await world.open({ prepare: (context) => context.addInitScript(trap) });
      await useAll(world, todo);
      await todo.filter("Active").click();
      await todo.row("Mine").waitFor({ state: "detached" });
      deepEqual(await todo.texts(), ["Theirs"]);
    });
  }

  test("without the stream of changes everything else works", async () => {
    const todo = await world.open({
      prepare: async (context) => {
        await context.addInitScript(collectReports);
        await context.addInitScript(() => {
          window.EventSource = undefined;
        });
      },
    });
    await useAll(world, todo, { live: false });
    deepEqual(await reports(todo), ["live"]);
  });

  test("errors after the start are reported, too", async () => {
    const todo = await world.open({ prepare: (context) => context.addInitScript(collectReports) });
    todo.page.removeAllListeners("pageerror");
    await todo.page.evaluate(() => {
      setTimeout(() => {
        throw new Error("in a timer");
      });
      Promise.reject(new Error("in a promise"));
    });
    await eventually(() => reports(todo), (parts) => String(parts) === "page,page");
  });

  test("without the list's own script its forms work as the server rendered them", async () => {
    const todo = await world.open({
      prepare: (context) => context.route(/\/static\/board\./, (route) => route.abort()),
    });
    await todo.add("By the form");
    deepEqual(await world.api.texts(), ["By the form"]);
  });
});
