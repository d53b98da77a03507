/**
 * NATS may lose everything. A stream that has been filled from PostgreSQL carries a mark in its
 * metadata; one without it is new, and everything that should be in it is put into the outbox. A
 * marked stream that holds less than it should (a power cut took its end) is filled again as well.
 * Only values are put, never taken away (an operator's `Resync` does that): an empty database must not empty the edges.
 */
import { streams } from '@bulkhead/protocol';
import type { Tenancy } from '@bulkhead/tenancy';
import type { NatsLink } from '../../nats/nats.ts';
import { addInstances, addRoutes } from './resync.ts';

const mark = 'bulkhead-filled';
const desiredStream = `KV_${streams.desiredBucket}`;
const routesStream = `KV_${streams.routesBucket}`;

export interface RefillOptions {
  readonly tenancy: Tenancy;
  readonly nats: NatsLink;
}

export class Refill {
  readonly #options: RefillOptions;
  /** Streams that were short at the last look; a change under way is not yet a loss. */
  #short = new Set<string>();

  constructor(options: RefillOptions) {
    this.#options = options;
  }

  /** Looks at both buckets; answers the names of those that it fills. */
  async check(): Promise<string[]> {
    const expected = await this.#expected();
    const filled: string[] = [];
    for (const [stream, count] of expected) {
      if (!(await this.#needsFilling(stream, count))) continue;
      await this.#fill(stream);
      // Only now: a crash before this line fills it once more, which harms nobody.
      await this.#options.nats.jsm.streams.update(stream, { metadata: { [mark]: 'yes' } });
      filled.push(stream);
    }
    return filled;
  }

  async #needsFilling(stream: string, expected: number | null): Promise<boolean> {
    const { config, state } = await this.#options.nats.jsm.streams.info(stream);
    if (config.metadata?.[mark] === undefined) return true;
    const isShort = expected !== null && state.messages < expected;
    const wasShort = this.#short.delete(stream);
    if (isShort && !wasShort) this.#short.add(stream);
    return isShort && wasShort;
  }

  /** How many values each stream should hold; null while some are still on their way. */
  async #expected(): Promise<Map<string, number | null>> {
    return this.#options.tenancy.platform(async (tx) => {
      const [counts] = await tx.prisma.$queryRaw<
        { desired: number; routes: number; waiting: number }[]
      >`SELECT
          (SELECT count(*)::int FROM "Instance"
            WHERE "goneAt" IS NULL AND "nodeId" IS NOT NULL) AS "desired",
          (SELECT count(*)::int FROM "Route" WHERE NOT "deleted") AS "routes",
          (SELECT count(*)::int FROM "Outbox" WHERE "kind" <> 'app') AS "waiting"`;
      const settled = counts?.waiting === 0;
      return new Map([
        [desiredStream, settled ? counts.desired : null],
        [routesStream, settled ? counts.routes : null],
      ]);
    });
  }

  async #fill(stream: string): Promise<void> {
    const add = stream === routesStream ? addRoutes : addInstances;
    await this.#options.tenancy.platform(add);
  }
}
