/**
 * NATS may lose everything. A stream that has been filled from PostgreSQL carries a mark in its
 * metadata; one without it is new, and everything that should be in it is put into the outbox. A
 * marked stream that holds less than it should (a power cut took its end) is filled again as well;
 * to count a whole fleet is dear, so that is done when one has become less, and now and then.
 * Only values are put, never taken away (an operator's `Resync` does that): an empty database must not empty the edges.
 */
import type { StreamInfo } from '@nats-io/jetstream';
import { streams } from '@bulkhead/protocol';
import type { Tenancy } from '@bulkhead/tenancy';
import type { NatsLink } from '../../nats/nats.ts';
import { addInstances, addRoutes } from './resync.ts';

const mark = 'bulkhead-filled';
const desiredStream = `KV_${streams.desiredBucket}`;
const routesStream = `KV_${streams.routesBucket}`;

/** Between two counts while nothing becomes less. Milliseconds. */
const countMs = 60_000;

export interface RefillOptions {
  readonly tenancy: Tenancy;
  readonly nats: NatsLink;
  /** A steady clock, milliseconds. */
  readonly now: () => number;
}

export class Refill {
  readonly #options: RefillOptions;
  /** Streams that were short at the last look; a change under way is not yet a loss. */
  #short = new Set<string>();
  /** Values in each stream at the last look. */
  readonly #held = new Map<string, number>();
  #countAt = 0;

  constructor(options: RefillOptions) {
    this.#options = options;
  }

  /** Looks at both buckets; answers the names of those that it fills. */
  async check(): Promise<string[]> {
    const now = this.#options.now();
    const due = (await this.#becameLess()) || this.#short.size > 0 || now >= this.#countAt;
    const expected = due ? await this.#expected() : null;
    if (due) this.#countAt = expected === null ? now : now + countMs;
    const filled: string[] = [];
    // After the count: what is delivered meanwhile must not look as if it were missing.
    for (const info of await this.#look()) {
      const stream = info.config.name;
      if (!this.#needsFilling(info, expected?.get(stream) ?? null)) continue;
      await this.#fill(stream);
      // Only now: a crash before this line fills it once more, which harms nobody.
      await this.#options.nats.jsm.streams.update(stream, { metadata: { [mark]: 'yes' } });
      filled.push(stream);
    }
    return filled;
  }

  #look(): Promise<StreamInfo[]> {
    const { streams } = this.#options.nats.jsm;
    return Promise.all([desiredStream, routesStream].map((stream) => streams.info(stream)));
  }

  /** Whether one of the streams holds less than at the last look. */
  async #becameLess(): Promise<boolean> {
    let less = false;
    for (const { config, state } of await this.#look()) {
      less ||= state.messages < (this.#held.get(config.name) ?? 0);
      this.#held.set(config.name, state.messages);
    }
    return less;
  }

  #needsFilling({ config, state }: StreamInfo, expected: number | null): boolean {
    if (config.metadata?.[mark] === undefined) return true;
    if (expected === null) return false;
    const isShort = state.messages < expected;
    const wasShort = this.#short.delete(config.name);
    if (isShort && !wasShort) this.#short.add(config.name);
    return isShort && wasShort;
  }

  /** How many values each stream should hold; null while some are still on their way. */
  async #expected(): Promise<Map<string, number> | null> {
    return this.#options.tenancy.platform(async (tx) => {
      const [counts] = await tx.prisma.$queryRaw<{ desired: number; routes: number }[]>`
        SELECT
          (SELECT count(*)::int FROM "Instance"
            WHERE "goneAt" IS NULL AND "nodeId" IS NOT NULL) AS "desired",
          (SELECT count(*)::int FROM "Route" WHERE NOT "deleted") AS "routes"
        WHERE NOT EXISTS (SELECT FROM "Outbox" WHERE "kind" <> 'app')`;
      return (
        (counts &&
          new Map([
            [desiredStream, counts.desired],
            [routesStream, counts.routes],
          ])) ??
        null
      );
    });
  }

  async #fill(stream: string): Promise<void> {
    const add = stream === routesStream ? addRoutes : addInstances;
    await this.#options.tenancy.platform(add);
  }
}
