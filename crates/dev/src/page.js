const changes = new EventSource("/dev/changes");

changes.onmessage = ({ data }) => {
  if (data !== "style") {
    location.reload();
    return;
  }
  for (const link of document.querySelectorAll("link[rel=stylesheet]")) {
    const next = link.cloneNode();
    const address = new URL(link.href);
    address.search = Date.now();
    next.href = address;
    // The old one stays until then, so that nothing flickers.
    next.onload = () => link.remove();
    link.after(next);
  }
};
