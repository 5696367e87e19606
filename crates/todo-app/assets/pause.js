// Waiting between tries.

const FIRST = 1_000;
const LONGEST = 30_000;

/** Exponential backoff with jitter; `wake` cuts all pauses short. */
export class Pauses {
  #sleepers = new Set();

  /**
   * @param {number} tries how many have failed so far, 1 or more
   * @param {number} least the shortest pause in milliseconds
   */
  wait(tries, least = 0) {
    const limit = Math.min(LONGEST, FIRST * 2 ** (tries - 1));
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#sleepers.delete(done);
        resolve();
      };
      const timer = setTimeout(done, Math.max(least, limit * (0.5 + Math.random() / 2)));
      this.#sleepers.add(done);
    });
  }

  wake() {
    for (const done of [...this.#sleepers]) done();
  }
}
