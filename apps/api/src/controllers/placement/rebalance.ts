/**
 * Spreads what stands already, as after a node joined or came back. A move is a note on an instance;
 * its app's planner makes a copy first, with a claim on the other node, and ends the instance when
 * the copy is ready and routed. A note that led to nothing is void after a while.
 */
import { rebalance } from '@bulkhead/scheduler';
import type { Movable, Move } from '@bulkhead/scheduler';
import { Prisma, type PlatformTx, type Tenancy } from '@bulkhead/tenancy';
import { readFleet, readMovable } from './read-fleet.ts';

const moveMinutes = 10;

/** Whether an instance `i` is to move. */
export const moves = Prisma.sql`(i."moveTo" IS NOT NULL
  AND i."moveAt" > clock_timestamp() - make_interval(mins => ${moveMinutes}::int))`;

export interface RebalanceOptions {
  readonly tenancy: Tenancy;
  readonly imagesOf: (node: string) => readonly string[];
  /** Moves under way at once in the whole fleet; 0: nothing is moved. */
  readonly mostMoves: number;
}

/** Orders the moves that are worth it now; answers the apps. One replica at a time does so. */
export async function orderMoves(options: RebalanceOptions): Promise<string[]> {
  if (options.mostMoves === 0) return [];
  return options.tenancy.platform(async (tx) => {
    const [lock] = await tx.prisma.$queryRaw<{ taken: boolean }[]>`
      SELECT pg_try_advisory_xact_lock(hashtext('bulkhead.rebalance')) AS "taken"`;
    if (!lock?.taken) return [];
    const [underWay] = await tx.prisma.$queryRaw<{ count: number }[]>`
      SELECT count(*)::int AS "count" FROM "Instance" i WHERE i."goneAt" IS NULL AND ${moves}`;
    const budget = options.mostMoves - (underWay?.count ?? 0);
    if (budget <= 0) return [];
    const fleet = await readFleet(tx, options.imagesOf);
    const zones = new Set(fleet.nodes.map(({ labels }) => labels['zone'] ?? ''));
    const movable = await readMovable(tx, zones.size > 1);
    return write(tx, rebalance(fleet, onePerApp(movable), budget));
  });
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
      AND i."goneAt" IS NULL
    RETURNING i."appId"::text AS "appId"`;
  const apps = [...new Set(rows.map(({ appId }) => appId))];
  await tx.outbox.add('app', apps);
  return apps;
}
