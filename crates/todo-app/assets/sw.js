// Serves the page while offline. While online, the page always comes from the
// server.
//
// The server prepends `VERSION` and `FILES`, the names below `static/`. Each
// version has its own cache, which the next version deletes.

const SCOPE = registration.scope;
const STORE = `${SCOPE} ${VERSION}`;
const STATIC = `${SCOPE}static/`;
/** Says that a page needs a connection, and links to the list, which does not. */
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
  // From the browser's cache, so as not to count a view that nobody sees.
  await fetch(SCOPE, { cache: "force-cache" }).then(keep, () => {});
  await skipWaiting();
}

async function activate() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith(`${SCOPE} `) && name !== STORE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await clients.claim();
}

/** The server's page; if it is unreachable, that of the last visit, marked as kept. */
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

/** A page that is not cached: the print view, the inbox, the docs. */
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

/** Caches pages of this version only: no sign-in, newer page or error. */
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
