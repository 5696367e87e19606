// The todos in the screenshots.

const TODOS = [
  ["Return the library books", true],
  ["Ask Ming about the outbox metrics", false],
  ["Book a table for six on Friday", true],
  ["Renew the certificate of the staging cluster before the end of the month, and write down how", false],
  ["שלום עולם: לקנות לחם", false],
  ["Water the plants", false],
];

/** Creates them through the API at `address`, which ends with a slash; returns them by text. */
export async function addExamples(address) {
  const headers = { "content-type": "application/json" };
  const call = async (method, path, body) =>
    (await fetch(address + path, { method, headers, body: JSON.stringify(body) })).json();
  const made = {};
  for (const [text, completed] of TODOS) {
    made[text] = await call("POST", "", { text });
    if (completed) await call("PUT", made[text].id, { completed });
  }
  return made;
}
