// Runs Lighthouse three times on a page of a fresh standalone process; the
// median of each score must reach its limit.

import * as chromeLauncher from "chrome-launcher";
import lighthouse from "lighthouse";

import { startStandalone } from "../lib/system.js";

const LIMITS = { performance: 95, accessibility: 100, "best-practices": 95 };
const RUNS = 3;

const standalone = await startStandalone();
const url = `${standalone.url}/staging/`;
for (const text of ["Water the plants", "Return the library books", "Ask Ming about the metrics"]) {
  const headers = { "content-type": "application/json" };
  await fetch(`${url}todos/`, { method: "POST", headers, body: JSON.stringify({ text }) });
}
const chrome = await chromeLauncher.launch({
  chromePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  chromeFlags: [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

const scores = Object.fromEntries(Object.keys(LIMITS).map((category) => [category, []]));
const faults = new Set();
for (let run = 0; run < RUNS; run += 1) {
  const options = { port: chrome.port, onlyCategories: Object.keys(LIMITS), logLevel: "error" };
  const { lhr } = await lighthouse(url, options);
  for (const [category, { score, auditRefs }] of Object.entries(lhr.categories)) {
    scores[category].push(Math.round(score * 100));
    for (const { id, weight } of auditRefs) {
      const audit = lhr.audits[id];
      if (weight > 0 && audit.score !== null && audit.score < 0.9) faults.add(`${category}: ${audit.title}`);
    }
  }
}
await chrome.kill();
await standalone.stop();

let failed = false;
for (const [category, limit] of Object.entries(LIMITS)) {
  const sorted = [...scores[category]].sort((a, b) => a - b);
  const median = sorted[Math.floor(RUNS / 2)];
  failed ||= median < limit;
  console.log(`${category.padEnd(15)} ${median}  (runs: ${sorted.join(", ")}; at least ${limit})`);
}
for (const fault of faults) console.log(`  ${fault}`);
process.exitCode = failed ? 1 : 0;
