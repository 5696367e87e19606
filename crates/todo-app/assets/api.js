// The REST API of the todos.

/** The server has an answer, and it is no. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Nobody answered, or somebody who is not ready: worth another try. */
export class Unreachable extends Error {}

const TIMEOUT = 10_000;
const PASSING = new Set([408, 425, 429]);

export class Api {
  #base;

  /** @param {string} base the path of the list, with a slash at its end */
  constructor(base) {
    this.#base = base.endsWith("/") ? base : `${base}/`;
  }

  get events() {
    return `${this.#base}events`;
  }

  /** A page of the list: `{todos, next, total, active}`. */
  async list({ filter = "all", cursor = "", limit = 50 } = {}) {
    const query = new URLSearchParams({ limit: String(limit) });
    if (filter !== "all") query.set("completed", String(filter === "completed"));
    if (cursor) query.set("cursor", cursor);
    const response = await this.#call("GET", `?${query}`);
    return {
      todos: await response.json(),
      next: cursorOf(response.headers.get("link")),
      total: Number(response.headers.get("x-total-count")),
      active: Number(response.headers.get("x-active-count")),
    };
  }

  /** Makes a todo; a repetition with the same key makes no second one. */
  async create(text, key) {
    const headers = { "idempotency-key": key };
    return (await this.#call("POST", "", { body: { text }, headers })).json();
  }

  async update(id, change) {
    return (await this.#call("PUT", String(id), { body: change })).json();
  }

  /** Deletes a todo; one that is gone already is fine. */
  async remove(id, { keepalive = false } = {}) {
    try {
      await this.#call("DELETE", String(id), { keepalive });
    } catch (error) {
      if (!(error instanceof Refused && error.status === 404)) throw error;
    }
  }

  async clearCompleted({ keepalive = false } = {}) {
    await this.#call("DELETE", "?completed=true", { keepalive });
  }

  async #call(method, path, { body, headers = {}, keepalive = false } = {}) {
    const options = { method, headers: { ...headers, accept: "application/json" }, keepalive };
    if (body) {
      options.headers["content-type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    // A request that outlives the page cannot be given a limit by it.
    if (!keepalive) options.signal = AbortSignal.timeout(TIMEOUT);
    let response;
    try {
      response = await fetch(this.#base + path, options);
    } catch (error) {
      throw new Unreachable(error.message);
    }
    if (response.ok) return response;
    if (response.status >= 500 || PASSING.has(response.status)) {
      throw new Unreachable(`status ${response.status}`);
    }
    throw new Refused(response.status, await reasonOf(response));
  }
}

/** The cursor in `<…?cursor=…>; rel="next"`. */
function cursorOf(link) {
  const target = /<([^>]*)>;\s*rel="next"/.exec(link ?? "")?.[1];
  return target ? (new URL(target, location.href).searchParams.get("cursor") ?? "") : "";
}

async function reasonOf(response) {
  try {
    const { detail } = await response.json();
    return Array.isArray(detail) ? detail.map((fault) => fault.msg).join(", ") : String(detail);
  } catch {
    return `status ${response.status}`;
  }
}
