import { allocatable, resourceNames, type Amounts, type PoolPolicy } from '@bulkhead/scheduler';
import type { ResourceName } from '@bulkhead/scheduler';
import { Prisma, type PlatformTx } from '@bulkhead/tenancy';

/** How many instances of each process are on each node now: "node process" -> count. For after `lockRoom`. */
export async function countOnNodes(
  tx: PlatformTx,
  nodeIds: readonly string[],
  processes: readonly string[],
): Promise<Map<string, number>> {
  if (nodeIds.length === 0 || processes.length === 0) return new Map();
  const apps = [...new Set(processes.map((process) => process.split('/')[0] ?? ''))];
  const rows = await tx.prisma.$queryRaw<{ node: string; process: string; count: number }[]>`
    SELECT "nodeId" AS "node", "appId" || '/' || "process" AS "process", count(*)::int AS "count"
    FROM "Instance" WHERE "nodeId" IN (${Prisma.join([...nodeIds])}) AND "goneAt" IS NULL
      AND "appId" = ANY(${apps}::uuid[])
    GROUP BY "nodeId", "appId", "process"`;
  return new Map(rows.map(({ node, process, count }) => [`${node} ${process}`, count]));
}

/**
 * Locks nodes in the order of their ids and answers what is free on each. `open`: those that take
 * instances; `whoever is free`: whatever their state, but without waiting for one that another
 * transaction holds. An instance counts until it is proven gone.
 */
export async function lockRoom(
  tx: PlatformTx,
  nodeIds: readonly string[],
  pools: Readonly<Record<string, PoolPolicy>>,
  which: 'open' | 'whoever is free',
): Promise<Map<string, Record<ResourceName, number>>> {
  if (nodeIds.length === 0) return new Map();
  const ids = Prisma.join([...nodeIds]);
  const nodes = await tx.prisma.$queryRaw<(Amounts & { id: string; pool: string })[]>`
    SELECT "id", "pool", "cpuMillis", "memoryMiB", "diskMiB", "maxInstances" AS "instances"
    FROM "Node" WHERE "id" IN (${ids})
      ${which === 'open' ? Prisma.sql`AND "state" = 'ready' AND NOT "cordoned"` : Prisma.empty}
    ORDER BY "id" FOR NO KEY UPDATE ${which === 'open' ? Prisma.empty : Prisma.sql`SKIP LOCKED`}`;
  // After the locks, in a statement of its own: it sees what the transaction before us committed.
  const used = await tx.prisma.$queryRaw<(Amounts & { node: string })[]>`
    SELECT "nodeId" AS "node", sum("cpuMillis")::int AS "cpuMillis",
      sum("memoryMiB")::int AS "memoryMiB", sum("diskMiB")::int AS "diskMiB",
      count(*)::int AS "instances"
    FROM "Instance" WHERE "nodeId" IN (${Prisma.join([...nodeIds])}) AND "goneAt" IS NULL
    GROUP BY "nodeId"`;
  const usedBy = new Map(used.map((row) => [row.node, row]));
  return new Map(
    nodes.map(({ id, pool, ...capacity }) => {
      const free: Record<ResourceName, number> = { ...allocatable(capacity, pools[pool]) };
      const sum = usedBy.get(id);
      for (const name of resourceNames) free[name] -= sum?.[name] ?? 0;
      return [id, free];
    }),
  );
}
