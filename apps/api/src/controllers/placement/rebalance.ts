/**
 * Spreads what stands already, as after a node joined or came back. A move is a note on an instance;
 * its app's planner makes a copy first, with a claim on the other node, and ends the instance when
 * the copy is ready and routed. A note that led to nothing is void after a while.
 */
import { rebalance } from '@bulkhead/scheduler';
import type { Movable, Move } from '@bulkhead/scheduler';
import { Prisma, type PlatformTx, type Tenancy } from '@bulkhead/tenancy';
import { appsOf, hasZones, readFleet, readMovable } from './read-fleet.ts';

const moveMinutes = 10;

/** Whether an instance `i` is to move. */
export const moves = Prisma.sql`(i."moveTo" IS NOT NULL
  AND i."moveAt" > clock_timestamp() - make_interval(mins => ${moveMinutes}::int))`;

export interface RebalanceOptions {
  readonly tenancy: Tenancy;
  readonly imagesOf: (node: string) => readonly string[];
  /** Moves under way at once in the whole fleet; 0: nothing is moved. */
  readonly mostMoves: number;
  /** Chooses which processes are looked at, of more than can be. */
  readonly seed: () => number;
}

/**
 * Orders the moves that are worth it now; answers the apps. The plan is made from what nobody
 * locked; what is written is what is still true and within the budget, one replica at a time.
 */
export async function orderMoves(options: RebalanceOptions): Promise<string[]> {
  const { tenancy, imagesOf, mostMoves } = options;
  if (mostMoves === 0) return [];
  const seen = await tenancy.platform(async (tx) => {
    const budget = mostMoves - (await countMoves(tx));
    if (budget <= 0) return null;
    const movable = onePerApp(await readMovable(tx, await hasZones(tx), options.seed()));
    if (movable.length === 0) return null;
    return { budget, movable, fleet: await readFleet(tx, imagesOf, appsOf(movable)) };
  });
  if (!seen) return [];
  const planned = rebalance(seen.fleet, seen.movable, seen.budget);
  if (planned.length === 0) return [];
  return tenancy.platform(async (tx) => {
    await tx.prisma.$executeRaw`SELECT pg_advisory_xact_lock(hashtext('bulkhead.rebalance'))`;
    return write(tx, planned.slice(0, Math.max(0, mostMoves - (await countMoves(tx)))));
  });
}

async function countMoves(tx: PlatformTx): Promise<number> {
  const [underWay] = await tx.prisma.$queryRaw<{ count: number }[]>`
    SELECT count(*)::int AS "count" FROM "Instance" i WHERE i."goneAt" IS NULL AND ${moves}`;
  return underWay?.count ?? 0;
}

/** Of an app one process at a time, so that a move is over before the next of its moves begins. */
function onePerApp(movable: readonly Movable[]): Movable[] {
  const chosen = new Map<string, string>();
  return movable.filter(({ process }) => {
    const [app = ''] = process.split('/');
    if (!chosen.has(app)) chosen.set(app, process);
    return chosen.get(app) === process;
  });
}

async function write(tx: PlatformTx, planned: readonly Move[]): Promise<string[]> {
  if (planned.length === 0) return [];
  const rows = await tx.prisma.$queryRaw<{ appId: string }[]>`
    UPDATE "Instance" i SET "moveTo" = m."to", "moveAt" = clock_timestamp()
    FROM jsonb_to_recordset(${JSON.stringify(planned)}::jsonb)
      AS m("instance" text, "from" text, "to" text)
    WHERE i."id" = m."instance" AND i."nodeId" = m."from" AND i."desired" = 'running'
      AND i."goneAt" IS NULL AND NOT EXISTS (
        SELECT 1 FROM "Instance" o WHERE o."appId" = i."appId" AND o."goneAt" IS NULL
          AND o."moveTo" IS NOT NULL
          AND o."moveAt" > clock_timestamp() - make_interval(mins => ${moveMinutes}::int))
    RETURNING i."appId"::text AS "appId"`;
  const apps = [...new Set(rows.map(({ appId }) => appId))];
  await tx.outbox.add('app', apps);
  return apps;
}
