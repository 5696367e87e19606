// A real standalone process in its own folder, and its dependencies.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const BINARIES = join(HERE, "../../target/debug");
const START_TIMEOUT = 20_000;

/** The origin of the pictures, which serves one photograph. */
export async function startPictures() {
  const picture = await readFile(join(HERE, "../fixtures/picture.jpg"));
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "image/jpeg" }).end(picture);
  });
  const url = await listen(server);
  return { url, stop: () => close(server) };
}

/** `{url, stop}` of a fresh standalone process; `url` has no trailing slash. */
export async function startStandalone(environment = {}) {
  const folder = await mkdtemp(join(tmpdir(), "todo-e2e-"));
  const pictures = await startPictures();
  const start = (address) => run(process.env.STANDALONE ?? join(BINARIES, "standalone"), {
    LISTEN_ADDR: address,
    DATA_DIR: folder,
    IMG_URL: pictures.url,
    SHUTDOWN_DELAY_SECONDS: "0",
    ...environment,
  });
  let child = start("127.0.0.1:0");
  const ready = () => child.line(/http:\/\/(?:localhost|127\.0\.0\.1):\d+/);
  const url = (await ready()).replace("localhost", "127.0.0.1");
  return {
    url,
    /** Kills the process; `revive` restarts it in the same place. */
    kill: () => child.kill(),
    async revive() {
      child = start(new URL(url).host);
      await ready();
    },
    async stop() {
      await child.stop();
      await pictures.stop();
      await rm(folder, { recursive: true });
    },
  };
}

/** `{url, stop}` of a todo-app process in staging that calls the API at `backend`. */
export async function startTodoApp(backend) {
  const folder = await mkdtemp(join(tmpdir(), "todo-e2e-"));
  const pictures = await startPictures();
  const child = run(process.env.TODO_APP ?? join(BINARIES, "todo-app"), {
    POD_NAMESPACE: "staging",
    LISTEN_ADDR: "127.0.0.1:0",
    ADMIN_ADDR: "127.0.0.1:0",
    PUBLIC_PREFIX: "/staging",
    TODO_BACKEND_URL: backend,
    CACHE_DIR: folder,
    IMG_URL: pictures.url,
    LOG_FORMAT: "json",
    SHUTDOWN_DELAY_SECONDS: "0",
  });
  const line = await child.line(/"address":"([^"]+)"/);
  return {
    url: `http://${line.match(/"([^"]+)"$/)[1]}`,
    async stop() {
      await child.stop();
      await pictures.stop();
      await rm(folder, { recursive: true });
    },
  };
}

/** Starts a program; `line` waits for a line that it prints. */
function run(program, environment) {
  const child = spawn(program, { env: environment, stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout });
  const exited = new Promise((resolve, reject) => {
    child.on("exit", resolve);
    child.on("error", reject);
  });
  exited.catch(() => {});
  return {
    line(pattern) {
      const found = new Promise((resolve) => {
        // Keep reading: a full pipe would block the program.
        lines.on("line", (line) => {
          const match = line.match(pattern);
          if (match) resolve(match[0]);
        });
      });
      const ended = exited.then((code) => Promise.reject(new Error(`${program} ended with ${code}`)));
      return Promise.race([found, ended, after(START_TIMEOUT, `${program} did not print ${pattern}`)]);
    },
    async kill() {
      child.kill("SIGKILL");
      await exited;
    },
    async stop() {
      child.kill("SIGTERM");
      await Promise.race([exited, after(START_TIMEOUT, `${program} did not stop`)]);
    },
  };
}

function after(time, message) {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(message)), time).unref();
  });
}

export async function listen(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${server.address().port}`;
}

export async function close(server) {
  server.closeAllConnections();
  server.close();
  await once(server, "close");
}
