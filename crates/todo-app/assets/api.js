// The REST API of the todos.

/** The server rejected the request. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** No answer, or one from a server that is not ready: worth a retry. */
export class Unreachable extends Error {
  /**
   * @param {{wait?: number, alone?: boolean}} details the milliseconds after
   *   which to retry, if the server says so, and whether only this request is
   *   affected
   */
  constructor(message, { wait = 0, alone = false } = {}) {
    super(message);
    this.wait = wait;
    this.alone = alone;
  }
}

const TIMEOUT = 10_000;
/** Temporary statuses, 401 and 403 included: the person can sign in and go on. */
const PASSING = new Set([401, 403, 407, 408, 409, 421, 425, 429]);
/** Statuses that affect one request only, so the others need not wait. */
const ALONE = new Set([409, 500, 501, 507]);
/** Statuses that reject the request itself, even from a proxy; waiting does not help. */
const OF_THE_REQUEST = new Set([400, 413, 414, 415, 422, 431]);
/** The longest `Retry-After` that is respected. */
const LONGEST_WAIT = 60_000;

/** @typedef {{id: number, text: string, completed: boolean, created_at: string}} Todo */
/** @typedef {{todo: Todo, etag: string | null}} Versioned */

export class Api {
  #base;

  /** @param {string} base the path of the list, with a trailing slash */
  constructor(base) {
    this.#base = base.endsWith("/") ? base : `${base}/`;
  }

  get events() {
    return `${this.#base}events`;
  }

  /** A page of the list: `{todos, next, total, active, at}`, `at` being the server's time. */
  async list({ filter = "all", search = "", cursor = "", limit = 50 } = {}) {
    const query = new URLSearchParams({ limit: String(limit) });
    if (filter !== "all") query.set("completed", String(filter === "completed"));
    if (search) query.set("q", search);
    if (cursor) query.set("cursor", cursor);
    const { headers, body } = await this.#call("GET", `?${query}`);
    return {
      todos: body,
      next: cursorOf(headers.get("link")),
      total: Number(headers.get("x-total-count")),
      active: Number(headers.get("x-active-count")),
      at: Date.parse(headers.get("date")) || 0,
    };
  }

  /** @returns {Promise<Versioned>} */
  async read(id) {
    return versioned(await this.#call("GET", String(id)));
  }

  /**
   * Creates a todo; a retry with the same key creates no second one.
   *
   * @returns {Promise<Versioned>}
   */
  async create(text, key) {
    return versioned(await this.#call("POST", "", { body: { text }, headers: { "idempotency-key": key } }));
  }

  /**
   * @param {string | null} match only if the todo still has this ETag
   * @returns {Promise<Versioned>}
   */
  async update(id, change, match = null) {
    return versioned(await this.#call("PUT", String(id), { body: change, headers: ifMatch(match) }));
  }

  /** Deletes a todo, which may be gone already. */
  async remove(id, match = null, { keepalive = false } = {}) {
    try {
      await this.#call("DELETE", String(id), { headers: ifMatch(match), keepalive });
    } catch (error) {
      if (!(error instanceof Refused && error.status === 404)) throw error;
    }
  }

  /**
   * Ticks what is active, or unticks what is completed; limited to `todos`, if
   * given.
   *
   * @param {{id: number, version?: number}[] | null} todos
   * @returns {Promise<{id: number, version: number}[] | null>} those that
   *   changed; null if they are too many to list
   */
  async tickAll(completed, todos) {
    const body = todos ? { completed, todos } : { completed };
    const answer = await this.#call("PUT", `?completed=${!completed}`, { body });
    return answer.body.todos ?? null;
  }

  /** Deletes those of the todos `ids` that are still completed. */
  async clear(ids, { keepalive = false } = {}) {
    const body = { todos: ids.map((id) => ({ id })) };
    await this.#call("DELETE", "?completed=true", { body, keepalive });
  }

  async #call(method, path, { body, headers = {}, keepalive = false } = {}) {
    const options = { method, headers: { ...headers, accept: "application/json" }, keepalive, cache: "no-cache" };
    if (body) {
      options.headers["content-type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    // The page cannot time out a request that outlives it.
    if (!keepalive) options.signal = AbortSignal.timeout(TIMEOUT);
    let response;
    let answer;
    try {
      response = await fetch(this.#base + path, options);
      // A sign-in page or a proxy's error page is not an answer of the API.
      answer = await response.json().catch(() => null);
    } catch (error) {
      throw new Unreachable(error.message);
    }
    const { status, headers: head } = response;
    if (response.ok && answer !== null) return { headers: head, body: answer };
    if (isRefusal(status, answer)) throw new Refused(status, reasonOf(answer, status));
    throw new Unreachable(reasonOf(answer, status), { wait: waitOf(head), alone: ALONE.has(status) });
  }
}

/**
 * Whether the API itself rejects the request. A 404 from a proxy without a route to
 * it, or from a server that lacks the endpoint, says nothing about a todo.
 */
function isRefusal(status, answer) {
  if (status < 400 || status >= 500 || PASSING.has(status)) return false;
  if (OF_THE_REQUEST.has(status)) return true;
  const { detail } = answer ?? {};
  return status === 404 ? /^Todo -?\d+ not found$/.test(detail) : detail !== undefined;
}

const versioned = ({ headers, body }) => ({ todo: body, etag: headers.get("etag") });
const ifMatch = (etag) => (etag ? { "if-match": etag } : {});

/** The cursor in `<…?cursor=…>; rel="next"`. */
function cursorOf(link) {
  const target = /<([^>]*)>;\s*rel="next"/.exec(link ?? "")?.[1];
  return target ? (new URL(target, location.href).searchParams.get("cursor") ?? "") : "";
}

/** `Retry-After` in milliseconds (RFC 9110, section 10.2.3); 0 without one. */
function waitOf(headers) {
  const value = headers.get("retry-after");
  if (!value) return 0;
  const wait = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Math.min(LONGEST_WAIT, Math.max(0, wait || 0));
}

function reasonOf(answer, status) {
  const detail = answer?.detail;
  if (Array.isArray(detail)) return detail.map((fault) => fault.msg).join(", ");
  return typeof detail === "string" ? detail : `status ${status}`;
}
