// Shows what comes in as it comes, without a reload.

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
    const response = await fetch(location.href, { headers: { accept: "text/html" } });
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

const events = new EventSource(`${location.pathname.replace(/\/$/, "")}/live`);
events.addEventListener("open", () => {
  live.hidden = false;
  // What came before there was a connection was told to nobody.
  load();
});
events.addEventListener("error", () => {
  live.hidden = true;
});
events.addEventListener("changed", load);
