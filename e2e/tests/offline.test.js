// The page opens offline, can be installed, and is never stale while online.

import { deepEqual, equal, match, ok } from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { startCluster } from "../lib/ingress.js";
import { eventually, started, suite } from "../lib/suite.js";
import { startStandalone, startTodoApp } from "../lib/system.js";

const world = suite(() => startCluster({ startStandalone, startTodoApp }));
beforeEach(async () => {
  world.system.setGone(false);
  world.system.setWorker(null);
  await world.clean();
});

/** A page whose service worker is active and has cached the page. */
async function openKept(options = {}) {
  const todo = await world.open({ serviceWorkers: "allow", ...options });
  await isKept(todo);
  return todo;
}

const stores = (todo) => todo.page.evaluate(() => caches.keys());
const isKept = (todo) =>
  eventually(
    () =>
      todo.page.evaluate(async () => {
        await navigator.serviceWorker.ready;
        return Boolean(await caches.match(new URL("./", document.baseURI).href.split("?")[0]));
      }),
    Boolean,
  );

/** A cached page with one todo, whose server is gone. */
async function openAndCutOff() {
  await world.api.add("Milk");
  const todo = await openKept();
  await todo.page.reload();
  await isKept(todo);
  world.system.setGone(true);
  return todo;
}

test("the page opens offline, says that it is out of date, accepts a todo, and saves it later", async () => {
  const todo = await openAndCutOff();
  await todo.page.goto(`${world.system.url}/staging/`);
  await started(todo.page);
  await todo.row("Milk").waitFor();
  await todo.alert.filter({ hasText: "What you see may be out of date" }).waitFor();
  await todo.add("Written on the train");
  await todo.page.goto(`${world.system.url}/staging/?filter=active`);
  await todo.row("Written on the train").waitFor();
  world.system.setGone(false);
  await todo.page.evaluate(() => dispatchEvent(new Event("online")));
  await eventually(() => world.api.texts(), (texts) => String(texts) === "Written on the train,Milk");
  await todo.alert.waitFor({ state: "detached" });
});

test("a page that needs a connection says so while there is none, and leads back to the list", async () => {
  const todo = await openAndCutOff();
  await todo.page.getByRole("link", { name: "Print" }).click();
  await todo.page.getByRole("heading", { name: "There is no connection" }).waitFor();
  await todo.page.getByRole("link", { name: "To the todos" }).click();
  await started(todo.page);
  await todo.row("Milk").waitFor();
});

test("with a connection the page comes from the server, whatever is cached", async () => {
  const todo = await openKept();
  await todo.page.reload();
  await isKept(todo);
  await world.api.add("New");
  const response = await todo.page.goto(`${world.system.url}/staging/`);
  ok((await response.text()).includes("New"));
  equal(await todo.page.locator("[data-kept]").count(), 0);
  // The cache does not hide a server error.
  world.system.setDown(true);
  const fault = await todo.page.goto(`${world.system.url}/staging/`);
  equal(fault.status(), 503);
  world.system.setDown(false);
});

test("a new version takes over, and leaves nothing of the old one", async () => {
  const todo = await openKept();
  const [before] = await stores(todo);
  const worker = await (await fetch(`${world.system.url}/staging/sw.js`)).text();
  world.system.setWorker(worker.replace(/VERSION = ".*?"/, 'VERSION = "next"'));
  await todo.page.evaluate(async () => (await navigator.serviceWorker.ready).update());
  await eventually(() => stores(todo), (names) => names.length === 1 && names[0] !== before);
  match((await stores(todo))[0], /\/staging\/ next$/);
  await todo.page.reload();
  await started(todo.page);
  await todo.add("Still works");
});

test("each environment has its own worker, which leaves the API alone", async () => {
  const todo = await openKept();
  await todo.page.reload();
  await started(todo.page);
  const answers = [];
  todo.page.on("response", (response) => answers.push([new URL(response.url()).pathname, response.fromServiceWorker()]));
  await todo.add("Milk");
  const isFromApi = ([path, byWorker]) => path === "/staging/todos/" && !byWorker;
  await eventually(async () => answers, (all) => all.some(isFromApi));
  const scopes = await todo.page.evaluate(async () =>
    (await navigator.serviceWorker.getRegistrations()).map(({ scope }) => new URL(scope).pathname),
  );
  deepEqual(scopes, ["/staging/"]);
});

test("the page can be installed", async () => {
  const todo = await openKept();
  const cdp = await todo.page.context().newCDPSession(todo.page);
  const { errors, data } = await cdp.send("Page.getAppManifest");
  deepEqual(errors, []);
  const manifest = JSON.parse(data);
  equal(manifest.start_url, "/staging/");
  equal(manifest.scope, "/staging/");
  match(manifest.name, /Staging/);
  for (const { src, type } of manifest.icons) {
    const icon = await fetch(world.system.url + src);
    equal(icon.status, 200);
    equal(icon.headers.get("content-type"), type);
  }
  const { installabilityErrors } = await cdp.send("Page.getInstallabilityErrors");
  // The tests use private windows, in which nothing can be installed.
  deepEqual(installabilityErrors.filter(({ errorId }) => errorId !== "in-incognito"), []);
});

test("browsers revalidate the worker and the manifest", async () => {
  for (const path of ["sw.js", "manifest.webmanifest"]) {
    const response = await fetch(`${world.system.url}/staging/${path}`);
    equal(response.status, 200);
    equal(response.headers.get("cache-control"), "no-cache");
  }
});

test("a URL without its trailing slash gets one, so that it opens offline", async () => {
  const todo = await world.open({ serviceWorkers: "allow", path: "/staging" });
  await eventually(() => new URL(todo.page.url()).pathname, (path) => path === "/staging/");
});
