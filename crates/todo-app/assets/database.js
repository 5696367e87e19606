// IndexedDB with promises. It may be blocked, full or deleted at any time, so
// every call may fail, and none waits forever.

const OPEN_TIMEOUT = 5_000;
const WORK_TIMEOUT = 10_000;

export class Database {
  #name;
  #upgrade;
  #opening = null;
  #isNew = false;

  /**
   * @param {string} name
   * @param {(db: IDBDatabase) => void} upgrade creates the stores
   */
  constructor(name, upgrade) {
    this.#name = name;
    this.#upgrade = upgrade;
  }

  /**
   * Runs `work(store)` in one transaction and resolves to the result of its
   * request once committed.
   *
   * @param {"readonly" | "readwrite"} mode
   * @param {(store: IDBObjectStore) => IDBRequest | void} work
   */
  async run(store, mode, work) {
    const db = await (this.#opening ??= this.#open());
    return new Promise((resolve, reject) => {
      let transaction;
      try {
        transaction = db.transaction(store, mode);
      } catch (error) {
        // It was closed meanwhile: the next call reopens it.
        this.#opening = null;
        throw error;
      }
      let request;
      const giveUp = () => reject(new Error("the database does not answer"));
      let timer = setTimeout(() => {
        try {
          transaction.abort();
          giveUp();
        } catch {
          // A commit in progress cannot be aborted and may still succeed.
          timer = setTimeout(giveUp, WORK_TIMEOUT);
        }
      }, WORK_TIMEOUT);
      transaction.oncomplete = () => {
        clearTimeout(timer);
        resolve(request?.result);
      };
      transaction.onabort = () => {
        clearTimeout(timer);
        reject(transaction.error ?? new Error("the transaction was aborted"));
      };
      request = work(transaction.objectStore(store));
    });
  }

  /** Whether it was recreated, and so lost its contents, since the last call. */
  takeIsNew() {
    const isNew = this.#isNew;
    this.#isNew = false;
    return isNew;
  }

  #open() {
    const opening = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the database does not open")), OPEN_TIMEOUT);
      const request = indexedDB.open(this.#name, 1);
      request.onupgradeneeded = () => {
        this.#isNew = true;
        this.#upgrade(request.result);
      };
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        clearTimeout(timer);
        const db = request.result;
        const forget = () => {
          if (this.#opening === opening) this.#opening = null;
          db.close();
        };
        // Somebody deletes it, or a newer version of the page upgrades it.
        db.onversionchange = forget;
        db.onclose = forget;
        resolve(db);
      };
    });
    opening.catch(() => {
      if (this.#opening === opening) this.#opening = null;
    });
    return opening;
  }
}
