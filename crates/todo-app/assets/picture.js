// Keeps the picture current while the page is visible.

import { setTime } from "./time.js";

const SOON = 3_000;
const LATER = 60_000;

const times = (count) => `${count} ${count === 1 ? "time" : "times"}`;

export function followPicture(figure) {
  const image = figure.querySelector("img");
  const fact = (name) => figure.querySelector(`[data-fact="${name}"]`);
  let pause = SOON;

  async function look() {
    let facts = null;
    if (!document.hidden) {
      try {
        const response = await fetch(figure.dataset.src, { signal: AbortSignal.timeout(10_000) });
        facts = response.ok ? await response.json() : null;
      } catch {
        // Keep the current picture for now.
      }
    }
    if (facts) await show(facts);
    plan(facts);
  }

  async function show(facts) {
    if (image.getAttribute("src") !== facts.src) {
      const next = new Image();
      next.src = facts.src;
      await next.decode();
      image.src = facts.src;
      image.alt = figure.dataset.alt;
    }
    const expired = Date.parse(facts.expires_at) <= Date.now();
    setTime(fact("fetched"), facts.fetched_at);
    setTime(fact("next"), facts.expires_at);
    fact("views").textContent = times(facts.views);
    fact("all").textContent = times(facts.views_of_all);
    for (const part of figure.querySelectorAll("[data-when]")) {
      part.hidden = part.dataset.when !== (expired ? "expired" : "fresh") && part.dataset.when !== "any";
    }
  }

  /** Looks again when the next picture is due; soon while it is being fetched. */
  function plan(facts) {
    const left = facts ? Date.parse(facts.expires_at) - Date.now() : 0;
    pause = left > 0 ? SOON : Math.min(LATER, pause * 2);
    // A delay of more than 24 days overflows 32 bits and fires at once.
    setTimeout(() => look().catch(() => plan(null)), Math.min(left + pause, 24 * 3600 * 1000));
  }

  const expires = fact("next")?.dateTime;
  plan(expires ? { expires_at: expires } : null);
}
