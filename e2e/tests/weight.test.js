// How much a browser must fetch for a complete page.

import { ok } from "node:assert/strict";
import { test } from "node:test";

import { started, suite } from "../lib/suite.js";
import { startStandalone } from "../lib/system.js";

const world = suite(startStandalone);

/** In bytes, headers included. */
const LIMITS = { "scripts and styles": 60_000, font: 30_000 };

test("scripts and styles are 60 kB at most as they are transferred, and the font is 30 kB", async () => {
  // The built-in files: those from a folder would be served uncompressed.
  const context = await world.browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  const cdp = await context.newCDPSession(page);
  await cdp.send("Network.enable");
  const types = new Map();
  const bytes = { "scripts and styles": 0, font: 0 };
  cdp.on("Network.responseReceived", ({ requestId, type }) => types.set(requestId, type));
  cdp.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
    const type = types.get(requestId);
    if (type === "Script" || type === "Stylesheet") bytes["scripts and styles"] += encodedDataLength;
    if (type === "Font") bytes.font += encodedDataLength;
  });
  await page.goto(`${world.system.url}/staging/`);
  await started(page);
  await page.waitForLoadState("networkidle").catch(() => {});
  await context.close();
  for (const [what, limit] of Object.entries(LIMITS)) {
    console.log(`${what}: ${bytes[what]} bytes`);
    ok(bytes[what] > 0 && bytes[what] <= limit, `${what}: ${bytes[what]} bytes`);
  }
});
