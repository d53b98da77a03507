import { allocatable, defaultPoolPolicy, resourceNames, type Amounts } from '@bulkhead/scheduler';
import type { ResourceName } from '@bulkhead/scheduler';
import { Prisma, type PlatformTx } from '@bulkhead/tenancy';

/** The longest grace is ten minutes; a claim that was not taken then is let go. */
const claimMinutes = 15;

/** Of an instance `i`. */
export const holdsClaim = Prisma.sql`(i."nodeId" IS NULL AND i."goneAt" IS NULL
  AND i."state" = 'pending' AND i."desired" = 'running'
  AND i."claimedAt" > now() - make_interval(mins => ${claimMinutes}::int))`;

/**
 * What spread and the limit per node count together, of an instance `i`: a process in one release and
 * since one restart. Were it all of a process, a rolling deploy that lets none be missing would find
 * no node for the new ones until the old had left, and the old leave when the new are there.
 */
export const countedAs = Prisma.sql`(i."appId" || '/' || i."process" || '/' || i."releaseId" || '/' || i."epoch")`;

/** How many instances of each process are on each node now: "node process" -> count. For after `lockRoom`. */
export async function countOnNodes(
  tx: PlatformTx,
  nodeIds: readonly string[],
  processes: readonly string[],
): Promise<Map<string, number>> {
  if (nodeIds.length === 0 || processes.length === 0) return new Map();
  const apps = [...new Set(processes.map((process) => process.split('/')[0] ?? ''))];
  const rows = await tx.prisma.$queryRaw<{ node: string; process: string; count: number }[]>`
    SELECT i."nodeId" AS "node", ${countedAs} AS "process", count(*)::int AS "count"
    FROM "Instance" i WHERE i."nodeId" IN (${Prisma.join([...nodeIds])}) AND i."goneAt" IS NULL
      AND i."appId" = ANY(${apps}::uuid[])
    GROUP BY 1, 2`;
  return new Map(rows.map(({ node, process, count }) => [`${node} ${process}`, count]));
}

/** What a node has left for those without a claim on it, and what of it is kept for those with one. */
export interface NodeRoom {
  readonly free: Record<ResourceName, number>;
  readonly kept: Record<ResourceName, number>;
}

/**
 * Locks nodes in the order of their ids and answers what room each has. `open`: those that take
 * instances; `whoever is free`: whatever their state, but without waiting for one that another
 * transaction holds. An instance counts until it is proven gone, and a claim as what will be there.
 */
export async function lockRoom(
  tx: PlatformTx,
  nodeIds: readonly string[],
  which: 'open' | 'whoever is free',
): Promise<Map<string, NodeRoom>> {
  if (nodeIds.length === 0) return new Map();
  const ids = Prisma.join([...nodeIds]);
  const nodes = await tx.prisma.$queryRaw<(Amounts & { id: string; cpuOvercommit: number })[]>`
    SELECT n."id", n."cpuMillis", n."memoryMiB", n."diskMiB", n."maxInstances" AS "instances",
      coalesce(p."cpuOvercommit", ${defaultPoolPolicy.cpuOvercommit}) AS "cpuOvercommit"
    FROM "Node" n LEFT JOIN "Pool" p ON p."name" = n."pool" WHERE n."id" IN (${ids})
      ${which === 'open' ? Prisma.sql`AND n."state" = 'ready' AND NOT n."cordoned"` : Prisma.empty}
    ORDER BY n."id" FOR NO KEY UPDATE OF n ${which === 'open' ? Prisma.empty : Prisma.sql`SKIP LOCKED`}`;
  // After the locks, in a statement of its own: it sees what the transaction before us committed.
  const taken = await tx.prisma.$queryRaw<(Amounts & { node: string; claimed: boolean })[]>`
    SELECT "node", "claimed", sum("cpuMillis")::int AS "cpuMillis",
      sum("memoryMiB")::int AS "memoryMiB", sum("diskMiB")::int AS "diskMiB",
      count(*)::int AS "instances"
    FROM (
      SELECT i."nodeId" AS "node", false AS "claimed", i."cpuMillis", i."memoryMiB", i."diskMiB"
      FROM "Instance" i WHERE i."nodeId" IN (${ids}) AND i."goneAt" IS NULL
      UNION ALL
      SELECT i."claimNodeId", true, i."cpuMillis", i."memoryMiB", i."diskMiB"
      FROM "Instance" i WHERE i."claimNodeId" IN (${ids}) AND ${holdsClaim}) each
    GROUP BY "node", "claimed"`;
  const byNode = Map.groupBy(taken, ({ node }) => node);
  const rooms = new Map<string, NodeRoom>();
  for (const { id, cpuOvercommit, ...capacity } of nodes) {
    const free = { ...allocatable(capacity, { cpuOvercommit }) };
    const kept = { cpuMillis: 0, memoryMiB: 0, diskMiB: 0, instances: 0 };
    for (const sum of byNode.get(id) ?? [])
      for (const name of resourceNames) {
        free[name] -= sum[name];
        if (sum.claimed) kept[name] += sum[name];
      }
    rooms.set(id, { free, kept });
  }
  return rooms;
}
