// Serves the working tree's scripts instead of those built into the programs,
// so that a change shows without a build.

import { readFile } from "node:fs/promises";
import { join } from "node:path";

/** Serves `folder` below `/static/` to the pages of `context`, if `folder` is set. */
export async function serveAssets(context, folder = process.env.ASSETS) {
  if (!folder) return;
  await context.route(/\/static\/[^/]+\.js$/, async (route) => {
    const [name] = new URL(route.request().url()).pathname.split("/").pop().split(".");
    const body = await readFile(join(folder, `${name}.js`), "utf8");
    await route.fulfill({ body, contentType: "text/javascript" });
  });
}
