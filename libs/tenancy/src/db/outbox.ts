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
    if (keys.length === 0) return;
    // One parameter however many keys there are; their ids in the order of the keys.
    await this.#db.$executeRaw`
      INSERT INTO "Outbox" ("kind", "key")
      SELECT ${kind}, k."key"
      FROM jsonb_array_elements_text(${JSON.stringify(keys)}::jsonb) WITH ORDINALITY AS k("key", "n")
      ORDER BY k."n"`;
  }
}
