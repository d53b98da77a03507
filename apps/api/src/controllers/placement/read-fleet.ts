import { defaultPool } from '@bulkhead/protocol';
import type { Movable, NodeSnapshot, Snapshot, Want } from '@bulkhead/scheduler';
import { Prisma, type PlatformTx } from '@bulkhead/tenancy';
import type { Resident } from './plan-drain.ts';
import { countedAs, holdsClaim } from './room.ts';
type ImagesOf = (node: string) => readonly string[];
type WantRow = Want['needs'] & Omit<Want, 'needs'>;
type ResidentRow = WantRow & Pick<Resident, 'tenant' | 'app' | 'processName' | 'oneOff'>;

/** The last want of a batch, in the order in which they are read. */
export interface Cursor {
  readonly priority: number;
  readonly createdAt: Date;
  readonly id: string;
}

export interface Waiting {
  readonly wants: Want[];
  /** Where the next plan goes on; null: at the beginning, for these were all. */
  readonly next: Cursor | null;
}

/**
 * Instances that wait for a node, the highest of priority first, then the oldest. Nothing is locked:
 * the plan is checked again when it is applied. More than a batch are read one after the other, or
 * those that fit nowhere would keep the younger ones from ever being tried.
 */
export async function readWants(
  tx: PlatformTx,
  after: Cursor | null,
  batch: number,
): Promise<Waiting> {
  const behind = after
    ? Prisma.sql`AND (-i."priority", i."createdAt", i."id")
        > (${-after.priority}::int, ${after.createdAt}::timestamptz, ${after.id})`
    : Prisma.empty;
  const rows = await tx.prisma.$queryRaw<(WantRow & { createdAt: Date })[]>`
    SELECT ${wantColumns}, i."createdAt"
    FROM "Instance" i JOIN "Release" r ON r."id" = i."releaseId"
    ${definition}
    WHERE i."state" = 'pending' AND i."desired" = 'running' AND i."nodeId" IS NULL
      AND i."goneAt" IS NULL ${behind}
    ORDER BY i."priority" DESC, i."createdAt", i."id" LIMIT ${batch}`;
  const last = rows.length === batch ? rows.at(-1) : undefined;
  const next = last && { priority: last.priority, createdAt: last.createdAt, id: last.id };
  return { wants: rows.map(({ createdAt: _, ...row }) => wantOf(row)), next: next ?? null };
}

/** What would have to go elsewhere if the node took nothing any more. */
export async function readResidents(tx: PlatformTx, node: string): Promise<Resident[]> {
  const rows = await tx.prisma.$queryRaw<ResidentRow[]>`
    SELECT ${wantColumns},
      t."slug" AS "tenant", a."name" AS "app", i."process" AS "processName", i."oneOff"
    FROM "Instance" i JOIN "Release" r ON r."id" = i."releaseId"
    ${definition}
    JOIN "App" a ON a."id" = i."appId" JOIN "Tenant" t ON t."id" = a."tenantId"
    WHERE i."nodeId" = ${node} AND i."desired" = 'running' AND i."goneAt" IS NULL
    ORDER BY t."slug", a."name", i."process", i."id"`;
  return rows.map(({ tenant, app, processName, oneOff, ...row }) => ({
    ...wantOf(row),
    ...{ tenant, app, processName, oneOff },
  }));
}

/** Whether failure zones are told apart by labels of nodes. */
export async function hasZones(tx: PlatformTx): Promise<boolean> {
  const [row] = await tx.prisma.$queryRaw<{ zones: number }[]>`
    SELECT count(DISTINCT coalesce("labels"->>'zone', ''))::int AS "zones" FROM "Node"`;
  return (row?.zones ?? 0) > 1;
}

/** Since when an instance must have been ready to be moved, seconds. */
const settledSeconds = 60;
/** Most processes that one look at the spread considers. */
const mostProcesses = 1_000;

/**
 * All instances of processes that could be spread better, of apps that are at rest: no deployment, no
 * move, nothing paused or not ready. With `zones` those of which two are in one zone are among them.
 * Of more than can be looked at, `seed` chooses some: those that nothing can be done for, because no
 * node would take them, are not to keep the others from ever being looked at.
 */
export async function readMovable(
  tx: PlatformTx,
  zones: boolean,
  seed: number,
): Promise<Movable[]> {
  const rows = await tx.prisma.$queryRaw<(WantRow & { node: string })[]>`
    WITH counts AS MATERIALIZED (
      SELECT "appId", "process", "nodeId", count(*) AS "count" FROM "Instance"
      WHERE "goneAt" IS NULL AND NOT "oneOff" AND "nodeId" IS NOT NULL GROUP BY 1, 2, 3),
    -- Each zone by its node's key: a join would compare every instance with every node, as in applyReports.
    per_node AS (
      SELECT c.*, CASE WHEN ${zones} THEN coalesce((
        SELECT n."labels"->>'zone' FROM "Node" n WHERE n."id" = c."nodeId"), '') END AS "zone"
      FROM counts c),
    fleet AS (SELECT count(*) AS "nodes" FROM "Node"
      WHERE "state" = 'ready' AND NOT "cordoned"),
    uneven AS (
      SELECT "appId", "process" FROM per_node, fleet GROUP BY 1, 2, fleet."nodes"
      HAVING max("count") - CASE WHEN count(*) < fleet."nodes" THEN 0 ELSE min("count") END >= 2
        OR (${zones} AND count(*) > count(DISTINCT "zone"))
      ORDER BY hashint4extended(hashtext("appId"::text || "process"), ${seed}::bigint)
      LIMIT ${mostProcesses})
    SELECT ${wantColumns}, i."nodeId" AS "node"
    FROM uneven u JOIN "App" a ON a."id" = u."appId"
    JOIN "Instance" i ON i."appId" = u."appId" AND i."process" = u."process"
      AND i."goneAt" IS NULL AND NOT i."oneOff"
    JOIN "Release" r ON r."id" = i."releaseId"
    ${definition}
    WHERE a."state" = 'active'
      AND NOT EXISTS (
        SELECT 1 FROM "Deployment" d WHERE d."appId" = a."id" AND d."status" = 'running')
      AND NOT EXISTS (
        SELECT 1 FROM "Instance" o WHERE o."appId" = a."id" AND o."goneAt" IS NULL
          AND NOT o."oneOff" AND NOT (o."desired" = 'running' AND o."state" = 'ready'
            AND NOT o."paused" AND o."nodeId" IS NOT NULL
            AND coalesce(o."moveAt" < clock_timestamp() - interval '15 minutes', true)
            AND o."readyAt" < clock_timestamp() - make_interval(secs => ${settledSeconds}::int)))
    ORDER BY i."appId", i."process", i."id"`;
  return rows.map(({ node, ...row }) => ({ ...wantOf(row), node }));
}

/** What the release `r` says of the process of an instance `i`. */
const definition = Prisma.sql`LEFT JOIN LATERAL (
  SELECT p FROM jsonb_array_elements(r."processes") p
  WHERE p->>'name' = coalesce(i."task"->>'process', i."process") LIMIT 1) d ON true`;

/** Of an instance `i` of release `r`, with its `definition`. One-off tasks are as many as fit, always. */
const wantColumns = Prisma.sql`i."id", ${countedAs} AS "process",
  r."imageDigest" AS "image", i."cpuMillis", i."memoryMiB", i."diskMiB", i."priority",
  coalesce(d.p->>'pool', ${defaultPool}) AS "pool",
  coalesce(d.p->'nodeLabels', '{}') AS "labels",
  CASE WHEN i."oneOff" THEN NULL ELSE nullif((d.p->>'mostPerNode')::int, 0) END AS "mostPerNode",
  CASE WHEN ${holdsClaim} THEN i."claimNodeId" END AS "claim"`;

const wantOf = (row: WantRow): Want => {
  const { id, process, image, pool, labels, mostPerNode, priority, claim, ...needs } = row;
  return { id, process, image, needs, pool, labels, mostPerNode, priority, claim };
};

/** The fleet: its nodes, how full they are, what of the processes of `apps` is on them, and the rules of its pools. */
export async function readFleet(
  tx: PlatformTx,
  imagesOf: ImagesOf,
  apps: readonly string[],
): Promise<Snapshot> {
  const pools = await tx.prisma.pool.findMany();
  return {
    nodes: await readNodes(tx, imagesOf, apps),
    pools: Object.fromEntries(pools.map(({ name, cpuOvercommit }) => [name, { cpuOvercommit }])),
  };
}

/** The apps of those wants. */
export const appsOf = (wants: readonly Pick<Want, 'process'>[]): string[] => [
  ...new Set(wants.map(({ process }) => process.split('/')[0]!)),
];

async function readNodes(
  tx: PlatformTx,
  imagesOf: ImagesOf,
  apps: readonly string[],
): Promise<NodeSnapshot[]> {
  const nodes = await tx.prisma.$queryRaw<Omit<NodeSnapshot, 'images'>[]>`
    WITH taken AS (
      SELECT "nodeId", "cpuMillis", "memoryMiB", "diskMiB"
      FROM "Instance" WHERE "nodeId" IS NOT NULL AND "goneAt" IS NULL
      UNION ALL
      SELECT i."claimNodeId", i."cpuMillis", i."memoryMiB", i."diskMiB"
      FROM "Instance" i WHERE i."claimNodeId" IS NOT NULL AND ${holdsClaim}),
    used AS MATERIALIZED (
      SELECT "nodeId", json_build_object('cpuMillis', sum("cpuMillis"), 'memoryMiB',
        sum("memoryMiB"), 'diskMiB', sum("diskMiB"), 'instances', count(*)) AS "used"
      FROM taken GROUP BY "nodeId"),
    -- Of these apps alone: a fleet has too many processes to be told of each time.
    counts AS (
      SELECT i."nodeId", ${countedAs} AS "process", count(*) AS "count"
      FROM "Instance" i WHERE i."appId" = ANY(${apps}::uuid[])
        AND i."nodeId" IS NOT NULL AND i."goneAt" IS NULL
      GROUP BY i."nodeId", i."appId", i."process", i."releaseId", i."epoch"),
    held AS MATERIALIZED (
      SELECT "nodeId", json_object_agg("process", "count") AS "processes"
      FROM counts GROUP BY "nodeId")
    SELECT n."id", n."pool", n."labels", n."state", n."cordoned",
      json_build_object('cpuMillis', n."cpuMillis", 'memoryMiB', n."memoryMiB",
        'diskMiB', n."diskMiB", 'instances', n."maxInstances") AS "capacity",
      coalesce(u."used", '{"cpuMillis":0,"memoryMiB":0,"diskMiB":0,"instances":0}') AS "used",
      coalesce(h."processes", '{}') AS "processes"
    FROM "Node" n LEFT JOIN used u ON u."nodeId" = n."id"
    LEFT JOIN held h ON h."nodeId" = n."id"`;
  return nodes.map((node) => ({ ...node, images: imagesOf(node.id) }));
}
