// A part of the page that fails breaks no other.

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

/** Tries everything that the page does for a user, briefly. */
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

describe("with an unreachable picture server", () => {
  const world = suite(() => startStandalone({ IMG_URL: "http://pictures.invalid/" }));

  test("a page without a picture does everything else", async () => {
    const todo = await world.open({ prepare: (context) => context.addInitScript(collectReports) });
    await useAll(world, todo);
    deepEqual(await reports(todo), []);
    const dates = await todo.page.locator("time").evaluateAll((times) => times.map((time) => time.getAttribute("datetime")));
    ok(!dates.includes(""), "no element has an empty date");
  });
});

describe("with a working server", () => {
  const world = suite(startStandalone);
  beforeEach(() => world.clean());

  /** Does to a page what a browser with blocked storage does. */
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

  test("with storage blocked, everything works that does not need it", async () => {
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

  /** What a browser may lack, or one of its extensions may break. */
  const lacking = {
    "date formats": () => {
      window.Intl = undefined;
    },
    "intersection observers": () => {
      window.IntersectionObserver = undefined;
    },
    "channels between tabs": () => {
      window.BroadcastChannel = undefined;
    },
    locks: () => Object.defineProperty(Navigator.prototype, "locks", { get: () => undefined }),
    "service workers": () => Object.defineProperty(Navigator.prototype, "serviceWorker", { get: () => undefined }),
    "changes of the URL": () => {
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

  test("without the event stream everything else works", async () => {
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
