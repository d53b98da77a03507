import type { Db } from './context.ts';

/** Rows that say what changed; the publisher rereads what the key names, publishes it and deletes the row. */
export class Outbox {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** `kind` is `app` for a nudge; controllers add their own kinds (`instance`, `route`). */
  async add(kind: string, key: string | readonly string[]): Promise<void> {
    const keys = typeof key === 'string' ? [key] : key;
    await this.#db.outbox.createMany({ data: keys.map((one) => ({ kind, key: one })) });
  }
}
