// A fake of the cluster's ingress that can take the backend down.

import http from "node:http";

import { close, listen } from "./system.js";

/**
 * Serves staging: `/staging/todos` from the API of `standalone`, the rest from
 * `app()`, which also gets its todos here. While it is down, calls to the API get
 * a 503 and open streams are cut.
 */
export async function startIngress(standalone, app) {
  let down = false;
  let silent = false;
  let gone = false;
  let worker = null;
  const streams = new Set();
  const server = http.createServer((request, response) => {
    const isApi = request.url.startsWith("/staging/todos");
    if (gone) return void request.socket.destroy();
    if (worker && request.url === "/staging/sw.js") {
      response.writeHead(200, { "content-type": "text/javascript", "cache-control": "no-cache" }).end(worker);
      return;
    }
    if (isApi && down) {
      response.writeHead(503).end();
      return;
    }
    const path = request.url.slice("/staging".length);
    const target = isApi ? new URL(request.url, standalone) : new URL(path || "/", app());
    const { method, headers } = request;
    const onward = http.request(target, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.on("data", (data) => {
        if (!(isApi && silent)) response.write(data);
      });
      answer.on("end", () => response.end());
      answer.on("error", () => response.destroy());
      if (isApi) {
        streams.add(response);
        response.on("close", () => streams.delete(response));
      }
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  const url = await listen(server);
  return {
    url,
    setDown(value) {
      down = value;
      if (down) for (const stream of streams) stream.destroy();
    },
    /** Drops all traffic without closing a connection, like a cut cable. */
    setSilent(value) {
      silent = value;
    },
    /** Answers nothing: the browser is offline. */
    setGone(value) {
      gone = value;
      if (gone) server.closeAllConnections();
    },
    /** Serves the service worker of another release in place of the real one. */
    setWorker(source) {
      worker = source;
    },
    stop: () => close(server),
  };
}

/** Forwards everything to `target`, but loses the response to the first form. */
export async function startLosingFirst(target) {
  let forms = 0;
  const server = http.createServer((request, response) => {
    const { method, headers, url } = request;
    const isLost = method === "POST" && forms++ === 0;
    const onward = http.request(new URL(url, target), { method, headers }, (answer) => {
      if (isLost) return void answer.resume();
      response.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  return { url: await listen(server), stop: () => close(server) };
}

/** The parts of staging as in a cluster: `{url, setDown, stop}`. */
export async function startCluster({ startStandalone, startTodoApp }) {
  const standalone = await startStandalone();
  let app;
  const ingress = await startIngress(standalone.url, () => app.url);
  app = await startTodoApp(`${ingress.url}/staging`);
  return {
    url: ingress.url,
    /** The process behind it, which also serves production. */
    standalone: standalone.url,
    setDown: ingress.setDown,
    setSilent: ingress.setSilent,
    setGone: ingress.setGone,
    setWorker: ingress.setWorker,
    /** Creates a todo, bypassing the ingress. */
    add: (text) =>
      fetch(`${standalone.url}/staging/todos/`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ text }),
      }),
    kill: standalone.kill,
    revive: standalone.revive,
    async stop() {
      await app.stop();
      await ingress.stop();
      await standalone.stop();
    },
  };
}
