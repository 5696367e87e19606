// Shows what comes in as it comes, without a reload.

/** How long to wait before the stream is asked for again, in milliseconds. */
const SHORTEST = 1_000;
const LONGEST = 30_000;

/** How long the messages may take. */
const DEADLINE = 10_000;

const live = document.getElementById("live");
let loading = false;
let again = false;

/** Loads the messages anew; what comes meanwhile is loaded right after. */
async function load() {
  if (loading) {
    again = true;
    return;
  }
  loading = true;
  try {
    const response = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(DEADLINE) });
    if (!response.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    document.getElementById("messages").replaceWith(page.getElementById("messages"));
  } catch {
    // The stream tells when the process is back, and then it is loaded again.
  } finally {
    loading = false;
    if (again) {
      again = false;
      load();
    }
  }
}

const url = `${location.pathname.replace(/\/$/, "")}/live`;
let delay = SHORTEST;

function follow() {
  const events = new EventSource(url);
  events.addEventListener("open", () => {
    delay = SHORTEST;
    live.hidden = false;
    // What came before there was a connection was told to nobody.
    load();
  });
  events.addEventListener("error", () => {
    live.hidden = true;
    // A browser reconnects by itself, unless it was answered with an error.
    if (events.readyState !== EventSource.CLOSED) return;
    setTimeout(follow, delay);
    delay = Math.min(2 * delay, LONGEST);
  });
  events.addEventListener("changed", load);
}

follow();
