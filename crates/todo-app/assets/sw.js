// Opens the page without a connection. With one it is never asked for the
// page: what the server says is what is shown.
//
// The server writes `VERSION` and `FILES`, the names below `static/`, before
// this. Each version has a store of its own; the next one deletes it.

const SCOPE = registration.scope;
const STORE = `${SCOPE} ${VERSION}`;
const STATIC = `${SCOPE}static/`;
/** What says that a page needs a connection, and leads back to the one that does not. */
const OFFLINE = `${SCOPE}offline`;

addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(activate()));
addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  if (request.mode === "navigate") event.respondWith(isPage(request.url) ? page(request) : elsewhere(request));
  else if (request.url.startsWith(STATIC)) event.respondWith(file(request));
});

const isPage = (address) => address.split(/[?#]/)[0] === SCOPE;

async function install() {
  const store = await caches.open(STORE);
  await store.addAll([OFFLINE, ...FILES.map((name) => STATIC + name)]);
  // As the browser has it: a look at the page that nobody takes is not counted.
  await fetch(SCOPE, { cache: "force-cache" }).then(keep, () => {});
  await skipWaiting();
}

async function activate() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith(`${SCOPE} `) && name !== STORE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await clients.claim();
}

/** The page of the server; where nobody answers, the one of the last visit, which knows that it is old. */
async function page(request) {
  let response;
  try {
    response = await fetch(request);
  } catch (error) {
    const kept = await keptPage();
    if (kept) return kept;
    throw error;
  }
  if (request.url === SCOPE) await keep(response.clone()).catch(() => {});
  return response;
}

/** A page that is not kept: the print, the inbox, the docs. */
async function elsewhere(request) {
  try {
    return await fetch(request);
  } catch (error) {
    const offline = await caches.match(OFFLINE);
    if (offline) return offline;
    throw error;
  }
}

async function keptPage() {
  const kept = await (await caches.open(STORE)).match(SCOPE);
  if (!kept) return null;
  const html = (await kept.text()).replace('id="board"', 'id="board" data-kept');
  return new Response(html, { headers: kept.headers });
}

/** Keeps a page of this version, and no other: a sign-in, a newer page, a fault. */
async function keep(response) {
  const html = await response.clone().text();
  const isOurs = response.ok && !response.redirected && html.includes(`static/${FILES.at(-1)}`);
  if (isOurs) await (await caches.open(STORE)).put(SCOPE, response);
}

/** A file never changes under its name. */
async function file(request) {
  const kept = await caches.match(request.url).catch(() => null);
  return kept ?? fetch(request);
}
