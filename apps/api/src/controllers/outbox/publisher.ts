/**
 * Turns outbox rows into KV values. A row only names what changed; the publisher reads the present
 * state and publishes that, so rows for one key collapse, the last state wins, and a crash between
 * publishing and deleting the row merely publishes again. An advisory lock lets one replica publish
 * at a time: values of one key arrive in the order in which they became true. While NATS is away
 * the rows wait.
 *
 * Kinds: `instance` (key `<node>.<instance>`), `stray` (key `<node>.<instance>.<generation>`: a node
 * runs what is not its own), `route` (key host). Rows of kind `app` are not published: see
 * `takeNudges`.
 */
import { routeBackend } from '@bulkhead/protocol';
import { Prisma } from '@bulkhead/tenancy';
import type { OutboxRow, PlatformTx, Tenancy } from '@bulkhead/tenancy';
import { z } from 'zod';
import type { Delivery } from './delivery.ts';
import { configOnce, instanceSpecOf, specRow } from './instance-spec.ts';
import type { SpecRow } from './instance-spec.ts';

/** Any number, the same in all replicas. */
const publisherLock = 7_236_401n;
const batch = 500;
/** What an instance that is not a node's own gets to end, seconds. */
const strayGraceSeconds = 10;

export interface PublisherOptions {
  readonly tenancy: Tenancy;
  readonly delivery: Delivery;
  readonly onError: (key: string, error: unknown) => void;
}

export interface Published {
  readonly published: number;
  readonly failed: number;
  /** More rows are waiting. */
  readonly more: boolean;
  /** Apps whose route is deleted now. */
  readonly apps: readonly string[];
}

type Job = () => Promise<string | null>;

const nothing: Published = { published: 0, failed: 0, more: false, apps: [] };

export class Publisher {
  readonly #options: PublisherOptions;
  /**
   * Rows whose values were not acknowledged, or of which it could not be written down. NATS may get
   * such a value late, after something newer that another replica published meanwhile. They are
   * done again once nothing of ours is under way any more.
   */
  #doubtful = new Map<string, Pick<OutboxRow, 'kind' | 'key'>>();

  constructor(options: PublisherOptions) {
    this.#options = options;
  }

  /** Publishes one batch; nothing when another replica is at it. */
  async publish(): Promise<Published> {
    const doubtful = new Map<string, Pick<OutboxRow, 'kind' | 'key'>>();
    const doubt = (row: OutboxRow) => doubtful.set(nameOf(row), row);
    let rows: readonly OutboxRow[] = [];
    let again: readonly string[] = [];
    try {
      const published = await this.#options.tenancy.platform(async (tx) => {
        const [lock] = await tx.prisma.$queryRaw<{ held: boolean }[]>`
          SELECT pg_try_advisory_xact_lock(${publisherLock}) AS "held"`;
        if (!lock?.held) return nothing;
        again = await this.#addDoubtful(tx);
        rows = await tx.prisma.outbox.findMany({
          where: { kind: { not: 'app' } },
          orderBy: { id: 'asc' },
          take: batch,
        });
        return rows.length === 0 ? nothing : this.#publishRows(tx, rows, doubt);
      });
      for (const name of again) this.#doubtful.delete(name);
      return published;
    } catch (error) {
      // The transaction is void, and our lock gone since nobody knows when; what was sent is sent.
      rows.forEach(doubt);
      throw error;
    } finally {
      for (const [name, row] of doubtful) this.#doubtful.set(name, row);
    }
  }

  /** What still waits is done anyway. Answers which are seen to, for when that is committed. */
  async #addDoubtful(tx: PlatformTx): Promise<readonly string[]> {
    if (this.#doubtful.size === 0 || !(await this.#options.delivery.isSettled())) return [];
    const doubtful = [...this.#doubtful.values()].map(({ kind, key }) => ({ kind, key }));
    await tx.prisma.$executeRaw`
      INSERT INTO "Outbox" ("kind", "key")
      SELECT d."kind", d."key"
      FROM jsonb_to_recordset(${JSON.stringify(doubtful)}::jsonb) AS d("kind" text, "key" text)
      WHERE NOT EXISTS (
        SELECT 1 FROM "Outbox" o WHERE o."kind" = d."kind" AND o."key" = d."key")`;
    return [...this.#doubtful.keys()];
  }

  async #publishRows(
    tx: PlatformTx,
    rows: readonly OutboxRow[],
    doubt: (row: OutboxRow) => void,
  ): Promise<Published> {
    const jobs = await this.#jobs(tx, rows);
    const failed = new Set<string>();
    const apps: string[] = [];
    const attempt = async (name: string, job: Job): Promise<void> => {
      try {
        const app = await job();
        if (app) apps.push(app);
      } catch (error) {
        failed.add(name);
        this.#options.onError(name, error);
      }
    };
    // Two rows can be about one key (a stray that was gone, and is there again): those in their order.
    const ofKey = Map.groupBy(jobs, ([name]) => valueKeyOf(name));
    await Promise.all(
      [...ofKey.values()].map(async (sameKey) => {
        for (const [name, job] of sameKey) await attempt(name, job);
      }),
    );
    const done = rows.filter((row) => !failed.has(nameOf(row)));
    rows.filter((row) => failed.has(nameOf(row))).forEach(doubt);
    await tx.prisma.outbox.deleteMany({ where: { id: { in: done.map(({ id }) => id) } } });
    if (apps.length > 0) {
      // Nobody needs a deleted route's row any more: it is what `finish` waits for.
      await tx.prisma.route.deleteMany({ where: { deleted: true, appId: { in: apps } } });
    }
    const published = jobs.size - failed.size;
    return { published, failed: failed.size, more: rows.length === batch && published > 0, apps };
  }

  /** One job per distinct row, in the rows' order. A job may answer an app to nudge. */
  async #jobs(tx: PlatformTx, rows: readonly OutboxRow[]) {
    const { delivery } = this.#options;
    const jobs = new Map<string, Job>();
    const instances = await readInstances(tx, rows);
    const routes = await readRoutes(tx, rows);
    const config = configOnce(tx);
    for (const row of rows) {
      const name = nameOf(row);
      // A row that comes again counts where it came last.
      jobs.delete(name);
      if (row.kind === 'route') {
        const route = routes.get(row.key);
        jobs.set(name, async () => {
          if (route && !route.deleted) await delivery.putRoute(valueOf(route));
          else await delivery.dropRoute(row.key);
          return route?.deleted ? route.appId : null;
        });
        continue;
      }
      const [node = '', id = '', generation = '0'] = row.key.split('.');
      const key = `${node}.${id}`;
      const instance = instances.get(id);
      const isLive = instance?.nodeId === node && instance.goneAt === null;
      if (row.kind === 'instance') {
        jobs.set(name, async () => {
          if (isLive)
            await delivery.putInstance(key, await instanceSpecOf(instance, config, tx.now));
          else await delivery.dropInstance(key);
          return null;
        });
      } else if (row.kind === 'stray') {
        jobs.set(name, async () => {
          if (!isLive) await delivery.putInstance(key, strayOf(id, Number(generation) + 1));
          return null;
        });
      } else {
        jobs.set(name, () => Promise.reject(new Error(`unknown kind of outbox row: ${row.kind}`)));
      }
    }
    return jobs;
  }
}

/**
 * Takes the rows that only say "look at this app" and answers the apps. Whichever replica takes a
 * row looks; should it die before it did, the tick of any other finds the app by its state.
 */
export async function takeNudges(tenancy: Tenancy): Promise<string[]> {
  return tenancy.platform(async (tx) => {
    const rows = await tx.prisma.$queryRaw<{ key: string }[]>`
      DELETE FROM "Outbox" WHERE "id" IN (
        SELECT "id" FROM "Outbox" WHERE "kind" = 'app' ORDER BY "id" LIMIT 1000
        FOR UPDATE SKIP LOCKED)
      RETURNING "key"`;
    return [...new Set(rows.map(({ key }) => key))];
  });
}

const nameOf = ({ kind, key }: Pick<OutboxRow, 'kind' | 'key'>) => `${kind} ${key}`;

/** What is published under: a route's host, or `<node>.<instance>` whatever is said of it. */
const valueKeyOf = (name: string) =>
  name.startsWith('route ') ? name : name.replace(/^\w+ /, '').split('.', 2).join('.');

const strayOf = (instance: string, generation: number) =>
  ({ v: 1, desired: 'gone', instance, generation, graceSeconds: strayGraceSeconds }) as const;

async function readInstances(
  tx: PlatformTx,
  rows: readonly OutboxRow[],
): Promise<Map<string, SpecRow>> {
  const ids = rows.filter(({ kind }) => kind !== 'route').map(({ key }) => key.split('.')[1] ?? '');
  if (ids.length === 0) return new Map();
  const found = await tx.prisma.instance.findMany({ where: { id: { in: ids } }, include: specRow });
  return new Map(found.map((row) => [row.id, row]));
}

const routeRow = {
  app: { select: { name: true, tenant: { select: { slug: true } } } },
} satisfies Prisma.RouteInclude;
type PublishedRoute = Prisma.RouteGetPayload<{ include: typeof routeRow }>;

async function readRoutes(
  tx: PlatformTx,
  rows: readonly OutboxRow[],
): Promise<Map<string, PublishedRoute>> {
  const hosts = rows.filter(({ kind }) => kind === 'route').map(({ key }) => key);
  if (hosts.length === 0) return new Map();
  const found = await tx.prisma.route.findMany({
    where: { host: { in: hosts } },
    include: routeRow,
  });
  return new Map(found.map((row) => [row.host, row]));
}

function valueOf(row: PublishedRoute) {
  return {
    v: 1 as const,
    host: row.host,
    tenant: row.app?.tenant.slug ?? '',
    app: row.app?.name ?? '',
    state: row.state,
    backends: z.array(routeBackend).parse(row.backends),
    revision: Number(row.revision),
  };
}
