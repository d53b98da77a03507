/**
 * An operator's order to make NATS equal to PostgreSQL, whatever `Refill` believes: every value is
 * written again, and keys that stand for nothing are taken away, each by its exact name. Nothing is
 * written here: all of it goes through the outbox, whose publisher rereads the truth for each key,
 * so a deploy meanwhile, or a second resync, changes only how often the same value is written.
 *
 * What the database knows too little of is left alone: keys of nodes that nobody registered, and
 * routes while there is none in the database.
 */
import { instanceSpec, streams, unavailable } from '@bulkhead/protocol';
import type { PlatformTx, Tenancy } from '@bulkhead/tenancy';
import type { NatsLink } from '../../nats/nats.ts';

export interface ResyncOptions {
  readonly tenancy: Tenancy;
  readonly nats: NatsLink;
}

export interface Resynced {
  /** Done when no change up to this one waits any more. */
  readonly until: bigint;
  readonly instances: number;
  readonly routes: number;
  /** Keys in NATS that stand for nothing any more. */
  readonly stale: number;
  /** Keys that were left, since the database does not know whose they are. */
  readonly left: number;
}

interface Stale {
  readonly key: string;
  readonly proven: boolean;
  readonly known: boolean;
}

export class Resync {
  readonly #options: ResyncOptions;

  constructor(options: ResyncOptions) {
    this.#options = options;
  }

  /** Puts everything into the outbox; the publisher needs a while for it. */
  async start(): Promise<Resynced> {
    if (!(await this.#options.nats.isUp()))
      throw unavailable('NATS cannot be reached; it is filled by itself when it is back');
    // Before the database: what is in PostgreSQL later than in NATS must not look stale.
    const desired = await this.#keys(streams.desiredBucket);
    const hosts = await this.#keys(streams.routesBucket);
    const found = await this.#options.tenancy.platform((tx) => findStale(tx, desired));
    const known = found.filter((each) => each.known);
    const proven = known.filter((each) => each.proven).map(({ key }) => key);
    const strays = await this.#strays(known.filter((each) => !each.proven));
    return this.#options.tenancy.platform(async (tx) => {
      const instances = await addInstances(tx);
      const routes = await addRoutes(tx);
      const staleHosts = await findStaleHosts(tx, hosts);
      const leftHosts = routes === 0 ? staleHosts : [];
      const goneHosts = routes === 0 ? [] : staleHosts;
      await tx.outbox.add('instance', proven);
      await tx.outbox.add('stray', strays);
      await tx.outbox.add('route', goneHosts);
      const [last] = await tx.prisma.$queryRaw<{ until: bigint }[]>`
        SELECT coalesce(max("id"), 0) AS "until" FROM "Outbox"`;
      return {
        until: last?.until ?? 0n,
        ...{ instances, routes },
        stale: proven.length + strays.length + goneHosts.length,
        left: found.length - known.length + leftHosts.length,
      };
    });
  }

  /** How many changes up to that one still wait. */
  async waiting(until: bigint): Promise<number> {
    return this.#options.tenancy.platform((tx) =>
      tx.prisma.outbox.count({ where: { kind: { not: 'app' }, id: { lte: until } } }),
    );
  }

  async #keys(bucket: string): Promise<string[]> {
    const keys: string[] = [];
    const opened = await this.#options.nats.kv(bucket);
    for await (const key of await opened.keys()) keys.push(key);
    return keys;
  }

  /**
   * Nobody proved that these are gone, so their nodes are ordered to end them, and the key goes when
   * they did. One that is already an order to end has been seen to.
   */
  async #strays(stale: readonly Stale[]): Promise<string[]> {
    const bucket = await this.#options.nats.kv(streams.desiredBucket);
    const strays: string[] = [];
    for (const { key } of stale) {
      const entry = await bucket.get(key);
      // Deleted since it was listed: what is left is a mark without a value.
      if (entry?.operation !== 'PUT') continue;
      const spec = instanceSpec.safeParse(entry.json());
      if (spec.success && spec.data.desired !== 'gone')
        strays.push(`${key}.${spec.data.generation}`);
    }
    return strays;
  }
}

async function findStale(tx: PlatformTx, keys: readonly string[]): Promise<Stale[]> {
  return tx.prisma.$queryRaw<Stale[]>`
    SELECT k."key", i."id" IS NOT NULL AS "proven", n."id" IS NOT NULL AS "known"
    FROM jsonb_array_elements_text(${JSON.stringify(keys)}::jsonb) AS k("key")
    LEFT JOIN "Node" n ON n."id" = split_part(k."key", '.', 1)
    LEFT JOIN "Instance" i
      ON i."id" = split_part(k."key", '.', 2) AND i."nodeId" = split_part(k."key", '.', 1)
    WHERE i."id" IS NULL OR i."goneAt" IS NOT NULL`;
}

async function findStaleHosts(tx: PlatformTx, hosts: readonly string[]): Promise<string[]> {
  const rows = await tx.prisma.$queryRaw<{ host: string }[]>`
    SELECT k."host" FROM jsonb_array_elements_text(${JSON.stringify(hosts)}::jsonb) AS k("host")
    WHERE NOT EXISTS (SELECT 1 FROM "Route" r WHERE r."host" = k."host" AND NOT r."deleted")`;
  return rows.map(({ host }) => host);
}

/** Every instance that a node should hold; answers how many. */
export async function addInstances(tx: PlatformTx): Promise<number> {
  return tx.prisma.$executeRaw`
    INSERT INTO "Outbox" ("kind", "key")
    SELECT 'instance', "nodeId" || '.' || "id" FROM "Instance"
    WHERE "goneAt" IS NULL AND "nodeId" IS NOT NULL ORDER BY "id"`;
}

/** Every route; answers how many. */
export async function addRoutes(tx: PlatformTx): Promise<number> {
  return tx.prisma.$executeRaw`
    INSERT INTO "Outbox" ("kind", "key")
    SELECT 'route', "host" FROM "Route" WHERE NOT "deleted" ORDER BY "host"`;
}
